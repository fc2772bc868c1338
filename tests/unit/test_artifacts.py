import numpy as np
import pytest

from components import artifacts
from components.artifacts import Decision, ShardWriter, Split
from components.errors import DataError


def fill(folder, rows):
    x = np.arange(rows * 4, dtype=np.uint8).reshape(rows, 2, 2, 1)
    y = np.arange(rows) % 3
    with ShardWriter(folder, "train", (2, 2, 1), "uint8") as writer:
        for start in range(0, rows, 7):
            writer.append(x[start : start + 7], y[start : start + 7])
    return x, y


@pytest.mark.parametrize("capacity", [1, 5, 7, 1000])
def test_rows_come_back_in_order_whatever_the_shard_size(tmp_path, monkeypatch, capacity):
    monkeypatch.setattr(artifacts, "SHARD_BYTES", capacity * 4)
    x, y = fill(tmp_path, 23)
    split = Split(tmp_path, "train")
    assert len(split) == 23
    np.testing.assert_array_equal(split.labels, y)
    np.testing.assert_array_equal(np.concatenate([b for b, _ in split.batches(4)]), x)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in split.batches(4)]), y)
    rows = np.array([22, 0, 7, 7, 3])
    np.testing.assert_array_equal(split.gather(rows), x[rows])
    names = sorted(path.name for path in tmp_path.glob("*.npy") if "labels" not in path.name)
    assert names[0] == f"train-00000-of-{len(names):05d}.npy"


def test_a_split_that_is_not_there_is_empty(tmp_path):
    assert len(Split(tmp_path, "validation")) == 0


def test_rows_of_another_shape_are_refused(tmp_path):
    with (
        ShardWriter(tmp_path, "train", (2, 2, 1), "uint8") as writer,
        pytest.raises(ValueError, match="rows of"),
    ):
        writer.append(np.zeros((1, 3, 2, 1)), np.zeros(1))


def test_an_artifact_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "raw"
    with pytest.raises(RuntimeError), artifacts.writing(target) as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with artifacts.writing(target) as folder:
        (folder / "whole").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert (target / "whole").read_text() == "x"


def test_a_record_that_is_missing_or_wrong_names_its_file(tmp_path):
    with pytest.raises(DataError, match=r"decision\.json is missing"):
        artifacts.read(tmp_path / "decision.json", Decision)
    (tmp_path / "decision.json").write_text('{"decision": "maybe", "reason": ""}')
    with pytest.raises(DataError, match=r"decision\.json is not a Decision"):
        artifacts.read(tmp_path / "decision.json", Decision)


def test_the_fingerprint_of_a_folder_is_that_of_its_code(tmp_path):
    (tmp_path / "net.py").write_text("a = 1")
    before = artifacts.tree_sha256(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "net.pyc").write_bytes(b"x")
    (tmp_path / ".hidden").write_text("x")
    assert artifacts.tree_sha256(tmp_path) == before
    (tmp_path / "net.py").rename(tmp_path / "other.py")
    renamed = artifacts.tree_sha256(tmp_path)
    (tmp_path / "other.py").write_text("a = 2")
    assert len({before, renamed, artifacts.tree_sha256(tmp_path)}) == 3
