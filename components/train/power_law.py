"""error = a · rows^-b + c, with a, b and c not negative, through measured points."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EXPONENTS = np.linspace(0.05, 1.5, 59)
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Law:
    """A fitted law."""

    a: float
    b: float
    c: float

    def at(self, rows: float) -> float:
        """Return the error with so many rows."""
        return float(min(1.0, self.a * rows**-self.b + self.c))


def fit(rows: Numbers, errors: Numbers) -> Law:
    """Return the law with the least squared differences: for each b on a grid, a and c are linear.

    Args:
        rows: of each point.
        errors: of each point.
    """
    falling = rows[None, :] ** -EXPONENTS[:, None]
    spread = falling - falling.mean(1, keepdims=True)
    a = (spread * (errors - errors.mean())).sum(1) / (spread**2).sum(1)
    c = errors.mean() - a * falling.mean(1)
    without_floor = (falling * errors).sum(1) / (falling**2).sum(1)
    a, c = np.where(c < 0, without_floor, a), np.maximum(c, 0.0)
    a, c = np.maximum(a, 0.0), np.where(a < 0, errors.mean(), c)  # what does not fall is flat
    differences = ((a[:, None] * falling + c[:, None] - errors) ** 2).sum(1)
    best = int(differences.argmin())
    return Law(float(a[best]), float(EXPONENTS[best]), float(c[best]))
