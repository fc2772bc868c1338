import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.components.errors import DataError
from modelyard.components.ingest import npz
from modelyard.components.source.settings import Source
from tests.unit.ingest.conftest import peak_memory

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
def test_examples_and_labels_are_read_as_saved(save, run_ingest, compress) -> None:
    result = run_ingest("npz", save(compress, x=X, y=Y))
    np.testing.assert_array_equal(result.examples["all"], X)
    np.testing.assert_array_equal(result.labels["all"], Y)
    assert result.schema.names == ("0", "1", "2")
    assert result.schema.shape == (4, 3)
    assert result.schema.image is None


def test_splits_are_kept_and_classes_named(save, run_ingest) -> None:
    source = save(x_train=X, y_train=Y[:, None], x_test=X[:4], y_test=Y[:4].astype(np.uint8))
    result = run_ingest("npz", source, classes=["cat", "dog", "emu"])
    assert result.schema.splits == {"train": 9, "test": 4}
    assert result.schema.names == ("cat", "dog", "emu")
    np.testing.assert_array_equal(result.labels["train"], Y)
    np.testing.assert_array_equal(result.examples["test"], X[:4])


@pytest.mark.parametrize(
    ("dtype", "expected"),
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
def test_integers_become_uint8_and_floating_point_float32(save, run_ingest, dtype, expected) -> None:
    array = (X % 2 if dtype == "bool" else X).astype(dtype)
    result = run_ingest("npz", save(x=array, y=Y)).examples["all"]
    assert result.dtype == expected
    np.testing.assert_array_equal(result, array.astype(expected))


@pytest.mark.parametrize("size", [1, 12, 25, 10**6])
def test_examples_are_independent_of_the_batch_size(save, run_ingest, monkeypatch, size) -> None:
    monkeypatch.setattr(npz, "BATCH_BYTES", size)
    result = run_ingest("npz", save(x=X, y=Y))
    np.testing.assert_array_equal(result.examples["all"], X)
    np.testing.assert_array_equal(result.labels["all"], Y)


def replace(array: np.ndarray, index: Any, value: Any, dtype: str = "float32") -> np.ndarray:
    changed = array.astype(dtype)
    changed[index] = value
    return changed


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "has the arrays x. Name them x and y"),
        ({}, "has the arrays (none). Name them x and y"),
        ({"x": X, "y": Y, "z": Y}, "has the arrays x, y, z."),
        ({"x_train": X, "y_train": Y, "x_test": X}, "has the arrays x_test, x_train, y_train."),
        (
            {"x": X, "y": Y[:-1]},
            "is int64 of shape (8,), but must have a label for each of the 9 examples",
        ),
        ({"x": X, "y": np.eye(9, 3)}, "is float64 of shape (9, 3)"),
        ({"x": X, "y": np.eye(9, 3, dtype=int)}, "is int64 of shape (9, 3)"),
        ({"x": X, "y": Y + 2}, "has the labels 2, 3, 4, but"),
        ({"x": X, "y": np.array([0, 2, 5] * 3)}, "has the labels 0, 2, 5, but"),
        ({"x": X, "y": np.eye(3)[Y] / 2}, "row 0 is not one-hot"),
        ({"x": X, "y": np.where(Y, "a", "")}, "has the label '' in row"),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": np.eye(3)[Y]}, "has labels in a diff"),
        ({"x": X, "y": replace(Y, 3, -1, "int64")}, "has the label -1 in row 3"),
        ({"x": X, "y": replace(Y, 7, 9, "int64")}, "row 7, but there are only 9 examples"),
        ({"x": X, "y": replace(Y, 7, 2**40, "int64")}, "has the label 1099511627776 in row 7"),
        ({"x": X[0, 0], "y": Y[:3]}, "is uint8 of shape (3,), but examples need at least two axes"),
        ({"x": X[:0], "y": Y[:0]}, "is uint8 of shape (0, 4, 3)"),
        ({"x": X[:, :0], "y": Y}, "is uint8 of shape (9, 0, 3)"),
        ({"x": replace(X, (5, 1, 2), np.nan), "y": Y}, "has the value nan in row 5"),
        ({"x": replace(X, (8, 0, 0), np.inf), "y": Y}, "has the value inf in row 8"),
        ({"x": replace(X, (2, 0, 0), 1e39, "float64"), "y": Y}, "has the value 1e+39 in row 2"),
        (
            {"x": replace(X, (4, 0, 0), 256, "int64"), "y": Y},
            "has the value 256 in row 4: integers must be from 0 to 255",
        ),
        ({"x": replace(X, (4, 3, 1), -1, "int64"), "y": Y}, "has the value -1 in row 4"),
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
def test_invalid_examples_and_labels_are_refused_with_name_and_row(
    save, run_ingest, tmp_path, arrays, message
) -> None:
    with pytest.raises(DataError, match=re.escape(message)) as error:
        run_ingest("npz", save(**arrays))
    assert "source.npz" in str(error.value)
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
def test_unambiguous_labels_are_converted_and_noted(save, run_ingest, y, names) -> None:
    result = run_ingest("npz", save(x=X, y=y))
    np.testing.assert_array_equal(result.labels["all"], Y)
    assert result.schema.names == names
    assert "labels are" in result.schema.notes[0]
    assert run_ingest("npz", save(x=X, y=Y)).schema.notes == ()


def test_labels_that_are_not_text_or_too_many_are_refused(save, run_ingest, monkeypatch) -> None:
    texts = np.array([b"a", b"b", b"\xff"])[Y]
    with pytest.raises(DataError, match="which is not printable text"):
        run_ingest("npz", save(x=X, y=texts))
    with pytest.raises(DataError, match=r"3 columns, but data\.classes has 2"):
        run_ingest("npz", save(x=X, y=np.eye(3)[Y]), classes=["cat", "dog"])
    monkeypatch.setattr("modelyard.components.ingest.npz.MAX_CLASSES", 1)
    with pytest.raises(DataError, match="more than 1 different labels"):
        run_ingest("npz", save(x=X, y=np.array(["a", "b", "c"])[Y]))


def test_an_example_above_the_maximum_size_is_refused(save, run_ingest, monkeypatch) -> None:
    monkeypatch.setattr("modelyard.components.ingest.npz.MAX_FILE_BYTES", 11)
    with pytest.raises(DataError, match="12 bytes, but the maximum is 11"):
        run_ingest("npz", save(x=X, y=Y))


def test_labels_from_1_and_strings_may_have_names(save, run_ingest) -> None:
    result = run_ingest("npz", save(x=X, y=Y + 1), classes=["cat", "dog", "emu"])
    assert (result.labels["all"].tolist(), result.schema.names) == (Y.tolist(), ("cat", "dog", "emu"))
    result = run_ingest("npz", save(x=X, y=np.array(["b", "a", "c"])[Y]), classes=["b", "a", "c"])
    assert result.labels["all"].tolist() == Y.tolist()
    with pytest.raises(DataError, match=r"the label 'c' in row .* data\.classes"):
        run_ingest("npz", save(x=X, y=np.array(["b", "a", "c"])[Y]), classes=["b", "a"])
    result = run_ingest("npz", save(x=X, y=np.where(Y, 1, -1)))
    assert (result.labels["all"].tolist(), result.schema.names) == ((Y > 0).tolist(), ("-1", "1"))


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_16_bit_integers_become_float32(save, run_ingest, dtype) -> None:
    x = (X.astype(int) * 128 - (1 if dtype == "int16" else 0)).astype(dtype)
    result = run_ingest("npz", save(x=x, y=Y))
    assert result.schema.dtype == "float32"
    np.testing.assert_array_equal(result.examples["all"], x)
    assert "16-bit" in result.schema.notes[0]


def test_a_label_beyond_the_class_names_is_refused(save, run_ingest) -> None:
    with pytest.raises(DataError, match=r"label 2 in row 1, but data\.classes has 2 names"):
        run_ingest("npz", save(x=X, y=Y), classes=["cat", "dog"])


def test_numbers_are_regression_targets(save, run_ingest) -> None:
    y = np.linspace(-3, 1e6, 9)
    result = run_ingest("npz", save(x=X, y=y[:, None]), problem="regression")
    np.testing.assert_array_equal(result.labels["all"], y.astype(np.float32))
    assert (result.schema.problem, result.schema.names) == ("regression", ("y",))
    assert run_ingest("npz", save(x=X, y=Y), problem="regression").labels["all"].dtype == np.float32


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.eye(9, 2), "Train a model for each target"),
        (replace(np.zeros(9), 4, 1e39, "float64"), "has the value 1e+39 in row 4"),
        (replace(np.zeros(9), 4, np.nan, "float64"), "has the value nan in row 4"),
        (Y.astype(str), "is <U21"),
    ],
)
def test_invalid_regression_targets_are_refused(save, run_ingest, y, message) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        run_ingest("npz", save(x=X, y=y), problem="regression")


def test_floating_point_labels_are_refused(save, run_ingest) -> None:
    with pytest.raises(DataError, match="set problem: regression"):
        run_ingest("npz", save(x=X, y=Y / 2))


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data + b"\0", lambda _: b"not an array"]
)
@pytest.mark.parametrize("name", ["x.npy", "y.npy"])
def test_an_array_with_a_wrong_size_is_refused(tmp_path, run_ingest, name, change) -> None:
    files = {"x.npy": npy(X), "y.npy": npy(Y)}
    with zipfile.ZipFile(tmp_path / "s.npz", "w") as archive:
        for key, data in files.items():
            archive.writestr(key, change(data) if key == name else data)
    with pytest.raises(DataError, match=f"'{name}' in .*(bytes, but|not an .npy file)"):
        run_ingest("npz", tmp_path / "s.npz")


@pytest.mark.parametrize("data", [b"", b"PK", npy(X)])
def test_another_kind_of_file_is_refused(tmp_path, run_ingest, data) -> None:
    (tmp_path / "s.npz").write_bytes(data)
    with pytest.raises(DataError, match=r"s\.npz is not an \.npz"):
        run_ingest("npz", tmp_path / "s.npz")
    with pytest.raises(DataError, match=r"is not an \.npz"):
        run_ingest("npz", tmp_path)


def test_an_archive_bomb_is_refused_before_unpacking(save, run_ingest) -> None:
    source = save(True, x=np.zeros((2**12, 2**11), np.uint8), y=np.zeros(2**12, int))
    assert source.stat().st_size < 2**15
    with peak_memory() as peak:
        with pytest.raises(DataError, match=r"unpacked, has .* data\.max_bytes allows 1,048,576"):
            run_ingest("npz", source, max_bytes=2**20)
        assert peak() < 2**20


def test_a_large_array_is_read_with_constant_memory(save) -> None:
    source = save(x=np.zeros((2**14, 2**12), np.uint8), y=np.arange(2**14) % 7)  # 64 MB
    settings = Source(kind="npz", source=str(source))
    with peak_memory() as peak:
        examples = sum(len(batch.examples) for batch in npz.read(source, settings).batches)
        assert peak() < 8 * 2**20
    assert examples == 2**14
