"""What every reader gives: examples of one shape in batches."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from modelyard.components.artifacts import Dtype, ImageFormat

BATCH_BYTES = 2**20

Batch = tuple[str, NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Examples:
    """What a source holds.

    `shape` is one example's, without the batch axis. `names` are the classes in label order, or the name of
    the target. `batches` gives the name of a split, examples (n, *shape) of `dtype`, and targets (n,), which
    are read while they are asked for: labels as integers, numbers as floating point. `image` says how
    pictures became examples; None when they did not come from pictures. `notes` and `skipped` are those of
    Schema, complete once the batches are read.
    """

    shape: tuple[int, ...]
    dtype: Dtype
    names: tuple[str, ...]
    splits: tuple[str, ...]
    batches: Iterator[Batch]
    image: ImageFormat | None = None
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
