"""The datasets digits and diabetes of scikit-learn, read from its files without importing it (0.7 s)."""

from pathlib import Path

import numpy as np

from modelyard.components.errors import DataError
from modelyard.components.ingest.examples import Batch, Examples
from modelyard.components.source.settings import KINDS, Source


def read(path: Path, source: Source) -> Examples:
    """Read the files of a kind from scikit-learn's data folder; one split `all`.

    digits: 1,797 images, uint8 (8, 8, 1), gray values from 0 to 16, classes "0" to "9". They have no
    ImageFormat, because the gray values of image files are 0 to 255.

    diabetes: 442 patients, float32 (10,), not scaled: age, sex, body mass index, blood pressure and six blood
    serum values. The target is the progression of the disease a year later, 25 to 346. Source: Efron, Hastie,
    Johnstone and Tibshirani, "Least Angle Regression", Annals of Statistics (2004).

    Raises:
        DataError: a file is damaged.
    """
    kind, files = KINDS[source.kind], [path / name for name in KINDS[source.kind].bundled_files]
    try:
        if source.kind == "digits":
            table = np.loadtxt(files[0], np.uint8, delimiter=",")
            x, y = table[:, :-1].reshape(-1, 8, 8, 1), table[:, -1]
            return Examples((8, 8, 1), "uint8", kind.classes, ("all",), iter([Batch("all", x, y)]))
        x, y = np.loadtxt(files[0], np.float32), np.loadtxt(files[1], np.float32)
        if x.ndim != 2 or y.shape != x.shape[:1]:
            raise ValueError(f"patients {x.shape} have targets {y.shape}")
    except (OSError, EOFError, ValueError, IndexError) as error:
        names = " or ".join(map(str, files))
        raise DataError(f"{names} is damaged: {error}. Install scikit-learn again.") from error
    return Examples(x.shape[1:], "float32", ("progression",), ("all",), iter([Batch("all", x, y)]))
