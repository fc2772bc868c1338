"""The 1,797 handwritten digits that scikit-learn ships, read without importing it (0.7 s)."""

from importlib import metadata

import numpy as np

from components.errors import DataError
from components.ingest.examples import Examples

FILE = "sklearn/datasets/data/digits.csv.gz"
SHAPE = (8, 8, 1)


def read() -> Examples:
    """Return the digits: uint8 (8, 8, 1), grey from 0 to 16, classes "0" to "9".

    They have no ImageFormat: their greys come from counting pixels in the original bitmaps, so a picture of
    today, 0 to 255, is not one of them.

    Raises:
        DataError: scikit-learn is not installed, or its file is missing or damaged.
    """
    try:
        path = metadata.distribution("scikit-learn").locate_file(FILE)
        table = np.loadtxt(str(path), dtype=np.uint8, delimiter=",")  # 64 pixels and the label, row by row
        pixels = table[:, :-1].reshape(-1, *SHAPE)
    except (metadata.PackageNotFoundError, OSError, EOFError, ValueError, IndexError) as error:
        raise DataError(
            f"The digits that scikit-learn ships cannot be read: {error}. Install scikit-learn again."
        ) from error
    labels = table[:, -1].astype(np.int64)
    return Examples(SHAPE, "uint8", tuple("0123456789"), {"all": iter([(pixels, labels)])})
