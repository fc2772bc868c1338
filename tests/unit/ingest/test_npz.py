import io
import re
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.components.errors import DataError
from modelyard.components.ingest import npz
from modelyard.components.source.settings import Source

X = np.random.default_rng(0).integers(0, 256, (9, 4, 3), np.uint8)
Y = np.array([0, 2, 1, 1, 0, 2, 0, 0, 1])


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(compress: bool = False, **arrays: Any) -> Path:
        path = tmp_path / "source.npz"
        (np.savez_compressed if compress else np.savez)(path, allow_pickle=True, **arrays)
        return path

    return write


@pytest.mark.parametrize("compress", [False, True])
def test_rows_and_labels_arrive_as_they_were_saved(save, ingested, compress) -> None:
    found = ingested("npz", save(compress, x=X, y=Y))
    np.testing.assert_array_equal(found.examples["all"], X)
    np.testing.assert_array_equal(found.labels["all"], Y)
    assert found.schema.names == ("0", "1", "2")
    assert found.schema.shape == (4, 3)
    assert found.schema.image is None


def test_train_and_test_are_kept_apart_and_classes_named(save, ingested) -> None:
    source = save(x_train=X, y_train=Y[:, None], x_test=X[:4], y_test=Y[:4].astype(np.uint8))
    found = ingested("npz", source, classes=["cat", "dog", "emu"])
    assert found.schema.splits == {"train": 9, "test": 4}
    assert found.schema.names == ("cat", "dog", "emu")
    np.testing.assert_array_equal(found.labels["train"], Y)
    np.testing.assert_array_equal(found.examples["test"], X[:4])


@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [
        ("bool", "uint8"),
        ("int16", "uint8"),
        (">i4", "uint8"),
        ("uint64", "uint8"),
        ("float16", "float32"),
        ("float32", "float32"),
        (">f8", "float32"),
    ],
)
def test_integers_become_uint8_and_floating_point_float32(save, ingested, dtype, becomes) -> None:
    given = (X % 2 if dtype == "bool" else X).astype(dtype)
    found = ingested("npz", save(x=given, y=Y)).examples["all"]
    assert found.dtype == becomes
    np.testing.assert_array_equal(found, given.astype(becomes))


@pytest.mark.parametrize("size", [1, 12, 25, 10**6])
def test_rows_are_the_same_whatever_the_size_of_a_batch(save, ingested, monkeypatch, size) -> None:
    monkeypatch.setattr(npz, "BATCH_BYTES", size)
    found = ingested("npz", save(x=X, y=Y))
    np.testing.assert_array_equal(found.examples["all"], X)
    np.testing.assert_array_equal(found.labels["all"], Y)


def at(array: np.ndarray, place: Any, value: Any, dtype: str = "float32") -> np.ndarray:
    changed = array.astype(dtype)
    changed[place] = value
    return changed


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": X}, "has the arrays x. Name them x and y"),
        ({}, "has the arrays (none). Name them x and y"),
        ({"x": X, "y": Y, "z": Y}, "has the arrays x, y, z."),
        ({"x_train": X, "y_train": Y, "x_test": X}, "has the arrays x_test, x_train, y_train."),
        ({"x": X, "y": Y[:-1]}, "is int64 of shape (8,), but a label per example of x, (9,), is expected"),
        ({"x": X, "y": np.eye(9, 3)}, "is float64 of shape (9, 3)"),
        ({"x": X, "y": np.eye(9, 3, dtype=int)}, "is int64 of shape (9, 3)"),
        ({"x": X, "y": Y + 2}, "has labels that begin with 2 and have gaps"),
        ({"x": X, "y": np.eye(3)[Y] / 2}, "row 0 is not one-hot"),
        ({"x": X, "y": np.where(Y, "a", "")}, "has the label '' in row"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": np.eye(3)[Y]}, "has other labels than"),
        ({"x": X, "y": at(Y, 3, -1, "int64")}, "has the label -1 in row 3"),
        ({"x": X, "y": at(Y, 7, 9, "int64")}, "row 7, but there are only 9 examples"),
        ({"x": X, "y": at(Y, 7, 2**40, "int64")}, "has the label 1099511627776 in row 7"),
        ({"x": X[0, 0], "y": Y[:3]}, "is uint8 of shape (3,), but (examples, …) is expected"),
        ({"x": X[:0], "y": Y[:0]}, "is uint8 of shape (0, 4, 3)"),
        ({"x": X[:, :0], "y": Y}, "is uint8 of shape (9, 0, 3)"),
        ({"x": at(X, (5, 1, 2), np.nan), "y": Y}, "has the value nan in row 5"),
        ({"x": at(X, (8, 0, 0), np.inf), "y": Y}, "has the value inf in row 8"),
        ({"x": at(X, (2, 0, 0), 1e39, "float64"), "y": Y}, "has the value 1e+39 in row 2"),
        ({"x": at(X, (4, 0, 0), 256, "int64"), "y": Y}, "has the value 256 in row 4: integers are pixels"),
        ({"x": at(X, (4, 3, 1), -1, "int64"), "y": Y}, "has the value -1 in row 4"),
        ({"x": X.astype(complex), "y": Y}, "is complex128"),
        ({"x": X.astype(str), "y": Y}, "is <U3"),
        ({"x": X.astype(object), "y": Y}, "contains Python objects"),
        ({"x": X, "y": Y.astype(object)}, "contains Python objects"),
        ({"x": np.zeros((9, 2), [("a", "u1")]), "y": Y}, "is [('a', 'u1')]"),
        ({"x": np.asfortranarray(X), "y": Y}, "in Fortran order. Convert it with numpy.ascontiguousarray"),
        (
            {"x_train": X, "y_train": Y, "x_test": X[:, :2], "y_test": Y},
            "is uint8 of shape (9, 2, 3), but x_train is uint8 of shape (9, 4, 3)",
        ),
        (
            {"x_train": X, "y_train": Y, "x_test": X / 255, "y_test": Y},
            "is float64 of shape (9, 4, 3), but x_train is uint8",
        ),
    ],
)
def test_what_cannot_be_examples_and_labels_is_refused_by_name_and_row(
    save, ingested, tmp_path, arrays, said
) -> None:
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        ingested("npz", save(**arrays))
    assert "source.npz" in str(caught.value)
    assert not any((tmp_path / "artifacts").iterdir())


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (Y + 1, ("1", "2", "3")),
        ((Y + 1).astype(np.uint8)[:, None], ("1", "2", "3")),
        (np.eye(3)[Y], ("0", "1", "2")),
        (np.eye(3, dtype=bool)[Y], ("0", "1", "2")),
        (np.array(["a", "cafe\u0301", "caf\xe9s"])[Y], ("a", "caf\xe9", "caf\xe9s")),
        (np.array(["2", "10", "11"])[Y], ("2", "10", "11")),
        (np.array([b"a", b"b", b"c"])[Y], ("a", "b", "c")),
    ],
)
def test_labels_whose_meaning_is_certain_are_mapped_and_that_is_noted(save, ingested, y, names) -> None:
    found = ingested("npz", save(x=X, y=y))
    np.testing.assert_array_equal(found.labels["all"], Y)
    assert found.schema.names == names
    assert "labels are" in found.schema.notes[0]
    assert ingested("npz", save(x=X, y=Y)).schema.notes == ()


def test_labels_that_are_no_text_too_many_or_of_other_classes_are_refused(
    save, ingested, monkeypatch
) -> None:
    texts = np.array([b"a", b"b", b"\xff"])[Y]
    with pytest.raises(DataError, match="which is not printable text"):
        ingested("npz", save(x=X, y=texts))
    with pytest.raises(DataError, match=r"3 columns, but data\.classes has 2"):
        ingested("npz", save(x=X, y=np.eye(3)[Y]), classes=["cat", "dog"])
    monkeypatch.setattr("modelyard.components.ingest.npz.MAX_CLASSES", 1)
    with pytest.raises(DataError, match="more than 1 different labels"):
        ingested("npz", save(x=X, y=np.array(["a", "b", "c"])[Y]))


def test_an_example_that_is_larger_than_any_is_refused(save, ingested, monkeypatch) -> None:
    monkeypatch.setattr("modelyard.components.ingest.npz.MAX_FILE_BYTES", 11)
    with pytest.raises(DataError, match="12 bytes, but the maximum is 11"):
        ingested("npz", save(x=X, y=Y))


def test_labels_from_1_and_texts_may_have_names(save, ingested) -> None:
    found = ingested("npz", save(x=X, y=Y + 1), classes=["cat", "dog", "emu"])
    assert (found.labels["all"].tolist(), found.schema.names) == (Y.tolist(), ("cat", "dog", "emu"))
    found = ingested("npz", save(x=X, y=np.array(["b", "a", "c"])[Y]), classes=["b", "a", "c"])
    assert found.labels["all"].tolist() == Y.tolist()
    with pytest.raises(DataError, match=r"the label 'c' in row .* data\.classes"):
        ingested("npz", save(x=X, y=np.array(["b", "a", "c"])[Y]), classes=["b", "a"])
    found = ingested("npz", save(x=X, y=np.where(Y, 1, -1)))
    assert (found.labels["all"].tolist(), found.schema.names) == ((Y > 0).tolist(), ("-1", "1"))


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_16_bit_integers_become_float32_unchanged(save, ingested, dtype) -> None:
    x = (X.astype(int) * 128 - (1 if dtype == "int16" else 0)).astype(dtype)
    found = ingested("npz", save(x=x, y=Y))
    assert found.schema.dtype == "float32"
    np.testing.assert_array_equal(found.examples["all"], x)
    assert "16-bit" in found.schema.notes[0]


def test_a_label_beyond_the_named_classes_is_refused(save, ingested) -> None:
    with pytest.raises(DataError, match=r"label 2 in row 1, but data\.classes has 2 names"):
        ingested("npz", save(x=X, y=Y), classes=["cat", "dog"])


def test_numbers_are_the_targets_of_a_regression(save, ingested) -> None:
    y = np.linspace(-3, 1e6, 9)
    found = ingested("npz", save(x=X, y=y[:, None]), problem="regression")
    np.testing.assert_array_equal(found.labels["all"], y.astype(np.float32))
    assert (found.schema.problem, found.schema.names) == ("regression", ("y",))
    assert ingested("npz", save(x=X, y=Y), problem="regression").labels["all"].dtype == np.float32


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.eye(9, 2), "A regression has one target; train a model for each"),
        (at(np.zeros(9), 4, 1e39, "float64"), "has the value 1e+39 in row 4"),
        (at(np.zeros(9), 4, np.nan, "float64"), "has the value nan in row 4"),
        (Y.astype(str), "is <U21"),
    ],
)
def test_what_cannot_be_the_target_of_a_regression_is_refused(save, ingested, y, said) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        ingested("npz", save(x=X, y=y), problem="regression")


def test_numbers_are_no_labels(save, ingested) -> None:
    with pytest.raises(DataError, match="set problem: regression"):
        ingested("npz", save(x=X, y=Y / 2))


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data + b"\0", lambda _: b"not an array"]
)
@pytest.mark.parametrize("name", ["x.npy", "y.npy"])
def test_an_array_that_is_not_as_long_as_it_says_is_refused(tmp_path, ingested, name, change) -> None:
    files = {"x.npy": npy(X), "y.npy": npy(Y)}
    with zipfile.ZipFile(tmp_path / "s.npz", "w") as archive:
        for key, data in files.items():
            archive.writestr(key, change(data) if key == name else data)
    with pytest.raises(DataError, match=f"'{name}' in .*(bytes, but|not an .npy file)"):
        ingested("npz", tmp_path / "s.npz")


@pytest.mark.parametrize("data", [b"", b"PK", npy(X)])
def test_another_kind_of_file_is_refused(tmp_path, ingested, data) -> None:
    (tmp_path / "s.npz").write_bytes(data)
    with pytest.raises(DataError, match=r"s\.npz is not an \.npz"):
        ingested("npz", tmp_path / "s.npz")
    with pytest.raises(DataError, match=r"is not an \.npz"):
        ingested("npz", tmp_path)


def test_a_bomb_is_refused_before_it_is_unpacked(save, ingested) -> None:
    source = save(True, x=np.zeros((2**12, 2**11), np.uint8), y=np.zeros(2**12, int))
    assert source.stat().st_size < 2**15
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"unpacked, has .* data\.max_bytes allows 1,048,576"):
            ingested("npz", source, max_bytes=2**20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_a_large_array_is_read_in_little_memory(save) -> None:
    source = save(x=np.zeros((2**14, 2**12), np.uint8), y=np.arange(2**14) % 7)  # 64 MB
    settings = Source(kind="npz", source=str(source))
    tracemalloc.start()
    try:
        rows = sum(len(batch.examples) for batch in npz.read(source, settings).batches)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows == 2**14
    assert peak < 8 * 2**20
