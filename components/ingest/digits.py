"""The digits dataset of scikit-learn with 1,797 images, read without importing scikit-learn (0.7 s)."""

from pathlib import Path

import numpy as np

from modelyard.components.errors import DataError
from modelyard.components.ingest.examples import Batch, Examples
from modelyard.components.source.settings import Source

FILE = "digits.csv.gz"
SHAPE = (8, 8, 1)


def read(path: Path, source: Source) -> Examples:  # noqa: ARG001
    """Read the digits: uint8 (8, 8, 1), grey values from 0 to 16, classes "0" to "9", one split `all`.

    They have no ImageFormat, because the grey values of image files are 0 to 255.

    Args:
        path: scikit-learn's data folder; each row of the table has 64 pixels and a label.
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
