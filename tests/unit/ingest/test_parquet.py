import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from modelyard.components.errors import DataError
from modelyard.components.ingest import parquet
from modelyard.components.ingest.members import Member
from tests.unit.ingest.conftest import peak_memory

Write = Callable[..., Path]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
CLASSES = ["dog", "cat"]
FEATURES = {"image": {"_type": "Image"}, "label": {"names": CLASSES, "_type": "ClassLabel"}}


@pytest.fixture
def write(tmp_path: Path, png_image: Callable[..., bytes]) -> Write:
    """Return a function that writes a file below `hub` with labels and, by default, generated images."""

    def write_file(
        name: str,
        labels: Any,
        features: dict[str, Any] | None = None,
        images: Any = None,
        columns: tuple[str, ...] = ("image", "label"),
        **options: Any,
    ) -> Path:
        path = tmp_path / "hub" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if images is None:
            values = [{"bytes": png_image(row), "path": None} for row in range(len(labels))]
            images = pa.array(values, IMAGE)
        table = pa.Table.from_arrays([images, pa.array(labels)], list(columns))
        if features:
            info = json.dumps({"info": {"features": features}})
            table = table.replace_schema_metadata({"huggingface": info})
        pq.write_table(table, path, **options)
        return tmp_path / "hub"

    return write_file


def test_hugging_face_shards_have_images_and_class_names(write, run_ingest) -> None:
    for shard in range(2):
        write(f"data/train-0000{shard}-of-00002.parquet", [0, 1, 0][shard:], FEATURES, row_group_size=2)
    source = write("data/test-00000-of-00001.parquet", [1], FEATURES)
    (source / "README.md").write_text("hello")
    result = run_ingest("images", source)
    assert result.schema.names == tuple(CLASSES)
    assert {split: labels.tolist() for split, labels in result.labels.items()} == {
        "train": [0, 1, 0, 1, 0],
        "test": [1],
    }
    assert result.examples["train"][:, 0, 0, 0].tolist() == [0, 1, 2, 0, 1]
    assert "columns image and label" in result.schema.notes[0]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["cat", "dog", "cat"], ("cat", "dog")),
        (pa.array(["cat", "dog", "cat"]).dictionary_encode(), ("cat", "dog")),
        ([2, 10, 2], ("2", "10")),
    ],
)
def test_a_single_file_with_a_binary_column_and_strings_or_integers(
    write, png_image, run_ingest, labels, names
) -> None:
    images = pa.array([png_image(row) for row in range(3)], pa.large_binary())
    source = write("a.parquet", labels, images=images, columns=("img", "Label")) / "a.parquet"
    result = run_ingest("images", source, channels=1)
    assert (result.schema.names, result.labels["all"].tolist()) == (names, [0, 1, 0])
    assert result.examples["all"][:, 0, 0, 0].tolist() == [0, 1, 2]


def test_the_column_image_is_preferred(write, png_image, run_ingest) -> None:
    source = write("a.parquet", ["cat", "dog"]) / "a.parquet"
    table = pq.read_table(source)
    other = pa.array([png_image(9), png_image(9)])
    pq.write_table(table.append_column("mask", other), source)
    assert run_ingest("images", source).examples["all"][:, 0, 0, 0].tolist() == [0, 1]
    pq.write_table(table.rename_columns(["x", "label"]).append_column("mask", other), source)
    with pytest.raises(DataError, match="named image if there are several"):
        run_ingest("images", source)


def test_numbers_are_regression_targets(write, run_ingest) -> None:
    result = run_ingest("images", write("train.parquet", [0.5, -2.0]), problem="regression")
    assert (result.schema.names, result.labels["train"].tolist()) == (("label",), [0.5, -2.0])


def test_unusable_rows_are_listed_together_or_skipped(write, png_image, run_ingest) -> None:
    images = pa.array(
        [{"bytes": data, "path": "x"} for data in (png_image(), b"no", None, png_image(), png_image())], IMAGE
    )
    source = write("a.parquet", [0, 1, 1, -1, None], FEATURES, images)
    with pytest.raises(DataError, match="4 of 5 files") as error:
        run_ingest("images", source)
    for row in range(1, 5):
        assert f"row {row} of a.parquet" in str(error.value)
    assert len(run_ingest("images", source, max_bad=0.8).schema.skipped) == 4


@pytest.mark.parametrize(
    ("columns", "labels", "message"),
    [
        (("a", "b"), [1.5, 2.5], "has the columns a (int64), b (double). Rename or convert them"),
        (("image", "label"), [1.5, 2.5], "label, target or class with integers or strings"),
        (("image", "label"), [[1], [2]], "label (list<"),
        (("image", "name"), [1, 2], "Rename or convert them"),
        (("image", "label"), [None, None], "Rename or convert them"),
        (("image", "label"), ["", " "], "The column label of a.parquet has no labels"),
    ],
)
def test_a_file_without_the_columns_is_refused_with_the_expected_columns(
    write, run_ingest, columns, labels, message
) -> None:
    images = pa.array([1, 2]) if columns[0] == "a" else None
    with pytest.raises(DataError, match=re.escape(message)):
        run_ingest("images", write("a.parquet", labels, images=images, columns=columns))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train.parquet", "more.parquet"], "'more.parquet' has no split"),
        (["train-00000-of-00002.parquet"], "1 of 2 files train-…-of-00002 exist"),
    ],
)
def test_missing_shards_and_files_without_a_split_are_refused(write, run_ingest, names, message) -> None:
    for name in names:
        source = write(name, [0, 1])
    with pytest.raises(DataError, match=message):
        run_ingest("images", source)


def test_different_or_too_many_classes_are_refused(write, run_ingest, monkeypatch) -> None:
    write("a.parquet", [0, 1], FEATURES)
    source = write("b.parquet", [0, 1], {"label": {"names": ["x", "y"], "_type": "ClassLabel"}})
    with pytest.raises(DataError, match=r"'b\.parquet' in .* differs from 'a\.parquet' in its columns"):
        run_ingest("images", source)
    monkeypatch.setattr(parquet, "MAX_CLASSES", 2)
    with pytest.raises(DataError, match="more than 2 different labels"):
        run_ingest("images", write("b.parquet", [0, 1, 2]) / "b.parquet")


def test_a_parquet_bomb_is_refused_by_its_metadata(write, run_ingest, monkeypatch) -> None:
    source = write("a.parquet", [0, 1])
    with pytest.raises(DataError, match=r"data\.max_bytes allows 100"):
        run_ingest("images", source, max_bytes=100)
    monkeypatch.setattr(parquet, "MAX_ROW_GROUP_BYTES", 100)
    with pytest.raises(DataError, match="row_group_size=100"):
        run_ingest("images", source)


@pytest.mark.parametrize("change", [lambda data: data[:-9], lambda data: data[:4] + bytes(90) + data[94:]])
def test_a_damaged_file_is_refused_with_its_name(write, run_ingest, change) -> None:
    path = write("a.parquet", [0, 1]) / "a.parquet"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=r"(?s)'a\.parquet' in .* again\."):
        run_ingest("images", path)


def test_files_in_an_archive_are_read_and_an_index_is_refused(write, pack, run_ingest) -> None:
    source = write("train-00000-of-00002.parquet", [0, 1], FEATURES, row_group_size=1)
    source = write("train-00001-of-00002.parquet", [1, 1], FEATURES, row_group_size=1)
    packed = pack({f"hub/{path.name}": path.read_bytes() for path in sorted(source.iterdir())})
    assert run_ingest("images", packed).labels["train"].tolist() == [0, 1, 1, 1]
    with pytest.raises(DataError, match=r"Remove data\.index"):
        run_ingest("images", packed, index="a.csv")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00001.parquet", "train"),
        ("Test/0000.parquet", "test"),
        ("my_valid.parquet", "validation"),
        ("trained.parquet", "all"),
        ("train/test.parquet", "test"),
    ],
)
def test_the_split_is_a_word_in_the_name(name, split) -> None:
    assert parquet.find_split(name) == split


@pytest.mark.parametrize(
    "metadata",
    [b"", b"{", b"[]", b'{"info": {"features": {"label": 1}}}', b"[" * 100_000,
     b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "a"]}}}}'],
)  # fmt: skip
def test_other_metadata_has_no_class_names(metadata) -> None:
    assert parquet._read_class_names({b"huggingface": metadata}) == {}


def test_examples_equal_the_images_in_the_files(write, png_image, run_ingest) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), np.uint8)
    images = pa.array([{"bytes": png_image(array), "path": None} for array in pixels], IMAGE)
    result = run_ingest("images", write("a.parquet", [row % 2 for row in range(40)], images=images))
    np.testing.assert_array_equal(result.examples["all"], pixels)


def test_a_file_is_read_with_the_memory_of_a_row_group(write) -> None:
    images = pa.array([np.random.default_rng(row).bytes(50_000) for row in range(320)])  # 16 MB
    path = write("a.parquet", [0, 1] * 160, images=images, row_group_size=16) / "a.parquet"
    file = Member(path, path.name, 0, lambda: path.open("rb"))
    with peak_memory() as peak:
        table = parquet.read_parquet(lambda: iter([file]), True, "classification", 2**30)
        size = sum(len(content()) for _, _, content in table.images())
        assert peak() < 6 * 2**20
    assert size == 320 * 50_000
