"""What every reader gives, examples of one shape in batches; and the digits, which need nothing more."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modelyard.components.artifacts import ImageFormat
from modelyard.components.errors import DataError

BATCH_BYTES = 2**20
DIGITS_SHAPE = (8, 8, 1)

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


def read_digits(path: Path) -> Examples:
    """Return the 1,797 digits that scikit-learn ships, without importing it (0.7 s).

    They are uint8 (8, 8, 1), grey from 0 to 16, of the classes "0" to "9", in one split `all`, and have no
    ImageFormat: their greys count pixels of the original bitmaps, so an image file, whose greys are 0 to
    255, is not one of them.

    Args:
        path: the packed table; a row has 64 pixels and the label.

    Raises:
        DataError: the file is damaged.
    """
    try:
        table = np.loadtxt(path, np.uint8, delimiter=",")
        pixels = table[:, :-1].reshape(-1, *DIGITS_SHAPE)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise DataError(f"{path} is damaged: {error}. Install scikit-learn again.") from error
    batches = iter([("all", pixels, table[:, -1])])
    return Examples(DIGITS_SHAPE, "uint8", tuple("0123456789"), ("all",), batches)
