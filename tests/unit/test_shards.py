import numpy as np
import pytest

from modelyard.components import shards
from modelyard.components.shards import ShardWriter, Split


def fill(folder, rows):
    x = np.arange(rows * 4, dtype=np.uint8).reshape(rows, 2, 2, 1)
    y = np.arange(rows) % 3
    with ShardWriter(folder, "train", (2, 2, 1), "uint8") as writer:
        for start in range(0, rows, 7):
            writer.append(x[start : start + 7], y[start : start + 7])
    return x, y


@pytest.mark.parametrize("capacity", [1, 5, 7, 1000])
def test_rows_come_back_in_order_whatever_the_shard_size(tmp_path, monkeypatch, capacity):
    monkeypatch.setattr(shards, "SHARD_BYTES", capacity * 4)
    x, y = fill(tmp_path, 23)
    split = Split(tmp_path, "train")
    assert len(split) == 23
    np.testing.assert_array_equal(split.targets, y)
    np.testing.assert_array_equal(np.concatenate([b for b, _ in split.batches(4)]), x)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in split.batches(4)]), y)
    rows = np.array([22, 0, 7, 7, 3])
    np.testing.assert_array_equal(split.gather(rows), x[rows])
    names = sorted(path.name for path in tmp_path.glob("*.npy") if "targets" not in path.name)
    assert names[0] == f"train-00000-of-{len(names):05d}.npy"


def test_a_split_that_is_not_there_is_empty(tmp_path):
    assert len(Split(tmp_path, "validation")) == 0


def test_rows_of_another_shape_are_refused(tmp_path):
    with (
        ShardWriter(tmp_path, "train", (2, 2, 1), "uint8") as writer,
        pytest.raises(ValueError, match="rows of"),
    ):
        writer.append(np.zeros((1, 3, 2, 1)), np.zeros(1))
