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
    laws = [_linear(rows, errors, float(b)) for b in EXPONENTS]
    return min(laws, key=lambda law: sum((law.at(n) - e) ** 2 for n, e in zip(rows, errors, strict=True)))


def _linear(rows: Numbers, errors: Numbers, b: float) -> Law:
    """Return the best a and c for one b; what would be negative is 0."""
    falling = rows**-b
    spread = falling - falling.mean()
    a = float((spread * (errors - errors.mean())).sum() / (spread**2).sum())
    c = float(errors.mean() - a * falling.mean())
    if c < 0:
        a, c = float((falling * errors).sum() / (falling**2).sum()), 0.0
    if a < 0:
        a, c = 0.0, float(errors.mean())
    return Law(a, b, c)
