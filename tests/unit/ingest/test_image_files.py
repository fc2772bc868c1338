import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from modelyard.components.artifacts import ImageFormat
from modelyard.components.errors import DataError
from modelyard.components.ingest import image_files
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
        "dogs/beagles_$folder$": b"",
        "__MACOSX/cats/._1.png": b"junk",
        ".git/config": b"junk",
    }
    assert ingested("images", pack(files)).schema.splits == {"all": 2}


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("cats/notes.txt", b"hello", "'cats/notes.txt' in .* is not a PNG"),
        ("cats/0.png", b"", "'cats/0.png' in .* is empty"),
        ("cats/0.gif", b"GIF89a......", "'cats/0.gif' in .* (not a PNG|damaged)"),
        ("3.png", b"hello", "'3.png' is not in a class folder"),
        ("emus/", b"", "'emus' has no images"),
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
    with pytest.raises(DataError, match=re.escape("has no images. Put them in one folder per class")):
        ingested("images", pack({".hidden/1.png": b""}))


def test_many_pictures_need_no_more_memory_than_a_few(pack, picture) -> None:
    files = {f"{row % 2}/{row}.png": picture(row % 256, (128, 128, 3)) for row in range(600)}  # 28 MB decoded
    source = Source(kind="images", source=str(pack(files)))
    examples = image_files.read(Path(str(source.source)), source)
    tracemalloc.start()
    try:
        rows = sum(len(batch.examples) for batch in examples.batches)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows == 600
    assert peak < 8 * 2**20


@pytest.fixture
def with_bad_files(pack, picture) -> Path:
    """Nine good pictures and three bad files."""
    files = {f"cats/{number}.png": picture(number) for number in range(9)}
    bad = {"dogs/0.png": b"", "dogs/notes.txt": b"hello", "dogs/2.png": picture(0, (4, 5, 3))}
    return pack({**files, **bad, "dogs/9.png": picture(9)})


def test_all_bad_files_are_listed_at_once(with_bad_files, ingested) -> None:
    with pytest.raises(DataError, match="3 of 13 files") as caught:
        ingested("images", with_bad_files, max_bad=0.2)
    for name in ("dogs/0.png", "dogs/notes.txt", "dogs/2.png", "data.max_bad"):
        assert name in str(caught.value)


def test_bad_files_are_skipped_up_to_a_share_listed_and_logged(with_bad_files, ingested, capsys) -> None:
    found = ingested("images", with_bad_files, max_bad=0.25)
    assert found.schema.splits == {"all": 10}
    assert [entry.partition(":")[0] for entry in sorted(found.schema.skipped)] == [
        "dogs/0.png",
        "dogs/2.png",
        "dogs/notes.txt",
    ]
    assert set(found.schema.skipped) < set(capsys.readouterr().out.splitlines())
    assert "3 of 13 files" in found.schema.notes[-1]


def test_a_link_to_nothing_is_a_bad_file(tmp_path, picture, ingested) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / "source" / name).mkdir(parents=True)
        (tmp_path / "source" / name / "1.png").write_bytes(picture())
        (tmp_path / "source" / name / "2.png").symlink_to("gone")
    with pytest.raises(DataError, match=r"2 of 4 files .*cats/2\.png: .*dogs/2\.png: "):
        ingested("images", tmp_path / "source")
    assert ingested("images", tmp_path / "source", max_bad=0.5).schema.splits == {"all": 2}


def test_an_index_has_labels_and_splits(pack, picture, ingested) -> None:
    files = {f"data/img/{number}.png": picture(number) for number in range(4)}
    index = "Path,Label,Split,x\nimg/0.png,10,train,\nimg/1.png,2,Train,\n./img/2.png,10,val,\n"
    found = ingested("images", pack({**files, "data/all.csv": index.encode("utf-8-sig")}), index="all.csv")
    assert found.schema.names == ("2", "10")
    assert found.schema.splits == {"train": 2, "validation": 1}
    assert {split: labels.tolist() for split, labels in found.labels.items()} == {
        "train": [1, 0],
        "validation": [1],
    }
    assert "1 files of the source are not in the index" in " ".join(found.schema.notes)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_of_hugging_face_is_an_index(pack, picture, ingested, kind) -> None:
    rows = {"csv": "file_name,label\n0.png,cat\n1.png,dog\n"}
    rows["jsonl"] = '{"file_name": "0.png", "label": "cat"}\n{"file_name": "1.png", "label": "dog"}\n'
    files = {f"{split}/{number}.png": picture(number) for split in ("train", "test") for number in (0, 1)}
    files |= {f"{split}/metadata.{kind}": rows[kind].encode() for split in ("train", "test")}
    found = ingested("images", pack(files))
    assert found.schema.names == ("cat", "dog")
    assert found.schema.splits == {"test": 2, "train": 2}


def test_metadata_without_labels_leave_the_class_folders(pack, picture, ingested) -> None:
    files = {"cats/1.png": picture(1), "dogs/2.png": picture(2), "metadata.csv": b"file_name,text\n"}
    assert ingested("images", pack(files)).schema.names == ("cats", "dogs")


def test_numbers_in_an_index_are_the_targets_of_a_regression(pack, picture, ingested) -> None:
    files = {"1.png": picture(1), "2.png": picture(2), "i.tsv": b"image\ttarget\n1.png\t1.5\n2.png\t-2e3\n"}
    found = ingested("images", pack(files), index="i.tsv", problem="regression")
    assert found.labels["all"].tolist() == [1.5, -2000.0]
    assert found.schema.names == ("target",)


def test_an_index_without_the_columns_is_refused_with_those_that_are_expected(
    pack, picture, ingested
) -> None:
    source = pack({"cats/1.png": picture(), "i.csv": b"cats/1.png,cat\n"})
    with pytest.raises(DataError, match=r"columns path and label.* i\.csv has no such columns"):
        ingested("images", source, index="i.csv")
    with pytest.raises(DataError, match=r"data\.index"):
        ingested("images", source, index="j.csv")


def test_a_regression_needs_an_index(pack, picture, ingested) -> None:
    with pytest.raises(DataError, match=r"data\.index"):
        ingested("images", pack({"cats/1.png": picture(), "dogs/2.png": picture()}), problem="regression")
