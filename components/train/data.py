"""The input of training: batches of raw examples, read from memory-mapped shards.

Examples are read in chunks of many batches, so that Python runs a few times per epoch instead of once per
batch, and memory does not depend on the size of the dataset. TensorFlow splits the chunks into batches and
prefetches them. The model itself normalizes its input.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from modelyard.components import artifacts, problems
from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.errors import DataError
from modelyard.components.shards import Split
from modelyard.components.train.backend import tf

CHUNK_BYTES = 8 * 2**20
FIRST_CHUNK_DIVISOR = 32  # the first chunk is smaller, so that the first step starts early
Indices = NDArray[np.int64]


class Subset:
    """A subset of a split."""

    def __init__(self, split: "Split | Subset", indices: Indices) -> None:
        self._split, self._indices = split, indices
        self.targets: NDArray[Any] = split.targets[indices]

    def __len__(self) -> int:
        return len(self._indices)

    def gather(self, indices: Indices) -> NDArray[Any]:
        """Return the examples at `indices` of the subset."""
        return self._split.gather(self._indices[indices])


Examples = Split | Subset


@dataclass(frozen=True)
class Features:
    """The part of preprocess' output that training uses."""

    schema: Schema
    normalization: Normalization
    train: Examples
    validation: Examples

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Open the features; raise DataError if a file is malformed, or there are no training examples."""
        schema = artifacts.read(folder / "schema.json", Schema)
        normalization = artifacts.read(folder / "normalization.json", Normalization)
        splits = []
        for name in ("train", "validation"):
            split = Split.open(folder, name, schema, "Preprocess the data again.")
            problems.get_problem(schema.problem).check_targets(schema, name, 0, split.targets)
            splits.append(split)
        train, validation = splits
        if not len(train):
            raise DataError(f"{folder} has no training examples. Lower data.validation and data.test.")
        return cls(schema, normalization, train, validation)


def shuffled_batches(split: Examples, size: int, seed: int, first_epoch: int = 0) -> Any:
    """Return batches of the examples, shuffled for each epoch by `seed` and the epoch's number.

    The result is a tf.data.Dataset of (examples (n, *shape), targets (n,)) with n = size, smaller in the last
    batch. `first_epoch` is the number of the first epoch, from 0.
    """
    epochs = itertools.count(first_epoch)
    return _batch(split, size, lambda: np.random.default_rng((seed, next(epochs))).permutation(len(split)))


def ordered_batches(split: Examples, size: int) -> Any:
    """Return batches of the examples in their order; see `shuffled_batches`."""
    return _batch(split, size, lambda: np.arange(len(split)))


def _batch(split: Examples, size: int, order: Callable[[], Indices]) -> Any:
    example = split.gather(np.arange(1))
    chunk = size * max(1, CHUNK_BYTES // (size * max(1, example.nbytes)))

    def chunks() -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        indices = order()
        first = size * max(1, chunk // size // FIRST_CHUNK_DIVISOR)
        for start, stop in itertools.pairwise([0, *range(first, len(indices), chunk), len(indices)]):
            part = indices[start:stop]
            yield split.gather(part), split.targets[part]

    example_spec = tf.TensorSpec((None, *example.shape[1:]), example.dtype)
    signature = example_spec, tf.TensorSpec((None,), split.targets.dtype)
    dataset = tf.data.Dataset.from_generator(chunks, output_signature=signature).prefetch(1).rebatch(size)
    steps = math.ceil(len(split) / size)
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1  # leaves the CPUs to the training steps
    return dataset.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2).with_options(options)
