"""The 1,797 handwritten digits that scikit-learn ships, read without importing it (0.7 s)."""

from pathlib import Path

import numpy as np

from modelyard.components.errors import DataError
from modelyard.components.ingest.examples import Examples

SHAPE = (8, 8, 1)


def read(path: Path) -> Examples:
    """Return the digits: uint8 (8, 8, 1), grey from 0 to 16, classes "0" to "9", the one split `all`.

    They have no ImageFormat: their greys count pixels of the original bitmaps, so a picture file, whose
    greys are 0 to 255, is not one of them.

    Args:
        path: the packed table; a row has 64 pixels and the label.

    Raises:
        DataError: the file is damaged.
    """
    try:
        table = np.loadtxt(path, np.uint8, delimiter=",")
        pixels = table[:, :-1].reshape(-1, *SHAPE)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise DataError(f"{path} is damaged: {error}. Install scikit-learn again.") from error
    return Examples(SHAPE, "uint8", tuple("0123456789"), ("all",), iter([("all", pixels, table[:, -1])]))
