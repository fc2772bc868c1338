import io
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.components.artifacts import ImageFormat
from modelyard.components.errors import DataError

BINARY, PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"


@pytest.fixture(params=["binary", "python"])
def archive(request: pytest.FixtureRequest, tmp_path: Path, cifar10_archive) -> Path:
    return cifar10_archive(tmp_path / f"cifar-10-{request.param}.tar.gz", request.param)


@pytest.fixture(params=["binary", "python"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, cifar10_archive) -> Path:
    """Return the folder of an unpacked archive."""
    archive = cifar10_archive(tmp_path / "packed.tar.gz", request.param)
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    return next((tmp_path / "unpacked").iterdir())


def read_batch(path: Path, name: str) -> tuple[np.ndarray, list[int]]:
    """Read a batch as the documentation of CIFAR-10 does: images (n, 32, 32, 3) and labels."""
    with tarfile.open(path) as archive:
        member = archive.extractfile(f"{PYTHON}/{name}")
        assert member
        batch: dict[bytes, Any] = pickle.load(member, encoding="bytes")
    return batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), batch[b"labels"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from NumPy, about old pickles
def test_all_forms_equal_the_official_reader(tmp_path, archive, folder, run_ingest, cifar10_archive) -> None:
    reference = cifar10_archive(tmp_path / "reference.tar.gz", "python")
    train = [read_batch(reference, f"data_batch_{number}") for number in range(1, 6)]
    test = read_batch(reference, "test_batch")
    for source in (archive, folder, folder.parent):
        result = run_ingest("cifar10", source)
        np.testing.assert_array_equal(result.examples["train"], np.concatenate([batch[0] for batch in train]))
        assert result.labels["train"].tolist() == [label for batch in train for label in batch[1]]
        np.testing.assert_array_equal(result.examples["test"], test[0])
        assert result.labels["test"].tolist() == test[1]
        assert result.schema.names[:2] == ("airplane", "automobile")
        assert result.schema.image == ImageFormat(height=32, width=32, channels=3, resize="stretch")


def test_a_missing_file_is_refused_with_its_name(folder, run_ingest) -> None:
    missing = next(path for path in folder.iterdir() if path.name.startswith("data_batch_3"))
    missing.unlink()
    with pytest.raises(DataError, match=rf"has no {missing.name}.*Use the complete archive"):
        run_ingest("cifar10", folder)


def test_other_data_is_refused(pack, png_image, run_ingest) -> None:
    with pytest.raises(DataError, match=r"has no data_batch_1\.bin"):
        run_ingest("cifar10", pack({"cats/1.png": png_image()}))


def test_duplicate_files_and_both_forms_together_are_refused(
    tmp_path, folder, cifar10_archive, run_ingest
) -> None:
    copy = shutil.copytree(folder, folder.parent / "copy")
    with pytest.raises(DataError, match="are the same file"):
        run_ingest("cifar10", folder.parent)
    shutil.rmtree(copy)
    for layout in ("binary", "python"):
        with tarfile.open(cifar10_archive(tmp_path / "other.tar.gz", layout)) as packed:
            packed.extractall(folder.parent, filter="data")
    with pytest.raises(DataError, match="belongs to the other form"):
        run_ingest("cifar10", folder.parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[: 3073 * 4 + 100], "ends within a row"),
        (lambda _: b"", "is empty"),
        (lambda data: data[: 3073 * 7] + b"\x0a" + data[3073 * 7 + 1 :], "the label 10 in row 7"),
    ],
)
def test_an_invalid_binary_batch_is_refused_with_its_name_and_row(
    tmp_path, cifar10_archive, run_ingest, change, message
) -> None:
    with tarfile.open(cifar10_archive(tmp_path / "packed.tar.gz", "binary")) as packed:
        packed.extractall(tmp_path, filter="data")
    batch = tmp_path / BINARY / "data_batch_2.bin"
    batch.write_bytes(change(batch.read_bytes()))
    with pytest.raises(DataError, match=rf"data_batch_2\.bin' in .* {message}"):
        run_ingest("cifar10", tmp_path / BINARY)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"labels": [0, 1]}, "without data"),
        ([1, 2], "without data, labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 11]}, "the label 11 in row 1"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, -1]}, "the label -1 in row 1"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 2**70]}, "not integers"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": ["cat", "dog"]}, "not integers"),
        ({"data": np.zeros((2, 3000), np.uint8), "labels": [0, 1]}, "3072"),
        ({"data": np.zeros((2, 3072), np.float32), "labels": [0, 1]}, "an array that is not uint8"),
        ({"data": [[1, 2]], "labels": [0]}, "array"),
    ],
)
def test_an_invalid_python_batch_is_refused_with_its_name_and_row(
    tmp_path, cifar10_archive, python2_pickle, run_ingest, batch, message
) -> None:
    with tarfile.open(cifar10_archive(tmp_path / "packed.tar.gz", "python")) as packed:
        packed.extractall(tmp_path, filter="data")
    (tmp_path / PYTHON / "data_batch_2").write_bytes(python2_pickle(batch))
    with pytest.raises(DataError, match=rf"data_batch_2' in .* {message}"):
        run_ingest("cifar10", tmp_path / PYTHON)


@pytest.mark.parametrize(
    "names", [[], ["cat"] * 10, list("abcdefghi"), "abcdefghij", [1, 2, 3], ["a\nb"] * 10]
)
def test_invalid_class_names_are_refused(
    tmp_path, cifar10_archive, python2_pickle, run_ingest, names
) -> None:
    with tarfile.open(cifar10_archive(tmp_path / "packed.tar.gz", "python")) as packed:
        packed.extractall(tmp_path, filter="data")
    (tmp_path / PYTHON / "batches.meta").write_bytes(python2_pickle({"label_names": names}))
    with pytest.raises(DataError, match=r"batches\.meta' in .* does not name 10 classes"):
        run_ingest("cifar10", tmp_path / PYTHON)


class Malicious:
    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return io.open, (str(self._marker), "w")


@pytest.mark.parametrize("name", ["data_batch_4", "batches.meta"])
def test_a_batch_that_would_run_code_is_refused_and_nothing_is_written(
    tmp_path, cifar10_archive, run_ingest, name
) -> None:
    with tarfile.open(cifar10_archive(tmp_path / "packed.tar.gz", "python")) as packed:
        packed.extractall(tmp_path, filter="data")
    malicious = pickle.dumps({"data": Malicious(tmp_path / "marker"), "labels": []}, protocol=2)
    (tmp_path / PYTHON / name).write_bytes(malicious)
    with pytest.raises(DataError, match=rf"{name}' in .* uses '.*open'.* No code was run"):
        run_ingest("cifar10", tmp_path / PYTHON)
    assert not (tmp_path / "marker").exists()
    assert not any((tmp_path / "artifacts").iterdir())
