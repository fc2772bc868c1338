"""The input of training: batches of raw rows, gathered from memory maps.

Rows are read in chunks of many batches, so that Python is entered a few times an epoch and not once a
step, and memory stays the same whatever the size of the dataset. TensorFlow cuts the chunks into batches,
ahead of their use; what normalizes them is inside the model.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from modelyard.components import artifacts, problems
from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.errors import DataError, describe
from modelyard.components.shards import Split
from modelyard.components.train.backend import tf

CHUNK_BYTES = 8 * 2**20
FIRST_CHUNK_DIVISOR = (
    32  # the first chunk is this part of the others: the first step does not wait for a whole one
)
Rows = NDArray[np.int64]


class Examples(Protocol):
    """Rows of a dataset: `targets` is int64 or float32 of shape (rows,); `gather` takes any rows."""

    targets: NDArray[Any]

    def __len__(self) -> int:
        """Return the number of rows."""

    def gather(self, rows: Rows) -> NDArray[Any]:
        """Return the examples at `rows`, in that order."""


@dataclass(frozen=True)
class Features:
    """What preprocess wrote, as far as training needs it."""

    schema: Schema
    normalization: Normalization
    train: Examples
    validation: Examples

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Open the features in `directory`.

        Raises:
            DataError: a file is missing or malformed, or there are no training rows.
        """
        schema = artifacts.read(directory / "schema.json", Schema)
        normalization = artifacts.read(directory / "normalization.json", Normalization)
        train, validation = (_rows(directory, name, schema) for name in ("train", "validation"))
        if not len(train):
            raise DataError(f"{directory} has no training rows. Lower data.validation and data.test.")
        return cls(schema, normalization, train, validation)


class Subset:
    """Some rows of a split."""

    def __init__(self, split: Examples, rows: Rows) -> None:
        self._split, self._rows = split, rows
        self.targets = split.targets[rows]

    def __len__(self) -> int:
        return len(self._rows)

    def gather(self, rows: Rows) -> NDArray[Any]:
        """Return the examples at `rows` of this part."""
        return self._split.gather(self._rows[rows])


def _rows(directory: Path, name: str, schema: Schema) -> Split:
    """Open the rows of one split, which must be what the schema says."""
    try:
        split = Split(directory, name)
        first = split.gather(np.arange(1)) if len(split) else None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"The {name} rows in {directory} cannot be read: {describe(error)} Preprocess the data again."
        ) from error
    rows = schema.splits.get(name, 0)
    wrong = ""
    if not len(split) == len(split.targets) == rows:
        wrong = f"{len(split)} examples and {len(split.targets)} targets, but schema.json says {rows} rows"
    elif first is not None and (first.shape[1:] != schema.shape or first.dtype != schema.dtype):
        wrong = f"{first.dtype} {first.shape[1:]}, but schema.json says {schema.dtype} {schema.shape}"
    if wrong:
        raise DataError(f"The {name} rows in {directory} are {wrong}. Preprocess the data again.")
    problems.of(schema.problem).check_targets(schema, name, 0, split.targets)
    return split


def shuffled_batches(split: Examples, size: int, seed: int, first: int = 0) -> Any:
    """Return the rows as batches, each epoch in an order of its own that `seed` and its number decide.

    Args:
        split: the rows.
        size: of a batch.
        seed: of all orders.
        first: the epoch that comes first, from 0.

    Returns:
        tf.data.Dataset of (examples (n, *shape), targets (n,)) with n = size, less in the last batch.
    """
    epochs = itertools.count(first)
    return _batches(split, size, lambda: np.random.default_rng((seed, next(epochs))).permutation(len(split)))


def ordered_batches(split: Examples, size: int) -> Any:
    """Return the rows as batches, in their order; see `shuffled_batches`."""
    return _batches(split, size, lambda: np.arange(len(split)))


def _batches(split: Examples, size: int, order: Callable[[], Rows]) -> Any:
    example = split.gather(np.arange(1))
    chunk = size * max(1, CHUNK_BYTES // (size * max(1, example.nbytes)))

    def chunks() -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        rows = order()
        first = size * max(1, chunk // size // FIRST_CHUNK_DIVISOR)
        for start, stop in itertools.pairwise([0, *range(first, len(rows), chunk), len(rows)]):
            mine = rows[start:stop]
            yield split.gather(mine), split.targets[mine]

    signature = (
        tf.TensorSpec((None, *example.shape[1:]), example.dtype),
        tf.TensorSpec((None,), split.targets.dtype),
    )
    dataset = tf.data.Dataset.from_generator(chunks, output_signature=signature).prefetch(1).rebatch(size)
    steps = math.ceil(len(split) / size)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2)
    return dataset.with_options(single_thread_options())


def single_thread_options() -> Any:
    """Return options that leave the processors to the training steps: there is nothing here to tune."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = 1
    return options
