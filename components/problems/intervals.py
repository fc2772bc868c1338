"""Confidence intervals of proportions, their means and paired differences, also valid at 0 and 1.

`z` is a quantile of the normal distribution: `TWO_SIDED` for a 95 % interval, `ONE_SIDED` for a one-sided
limit of 95 %. Arrays have one value per class.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TWO_SIDED = 1.959964
ONE_SIDED = 1.644854


def wilson_interval(successes: Any, trials: Any, z: float = TWO_SIDED) -> tuple[Floats, Floats]:
    """Return the limits of the proportions successes / trials; trials >= 1.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22
    (1927).
    """
    trials = np.asarray(trials, np.float64)
    share = np.asarray(successes, np.float64) / trials
    center = share + z**2 / (2 * trials)
    margin = z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    low, high = (center - margin) / (1 + z**2 / trials), (center + margin) / (1 + z**2 / trials)
    return np.where(share == 0, 0.0, np.maximum(low, 0)), np.where(share == 1, 1.0, np.minimum(high, 1))


def weighted_mean_interval(values: Floats, low: Floats, high: Floats, weights: Floats) -> tuple[float, float]:
    """Return the limits of the weighted sum of independent estimates with limits `low` and `high`.

    Source: G. Y. Zou and A. Donner, "Construction of confidence limits about effect measures: a general
    approach", Statistics in Medicine 27 (2008), the method of variance estimates recovery (MOVER).
    """
    total = float(weights @ values)
    below = float(np.sqrt((weights**2) @ (values - low) ** 2))
    above = float(np.sqrt((weights**2) @ (high - values) ** 2))
    return total - below, total + above


def weighted_counts_interval(counts: Floats, weights: Floats, z: float = TWO_SIDED) -> tuple[float, float]:
    """Return the limits of the weighted sum of counts of rare events.

    Source: M. P. Fay and E. J. Feuer, "Confidence intervals for directly standardized rates: a method based
    on the gamma distribution", Statistics in Medicine 16 (1997). With equal weights they are the exact limits
    of a Poisson variable.
    """
    total, variance, largest = float(weights @ counts), float(weights**2 @ counts), float(weights.max())
    low = 0.0 if not total else variance / (2 * total) * chi2_quantile(2 * total**2 / variance, -z)
    upper, upper_variance = total + largest, variance + largest**2
    return low, upper_variance / (2 * upper) * chi2_quantile(2 * upper**2 / upper_variance, z)


def chi2_quantile(degrees: float, z: float) -> float:
    """Return the quantile of the chi-squared distribution at the normal quantile `z`.

    Source: E. B. Wilson and M. M. Hilferty, "The distribution of chi-square", PNAS 17 (1931).
    """
    spread = 2 / (9 * degrees)
    return float(degrees * max(0.0, 1 - spread + z * np.sqrt(spread)) ** 3)


def paired_gain_interval(
    wins: Floats, losses: Floats, weights: Floats, z: float = TWO_SIDED
) -> tuple[float, float]:
    """Return the limits of the weighted sum of wins - losses, combined as in `weighted_mean_interval`.

    Args:
        wins: number of examples of each class that only the candidate predicts correctly.
        losses: number of examples of each class that only the other model predicts correctly.
        weights: of an example of each class.
        z: see the module.
    """
    win_sum, loss_sum = float(weights @ wins), float(weights @ losses)
    win_low, win_high = weighted_counts_interval(wins, weights, z)
    loss_low, loss_high = weighted_counts_interval(losses, weights, z)
    below = np.hypot(win_sum - win_low, loss_high - loss_sum)
    above = np.hypot(win_high - win_sum, loss_sum - loss_low)
    return win_sum - loss_sum - float(below), win_sum - loss_sum + float(above)
