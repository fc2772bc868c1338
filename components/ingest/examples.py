"""What every reader gives: examples of one shape, in batches, split by split."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from components.artifacts import ImageFormat

BATCH_BYTES = 2**20

Batch = tuple[NDArray[Any], NDArray[np.int64]]


@dataclass(frozen=True)
class Examples:
    """What a source holds.

    `shape` is one example's, without the batch axis. `splits` maps a split's name to its batches, examples
    (n, *shape) of `dtype` and labels (n,), which are read while they are asked for, one split after the
    other. `image` says how pictures became examples; None when they did not come from pictures.
    """

    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32"]
    classes: tuple[str, ...]
    splits: Mapping[str, Iterator[Batch]]
    image: ImageFormat | None = None
