"""Intervals of proportions, of means of them, and of paired differences: closed forms, valid at 0 and 1.

A limit is given by `z`, the quantile of the normal distribution: `TWO_SIDED` for both limits of a 95 %
interval, `ONE_SIDED` for a limit that is right in 95 % of all cases. Arrays have one value for each
class.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TWO_SIDED = 1.959964
ONE_SIDED = 1.644854


def wilson(right: Any, rows: Any, z: float = TWO_SIDED) -> tuple[Floats, Floats]:
    """Return the limits of the proportions right / rows; `rows` are at least 1.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22
    (1927).
    """
    rows = np.asarray(rows, np.float64)
    share = np.asarray(right, np.float64) / rows
    centre = share + z**2 / (2 * rows)
    margin = z * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    low, high = (centre - margin) / (1 + z**2 / rows), (centre + margin) / (1 + z**2 / rows)
    return np.where(share == 0, 0.0, np.maximum(low, 0)), np.where(share == 1, 1.0, np.minimum(high, 1))


def mean(values: Floats, low: Floats, high: Floats, weights: Floats) -> tuple[float, float]:
    """Return the limits of the weighted sum of independent estimates, each of which has its own limits.

    Source: G. Y. Zou and A. Donner, "Construction of confidence limits about effect measures: a general
    approach", Statistics in Medicine 27 (2008), the method of variance estimates recovery (MOVER).
    """
    total = float(weights @ values)
    below = float(np.sqrt((weights**2) @ (values - low) ** 2))
    above = float(np.sqrt((weights**2) @ (high - values) ** 2))
    return total - below, total + above


def weighted_counts(counts: Floats, weights: Floats, z: float = TWO_SIDED) -> tuple[float, float]:
    """Return the limits of the weighted sum of counts of rare events.

    Source: M. P. Fay and E. J. Feuer, "Confidence intervals for directly standardized rates: a method based
    on the gamma distribution", Statistics in Medicine 16 (1997). With equal weights they are the exact limits
    of a Poisson variable.
    """
    total, variance, most = float(weights @ counts), float(weights**2 @ counts), float(weights.max())
    low = 0.0 if not total else variance / (2 * total) * chi2(2 * total**2 / variance, -z)
    above, its_variance = total + most, variance + most**2
    return low, its_variance / (2 * above) * chi2(2 * above**2 / its_variance, z)


def chi2(degrees: float, z: float) -> float:
    """Return the quantile of the chi-squared distribution at the normal quantile `z`.

    Source: E. B. Wilson and M. M. Hilferty, "The distribution of chi-square", PNAS 17 (1931).
    """
    spread = 2 / (9 * degrees)
    return float(degrees * max(0.0, 1 - spread + z * np.sqrt(spread)) ** 3)


def paired_gain(wins: Floats, losses: Floats, weights: Floats, z: float = TWO_SIDED) -> tuple[float, float]:
    """Return the limits of the weighted sum of wins - losses.

    Args:
        wins: rows of each class of which the candidate alone is right.
        losses: rows of each class of which the other model alone is right.
        weights: what a row of the class counts.
        z: see the module.

    The limits of wins and losses (`weighted_counts`) are combined as in `mean`.
    """
    won, lost = float(weights @ wins), float(weights @ losses)
    won_low, won_high = weighted_counts(wins, weights, z)
    lost_low, lost_high = weighted_counts(losses, weights, z)
    below = np.hypot(won - won_low, lost_high - lost)
    above = np.hypot(won_high - won, lost - lost_low)
    return won - lost - float(below), won - lost + float(above)
