"""The 1,797 digits that scikit-learn ships, read without importing it (0.7 s)."""

from pathlib import Path

import numpy as np

from modelyard.components.errors import DataError
from modelyard.components.ingest.examples import Batch, Examples
from modelyard.components.source.settings import Source

FILE = "digits.csv.gz"
SHAPE = (8, 8, 1)


def read(path: Path, source: Source) -> Examples:  # noqa: ARG001
    """Return the digits.

    They are uint8 (8, 8, 1), grey from 0 to 16, of the classes "0" to "9", in one split `all`, and have no
    ImageFormat: their greys count pixels of the original bitmaps, so an image file, whose greys are 0 to
    255, is not one of them.

    Args:
        path: scikit-learn's data folder; a row of the packed table has 64 pixels and the label.
        source: of this kind.

    Raises:
        DataError: the file is damaged.
    """
    try:
        table = np.loadtxt(path / FILE, np.uint8, delimiter=",")
        pixels = table[:, :-1].reshape(-1, *SHAPE)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise DataError(f"{path / FILE} is damaged: {error}. Install scikit-learn again.") from error
    batches = iter([Batch("all", pixels, table[:, -1])])
    return Examples(SHAPE, "uint8", tuple("0123456789"), ("all",), batches)
