import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from modelyard.components.artifacts import ImageFormat
from modelyard.components.errors import DataError
from modelyard.components.ingest import class_folders
from modelyard.components.ingest.class_folders import layout
from modelyard.components.source.settings import Source

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def test_pictures_become_rows_with_the_label_of_their_folder(pack, picture, ingested) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (60, 6, 5, 3), np.uint8)
    classes = [f"class {label}" for label in range(4)]
    files = {f"{classes[row % 4]}/{row}.png": picture(array) for row, array in enumerate(pixels)}
    found = ingested("images", pack(files))
    assert found.schema.names == tuple(classes)
    assert found.schema.shape == (6, 5, 3)
    assert found.schema.splits == {"all": 60}
    assert found.schema.image == ImageFormat(height=6, width=5, channels=3, resize="exact")
    expected = {array.tobytes(): row % 4 for row, array in enumerate(pixels)}
    rows = zip(found.examples["all"], found.labels["all"], strict=True)
    assert {array.tobytes(): label for array, label in rows} == expected


def test_splits_of_the_source_stay_splits(pack, picture, ingested) -> None:
    files = {
        f"pets/{split}/{name}/{number}.png": picture(colour)
        for split, count in (("val", 1), ("train", 3), ("test", 2))
        for name, colour in (("cat", RED), ("dog", BLUE))
        for number in range(count)
    }
    found = ingested("images", pack(files))
    assert found.schema.splits == {"train": 6, "test": 4, "validation": 2}
    for split, examples in found.examples.items():
        assert [int(row[0, 0].argmax() == 2) for row in examples] == found.labels[split].tolist()


def test_pictures_of_any_size_and_kind_become_one_form(pack, picture, ingested) -> None:
    grey = np.full((9, 7), 90, np.uint8)
    files = {"a/1.png": picture(RED, (8, 6, 3)), "b/2.jpeg": picture(grey), "b/3": picture(RED, (40, 30, 3))}
    resize = {"height": 4, "width": 6, "policy": "crop"}
    found = ingested("images", pack(files), resize=resize, channels=1)
    assert found.examples["all"].shape == (3, 4, 6, 1)
    assert found.schema.image == ImageFormat(height=4, width=6, channels=1, resize="crop")


def test_hidden_files_and_what_systems_leave_behind_are_no_pictures(pack, picture, ingested) -> None:
    files = {
        "cats/": b"",
        "cats/1.png": picture(),
        "dogs/2.png": picture(),
        "dogs/.DS_Store": b"junk",
        "dogs/Thumbs.db": b"junk",
        "__MACOSX/cats/._1.png": b"junk",
        ".git/config": b"junk",
    }
    assert ingested("images", pack(files)).schema.splits == {"all": 2}


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("cats/notes.txt", b"hello", "'cats/notes.txt' in .* is not a PNG or JPEG"),
        ("cats/0.png", b"", "'cats/0.png' in .* is empty"),
        ("cats/0.gif", b"GIF89a......", "'cats/0.gif' in .* not a PNG or JPEG"),
        ("notes.txt", b"hello", "'notes.txt' does not lie in a class folder"),
        ("emus/", b"", "'emus' has no pictures"),
    ],
)
@pytest.mark.parametrize("resize", [None, {"height": 4, "width": 4}])
def test_what_is_no_picture_is_refused_by_name(pack, picture, ingested, name, data, said, resize) -> None:
    source = pack({"cats/1.png": picture(), "dogs/1.png": picture(), name: data})
    with pytest.raises(DataError, match=said) as caught:
        ingested("images", source, resize=resize)
    assert source.name in str(caught.value)


def test_a_picture_cut_off_is_refused_by_name(pack, picture, ingested) -> None:
    whole = picture(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8))
    source = pack({"cats/1.png": whole, "dogs/2.png": whole[:-30]})
    with pytest.raises(DataError, match=r"'dogs/2\.png' in .*damaged or cut off"):
        ingested("images", source)


def test_without_resize_a_picture_of_another_size_is_refused_with_both_sizes(pack, picture, ingested) -> None:
    source = pack({"cats/1.png": picture(), "dogs/2.png": picture(), "dogs/3.png": picture(0, (4, 5, 3))})
    with pytest.raises(DataError, match=r"'dogs/3\.png' in .* 4 x 5 pixels .* 4 x 4\. .*data\.resize"):
        ingested("images", source)


def test_a_source_without_pictures_is_refused(pack, ingested) -> None:
    with pytest.raises(DataError, match=re.escape("has no pictures. Put them in one folder per class")):
        ingested("images", pack({".hidden/1.png": b""}))


def test_many_pictures_need_no_more_memory_than_a_few(pack, picture) -> None:
    files = {f"{row % 2}/{row}.png": picture(row % 256, (128, 128, 3)) for row in range(600)}  # 28 MB decoded
    source = Source(kind="images", source=str(pack(files)))
    examples = class_folders.read(Path(str(source.source)), source)
    tracemalloc.start()
    try:
        rows = sum(len(batch) for _, batch, _ in examples.batches)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows == 600
    assert peak < 8 * 2**20


def test_class_folders_are_one_split_with_the_classes_in_order_of_name() -> None:
    found = layout(["dogs/b.png", "cats/a.png", "Zebras/c.png"], ["dogs", "cats", "Zebras"])
    assert found.classes == ("Zebras", "cats", "dogs")
    assert found.splits == ("all",)
    assert found.place("dogs/b.png") == ("all", 2)


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_split_folders_are_the_splits(validation) -> None:
    names = [f"{split}/{name}/1.png" for split in ("test", validation, "train") for name in ("cat", "dog")]
    found = layout(names, [])
    assert set(found.splits) == {"train", "test", "validation"}
    assert found.classes == ("cat", "dog")
    assert found.place(f"{validation}/dog/1.png") == ("validation", 1)


def test_one_folder_around_all_of_it_is_looked_through() -> None:
    found = layout(["flowers/rose/1.png", "flowers/tulip/1.png"], ["flowers", "flowers/rose"])
    assert found.classes == ("rose", "tulip")
    assert found.place("flowers/tulip/1.png") == ("all", 1)
    found = layout(["pets/train/cat/1.png", "pets/test/cat/1.png"], [])
    assert found.place("pets/test/cat/1.png") == ("test", 0)


def test_a_split_alone_is_a_split_and_not_a_folder_around_the_classes() -> None:
    assert layout(["train/cat/1.png", "train/dog/1.png"], []).splits == ("train",)


def test_a_class_may_be_called_train() -> None:
    found = layout(["train/1.png", "plane/1.png", "test/2.png"], [])
    assert found.classes == ("plane", "test", "train")
    assert found.splits == ("all",)


@pytest.mark.parametrize(
    ("pictures", "folders", "said"),
    [
        ([], ["cats"], "no pictures"),
        (["cats/1.png", "notes.txt"], [], "'notes.txt' does not lie in a class folder"),
        (["cats/1.png", "cats/old/2.png", "dogs/1.png"], [], "'cats/old/2.png' does not lie"),
        (["train/cats/1.png", "extra/cats/1.png"], [], "'train/cats/1.png' does not lie"),
        (["train/cats/1.png", "train/readme.md"], [], "'train/readme.md' does not lie"),
        (["cats/1.png"], ["cats", "dogs"], "'dogs' has no pictures"),
        (["train/cats/1.png", "test/cats/1.png", "test/emus/1.png"], [], "'train/emus' has no pictures"),
        (["train/cats/1.png", "test/cats/1.png"], ["val"], "'val/cats' has no pictures"),
        (["val/cats/1.png", "validation/cats/1.png", "train/cats/1.png"], [], "val and a folder validation"),
    ],
)
def test_what_is_no_such_layout_is_refused_by_name(pictures, folders, said) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        layout(pictures, folders)


def test_any_set_of_classes_and_splits_is_found_again() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        classes = sorted({f"class {number}" for number in random.integers(0, 30, random.integers(1, 9))})
        splits = [*random.permutation(["train", "test", "val"])[: random.integers(0, 4)]]
        around = ["data/"] * int(random.integers(2))
        names = [
            f"{''.join(around)}{split + '/' if split else ''}{name}/{number}.png"
            for split in splits or [""]
            for name in classes
            for number in range(random.integers(1, 4))
        ]
        found = layout(list(random.permutation(names)), [])
        assert found.classes == tuple(classes)
        for name in names:
            split, label = found.place(name)
            assert f"/{classes[label]}/" in f"/{name}"
            assert split == ("all" if not splits else {"val": "validation"}.get(name.split("/")[-3], split))
