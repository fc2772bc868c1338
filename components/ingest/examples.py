"""What every reader gives: examples of one shape, in batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelyard.components.artifacts import ImageFormat

BATCH_BYTES = 2**20

Batch = tuple[str, NDArray[Any], NDArray[np.integer[Any]]]


@dataclass(frozen=True)
class Examples:
    """What a source holds.

    `shape` is one example's, without the batch axis. `batches` gives the name of a split, examples
    (n, *shape) of `dtype`, and labels (n,), which are read while they are asked for. `image` says how
    pictures became examples; None when they did not come from pictures.
    """

    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32"]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    batches: Iterator[Batch]
    image: ImageFormat | None = None
