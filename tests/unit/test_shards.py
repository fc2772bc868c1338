import numpy as np
import pytest

from modelyard.components import shards
from modelyard.components.shards import ShardWriter, Split, prefetch


def write_split(folder, count):
    x = np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2, 1)
    y = np.arange(count) % 3
    with ShardWriter(folder, "train", (2, 2, 1), "uint8") as writer:
        for start in range(0, count, 7):
            writer.append(x[start : start + 7], y[start : start + 7])
    return x, y


@pytest.mark.parametrize("capacity", [1, 5, 7, 1000])
def test_examples_are_read_in_order_at_any_shard_size(tmp_path, monkeypatch, capacity):
    monkeypatch.setattr(shards, "SHARD_BYTES", capacity * 4)
    x, y = write_split(tmp_path, 23)
    split = Split(tmp_path, "train")
    assert len(split) == 23
    np.testing.assert_array_equal(split.targets, y)
    np.testing.assert_array_equal(np.concatenate([examples for examples, _ in split.batches(4)]), x)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in split.batches(4)]), y)
    indices = np.array([22, 0, 7, 7, 3])
    np.testing.assert_array_equal(split.gather(indices), x[indices])
    names = sorted(path.name for path in tmp_path.glob("*.npy") if "targets" not in path.name)
    assert names[0] == f"train-00000-of-{len(names):05d}.npy"


def test_examples_have_the_names_of_the_source(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 4 * 3)
    with ShardWriter(tmp_path, "test", (2, 2, 1), "uint8") as writer:
        writer.append(np.zeros((4, 2, 2, 1)), np.zeros(4), ("a/1.png", "a/2.png", "b/\udcff.png", "b/4.png"))
        writer.append(np.zeros((3, 2, 2, 1)), np.zeros(3), ("", "", ""))
    split = Split(tmp_path, "test")
    assert split.names(np.array([3, 0, 2, 6])) == ["b/4.png", "a/1.png", "b/\udcff.png", ""]
    write_split(tmp_path, 5)
    assert Split(tmp_path, "train").names(np.array([4])) == [""]


def test_a_missing_split_is_empty(tmp_path):
    assert len(Split(tmp_path, "validation")) == 0


def test_examples_of_another_shape_are_refused(tmp_path):
    with (
        ShardWriter(tmp_path, "train", (2, 2, 1), "uint8") as writer,
        pytest.raises(ValueError, match="2, 2, 1"),
    ):
        writer.append(np.zeros((1, 3, 2, 1)), np.zeros(1))


def test_a_shard_is_a_numpy_file(tmp_path):
    x, _ = write_split(tmp_path, 23)
    np.save(tmp_path / "expected.npy", x)
    shard = tmp_path / "train-00000-of-00001.npy"
    assert shard.read_bytes() == (tmp_path / "expected.npy").read_bytes()


@pytest.mark.parametrize("examples", [0, 1])
def test_a_failed_write_leaves_no_shard(tmp_path, examples):
    with pytest.raises(KeyError), ShardWriter(tmp_path, "train", (2,), "uint8") as writer:
        writer.append(np.zeros((examples, 2)), np.zeros(examples))
        raise KeyError
    assert len(Split(tmp_path, "train")) == 0


def test_prefetch_keeps_order_and_raises_errors():
    def items():
        yield from range(3)
        raise KeyError

    items_read = []
    with pytest.raises(KeyError):
        items_read.extend(prefetch(items()))
    assert list(prefetch(iter("abc"))) == ["a", "b", "c"]
