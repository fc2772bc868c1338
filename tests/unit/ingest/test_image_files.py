import re
from pathlib import Path

import numpy as np
import pytest

from modelyard.components.artifacts import ImageFormat
from modelyard.components.errors import DataError
from modelyard.components.ingest import image_files
from modelyard.components.source.settings import Source
from tests.unit.ingest.conftest import peak_memory

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def test_images_become_examples_with_the_label_of_their_folder(pack, png_image, run_ingest) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (60, 6, 5, 3), np.uint8)
    classes = [f"class {label}" for label in range(4)]
    files = {f"{classes[index % 4]}/{index}.png": png_image(array) for index, array in enumerate(pixels)}
    result = run_ingest("images", pack(files))
    assert result.schema.names == tuple(classes)
    assert result.schema.shape == (6, 5, 3)
    assert result.schema.splits == {"all": 60}
    assert result.schema.image == ImageFormat(height=6, width=5, channels=3, resize="exact")
    expected = {array.tobytes(): index % 4 for index, array in enumerate(pixels)}
    pairs = zip(result.examples["all"], result.labels["all"], strict=True)
    assert {array.tobytes(): label for array, label in pairs} == expected


def test_splits_of_the_source_are_kept(pack, png_image, run_ingest) -> None:
    files = {
        f"pets/{split}/{name}/{number}.png": png_image(color)
        for split, count in (("val", 1), ("train", 3), ("test", 2))
        for name, color in (("cat", RED), ("dog", BLUE))
        for number in range(count)
    }
    result = run_ingest("images", pack(files))
    assert result.schema.splits == {"train": 6, "test": 4, "validation": 2}
    for split, examples in result.examples.items():
        assert [int(row[0, 0].argmax() == 2) for row in examples] == result.labels[split].tolist()


def test_images_of_any_size_and_format_are_resized(pack, png_image, run_ingest) -> None:
    gray = np.full((9, 7), 90, np.uint8)
    files = {
        "a/1.png": png_image(RED, (8, 6, 3)),
        "b/2.jpeg": png_image(gray),
        "b/3": png_image(RED, (40, 30, 3)),
    }
    resize = {"height": 4, "width": 6, "policy": "crop"}
    result = run_ingest("images", pack(files), resize=resize, channels=1)
    assert result.examples["all"].shape == (3, 4, 6, 1)
    assert result.schema.image == ImageFormat(height=4, width=6, channels=1, resize="crop")


def test_hidden_files_and_system_files_are_ignored(pack, png_image, run_ingest) -> None:
    files = {
        "cats/": b"",
        "cats/1.png": png_image(),
        "dogs/2.png": png_image(),
        "dogs/.DS_Store": b"junk",
        "dogs/Thumbs.db": b"junk",
        "dogs/beagles_$folder$": b"",
        "__MACOSX/cats/._1.png": b"junk",
        ".git/config": b"junk",
    }
    assert run_ingest("images", pack(files)).schema.splits == {"all": 2}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("cats/notes.txt", b"hello", "'cats/notes.txt' in .* is not a PNG"),
        ("cats/0.png", b"", "'cats/0.png' in .* is empty"),
        ("cats/0.gif", b"GIF89a......", "'cats/0.gif' in .* (not a PNG|damaged)"),
        ("3.png", b"hello", "'3.png' is not in a class folder"),
        ("emus/", b"", "'emus' has no images"),
    ],
)
@pytest.mark.parametrize("resize", [None, {"height": 4, "width": 4}])
def test_a_file_that_is_not_an_image_is_refused_with_its_name(
    pack, png_image, run_ingest, name, data, message, resize
) -> None:
    source = pack({"cats/1.png": png_image(), "dogs/1.png": png_image(), name: data})
    with pytest.raises(DataError, match=message) as error:
        run_ingest("images", source, resize=resize)
    assert source.name in str(error.value)


def test_a_truncated_image_is_refused_with_its_name(pack, png_image, run_ingest) -> None:
    png = png_image(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8))
    source = pack({"cats/1.png": png, "dogs/2.png": png[:-30]})
    with pytest.raises(DataError, match=r"'dogs/2\.png' in .*damaged or truncated"):
        run_ingest("images", source)


def test_without_resize_an_image_of_another_size_is_refused_with_both_sizes(
    pack, png_image, run_ingest
) -> None:
    source = pack(
        {"cats/1.png": png_image(), "dogs/2.png": png_image(), "dogs/3.png": png_image(0, (4, 5, 3))}
    )
    with pytest.raises(DataError, match=r"'dogs/3\.png' in .* 4 x 5 pixels .* 4 x 4\. .*data\.resize"):
        run_ingest("images", source)


def test_without_resize_images_of_different_sizes_are_refused(pack, png_image, run_ingest) -> None:
    sizes = {f"cats/{side}.png": png_image(0, (side, 4, 3)) for side in (4, 5, 6)}
    with pytest.raises(DataError, match=r"^2 of 4 files.*Set data\.resize"):
        run_ingest("images", pack({**sizes, "dogs/1.png": png_image()}))


def test_a_source_without_images_is_refused(pack, run_ingest) -> None:
    with pytest.raises(DataError, match=re.escape("has no images. Put them in one folder per class")):
        run_ingest("images", pack({".hidden/1.png": b""}))


def test_memory_is_independent_of_the_number_of_images(pack, png_image) -> None:
    files = {
        f"{index % 2}/{index}.png": png_image(index % 256, (128, 128, 3)) for index in range(600)
    }  # 28 MB decoded
    source = Source(kind="images", source=str(pack(files)))
    examples = image_files.read(Path(str(source.source)), source)
    with peak_memory() as peak:
        count = sum(len(batch.examples) for batch in examples.batches)
        assert peak() < 8 * 2**20
    assert count == 600


@pytest.fixture
def source_with_bad_files(pack, png_image) -> Path:
    """Ten images and three unusable files."""
    files = {f"cats/{number}.png": png_image(number) for number in range(9)}
    unusable = {"dogs/0.png": b"", "dogs/notes.txt": b"hello", "dogs/2.png": png_image(0, (4, 5, 3))}
    return pack({**files, **unusable, "dogs/9.png": png_image(9)})


def test_all_unusable_files_are_listed_together(source_with_bad_files, run_ingest) -> None:
    with pytest.raises(DataError, match="3 of 13 files") as error:
        run_ingest("images", source_with_bad_files, max_bad=0.2)
    for name in ("dogs/0.png", "dogs/notes.txt", "dogs/2.png", "data.max_bad"):
        assert name in str(error.value)


def test_unusable_files_up_to_max_bad_are_skipped_and_listed(
    source_with_bad_files, run_ingest, capsys
) -> None:
    result = run_ingest("images", source_with_bad_files, max_bad=0.25)
    assert result.schema.splits == {"all": 10}
    assert [entry.partition(":")[0] for entry in sorted(result.schema.skipped)] == [
        "dogs/0.png",
        "dogs/2.png",
        "dogs/notes.txt",
    ]
    assert set(result.schema.skipped) < set(capsys.readouterr().out.splitlines())
    assert "3 of 13" in result.schema.notes[-1]


def test_a_broken_link_is_an_unusable_file(tmp_path, png_image, run_ingest) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / "source" / name).mkdir(parents=True)
        (tmp_path / "source" / name / "1.png").write_bytes(png_image())
        (tmp_path / "source" / name / "2.png").symlink_to("missing")
    with pytest.raises(DataError, match=r"2 of 4 files .*cats/2\.png: .*dogs/2\.png: "):
        run_ingest("images", tmp_path / "source")
    assert run_ingest("images", tmp_path / "source", max_bad=0.5).schema.splits == {"all": 2}


def test_an_index_has_labels_and_splits(pack, png_image, run_ingest) -> None:
    files = {f"data/img/{number}.png": png_image(number) for number in range(4)}
    index = "Path,Label,Split,x\nimg/0.png,10,train,\nimg/1.png,2,Train,\n./img/2.png,10,val,\n"
    result = run_ingest("images", pack({**files, "data/all.csv": index.encode("utf-8-sig")}), index="all.csv")
    assert result.schema.names == ("2", "10")
    assert result.schema.splits == {"train": 2, "validation": 1}
    assert {split: labels.tolist() for split, labels in result.labels.items()} == {
        "train": [1, 0],
        "validation": [1],
    }
    assert "not in the index, and are not used: 1" in " ".join(result.schema.notes)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_hugging_face_metadata_is_an_index(pack, png_image, run_ingest, kind) -> None:
    rows = {"csv": "file_name,label\n0.png,cat\n1.png,dog\n"}
    rows["jsonl"] = '{"file_name": "0.png", "label": "cat"}\n{"file_name": "1.png", "label": "dog"}\n'
    files = {f"{split}/{number}.png": png_image(number) for split in ("train", "test") for number in (0, 1)}
    files |= {f"{split}/metadata.{kind}": rows[kind].encode() for split in ("train", "test")}
    result = run_ingest("images", pack(files))
    assert result.schema.names == ("cat", "dog")
    assert result.schema.splits == {"test": 2, "train": 2}


def test_metadata_without_labels_is_ignored(pack, png_image, run_ingest) -> None:
    files = {"cats/1.png": png_image(1), "dogs/2.png": png_image(2), "metadata.csv": b"file_name,text\n"}
    assert run_ingest("images", pack(files)).schema.names == ("cats", "dogs")


def test_numbers_in_an_index_are_regression_targets(pack, png_image, run_ingest) -> None:
    files = {
        "1.png": png_image(1),
        "2.png": png_image(2),
        "i.tsv": b"image\ttarget\n1.png\t1.5\n2.png\t-2e3\n",
    }
    result = run_ingest("images", pack(files), index="i.tsv", problem="regression")
    assert result.labels["all"].tolist() == [1.5, -2000.0]
    assert result.schema.names == ("target",)


def test_an_index_without_columns_is_refused_with_the_expected_columns(pack, png_image, run_ingest) -> None:
    source = pack({"cats/1.png": png_image(), "i.csv": b"cats/1.png,cat\n"})
    with pytest.raises(DataError, match=r"columns path, label.* no such columns in i\.csv"):
        run_ingest("images", source, index="i.csv")
    with pytest.raises(DataError, match=r"data\.index"):
        run_ingest("images", source, index="j.csv")


def test_a_regression_needs_an_index(pack, png_image, run_ingest) -> None:
    with pytest.raises(DataError, match=r"data\.index"):
        run_ingest(
            "images", pack({"cats/1.png": png_image(), "dogs/2.png": png_image()}), problem="regression"
        )
