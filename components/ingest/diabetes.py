"""The diabetes dataset of scikit-learn with 442 patients, read without importing scikit-learn.

Efron, Hastie, Johnstone and Tibshirani, "Least Angle Regression", Annals of Statistics (2004): age, sex, body
mass index, blood pressure and six blood serum values, and the progression of the disease a year later.
"""

from pathlib import Path

import numpy as np

from modelyard.components.errors import DataError
from modelyard.components.ingest.examples import Batch, Examples
from modelyard.components.source.settings import KINDS, Source


def read(path: Path, source: Source) -> Examples:
    """Read the patients: float32 (10,), not scaled, with the progression, 25 to 346; one split `all`.

    Args:
        path: scikit-learn's data folder.
        source: of this kind.

    Raises:
        DataError: a file is damaged.
    """
    files = [path / name for name in KINDS[source.kind].bundled_files]
    try:
        x, y = np.loadtxt(files[0], np.float32), np.loadtxt(files[1], np.float32)
        rows, values = x.shape
        if y.shape != (rows,):
            raise ValueError(f"{rows} patients have {y.shape} targets")
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{files[0]} or {files[1]} is damaged: {error}. Install scikit-learn again."
        ) from error
    return Examples((values,), "float32", ("progression",), ("all",), iter([Batch("all", x, y)]))
