"""The batches of training."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.components import shards
from modelyard.components.errors import DataError
from modelyard.components.train import data
from modelyard.components.train.data import Features


@pytest.fixture
def numbered_examples(train_env, monkeypatch) -> Any:
    """50 training examples in several shards: example i has the value i and the label i modulo 3."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 7 * 4)
    numbers = np.arange(50)
    return Features.read(train_env.features(numbers.astype(np.float32)[:, None], numbers % 3)).train


def read_epoch(dataset: Any) -> list[int]:
    values = []
    for examples, labels in dataset:
        numbers = examples.numpy()[:, 0].astype(int)
        np.testing.assert_array_equal(labels, numbers % 3)
        values += numbers.tolist()
    return values


@pytest.mark.parametrize("chunk", [1, 4 * 16, 2**20])
def test_each_epoch_shuffles_all_examples(numbered_examples, monkeypatch, chunk) -> None:
    monkeypatch.setattr(data, "CHUNK_BYTES", chunk)
    batches = data.shuffled_batches(numbered_examples, 8, seed=1)
    first, second = read_epoch(batches), read_epoch(batches)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first != sorted(first)
    repeated = data.shuffled_batches(numbered_examples, 8, seed=1)
    assert [read_epoch(repeated), read_epoch(repeated)] == [first, second]
    assert read_epoch(data.shuffled_batches(numbered_examples, 8, seed=2)) != first


def test_the_last_batch_is_smaller_and_the_cardinality_is_known(numbered_examples) -> None:
    batches = data.shuffled_batches(numbered_examples, 16, seed=0)
    assert [len(labels) for _, labels in batches] == [16, 16, 16, 2]
    assert batches.cardinality() == 4


def test_the_first_chunk_is_small(numbered_examples, monkeypatch) -> None:
    sizes: list[int] = []
    datasets = data.tf.data.Dataset
    from_generator = datasets.from_generator

    def record_sizes(parts: Callable[[], Any], **options: Any) -> Any:
        sizes.extend(len(targets) for _, targets in parts())
        return from_generator(parts, **options)

    monkeypatch.setattr(datasets, "from_generator", record_sizes)
    monkeypatch.setattr(data, "CHUNK_BYTES", 4 * 32)
    monkeypatch.setattr(data, "FIRST_CHUNK_DIVISOR", 4)
    assert read_epoch(data.ordered_batches(numbered_examples, 8)) == list(range(50))
    assert sizes == [8, 32, 10]


def test_ordered_batches_keep_the_order(numbered_examples) -> None:
    assert read_epoch(data.ordered_batches(numbered_examples, 8)) == list(range(50))


@pytest.mark.parametrize("steps", [1, 64])
def test_fit_uses_each_example_once_per_epoch(train_env, steps) -> None:
    code = """
        from pathlib import Path
        import tensorflow as tf

        @keras.saving.register_keras_serializable("seen")
        class Count(layers.Layer):
            def build(self, shape):
                self.counts = self.add_weight(shape=(60,), initializer="zeros", trainable=False)

            def call(self, x, training=False):
                if training:
                    numbers = tf.cast(x[:, 0] * 255.0 + 0.5, tf.int32)
                    self.counts.assign_add(tf.reduce_sum(tf.one_hot(numbers, 60), 0))
                return x

        def build(input_shape, classes):
            x = keras.Input(input_shape)
            return keras.Model(x, layers.Dense(classes, activation="softmax")(Count()(x)))
    """
    model = {"build": "counting:build", "code": str(train_env.code(counting=code))}
    train_env.features(np.arange(60, dtype=np.uint8)[:, None], np.arange(60) % 3)
    _, network = train_env.fit(model, epochs=3, batch_size=8, steps_per_execution=steps)
    (counts,) = (weights for weights in network.get_weights() if weights.shape == (60,))
    assert Counter(counts.tolist()) == {3.0: 60}


def rewrite(change: dict[str, Any]) -> Callable[[Path], None]:
    def damage(features: Path) -> None:
        schema = json.loads((features / "schema.json").read_text())
        (features / "schema.json").write_text(json.dumps(schema | change))

    return damage


def truncate(features: Path) -> None:
    shard = features / "train-00000-of-00001.npy"
    shard.write_bytes(shard.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda features: (features / "schema.json").unlink(), r"schema.json is missing"),
        (lambda features: (features / "schema.json").write_text("{"), r"schema.json is damaged.*JSON"),
        (rewrite({"dtype": "int8"}), r"schema.json is damaged.*dtype: Input should be 'uint8' or 'float32'"),
        (truncate, r"The split train in .* cannot be read: ValueError: mmap"),
        (
            lambda features: (features / "train-00000-of-00001.targets.npy").unlink(),
            r"The split train in .* cannot be read: FileNotFoundError",
        ),
        (
            lambda features: np.save(features / "train-00000-of-00001.targets.npy", np.zeros(3, np.int64)),
            r"has 60 examples and 3 targets, but schema.json says 60. Preprocess",
        ),
        (rewrite({"splits": {"train": 60}}), r"The split validation .* has 12 .* schema.json says 0"),
        (rewrite({"shape": [8, 8, 3]}), r"of uint8 \(8, 8, 1\), but schema.json says uint8 \(8, 8, 3\)"),
        (rewrite({"names": ["cat", "dog"]}), r"Example 2 of train has the label 2"),
    ],
)
def test_malformed_features_are_refused(train_env, damage, message) -> None:
    features = train_env.features()
    damage(features)
    with pytest.raises(DataError, match=message) as error:
        Features.read(features)
    assert "\n" not in str(error.value)


def test_features_without_training_examples_are_refused(train_env) -> None:
    features = train_env.features(*train_env.images(0))
    with pytest.raises(DataError, match=r"has no training examples. Lower data.validation and data.test"):
        Features.read(features)
