"""How a model did on rows with known labels: accuracy, loss, per class, with bootstrap intervals."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelyard.components.artifacts import ClassMetrics, Interval, Metrics

RESAMPLES = 10_000
LEAST = 1e-7


@dataclass(frozen=True)
class Scores:
    """A model's answers to the test rows.

    `predicted` (n,) int64 is the likeliest class, `likelihood` (n,) float64 the true class's probability.
    """

    predicted: NDArray[np.int64]
    likelihood: NDArray[np.float64]


def measure(
    labels: NDArray[np.int64], classes: tuple[str, ...], candidate: Scores, champion: Scores | None
) -> Metrics:
    """Return the metrics of the candidate, and its gain over the champion on the same rows.

    Args:
        labels: (n,) the true classes.
        classes: their names.
        candidate: answers to these rows.
        champion: answers to these rows, when there is one.
    """
    size = len(classes)
    right = candidate.predicted == labels
    pairs = np.bincount(labels * size + candidate.predicted, minlength=size * size)
    confusion = pairs.reshape(size, size)
    others = None if champion is None else champion.predicted == labels
    return Metrics(
        rows=len(labels),
        accuracy=accuracy(right),
        loss=float(-np.log(np.maximum(candidate.likelihood, LEAST)).mean()),
        per_class=per_class(confusion, classes),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        champion_accuracy=None if others is None else accuracy(others),
        gain=None if others is None else gain(right, others),
    )


def accuracy(right: NDArray[np.bool_]) -> Interval:
    """Return the share of right answers with its bootstrap interval.

    Resampling rows with replacement draws the number of right ones from a binomial distribution, so that
    distribution is drawn from.
    """
    rows, value = len(right), float(right.mean())
    return _interval(value, np.random.default_rng(0).binomial(rows, value, RESAMPLES) / rows)


def gain(right: NDArray[np.bool_], others: NDArray[np.bool_]) -> Interval:
    """Return how much more often `right` is right than `others`, on the same rows.

    The paired bootstrap: a resampled row is a win, a loss or a tie, so the three numbers are drawn from a
    multinomial distribution.
    """
    rows = len(right)
    wins, losses = int((right & ~others).sum()), int((others & ~right).sum())
    shares = [wins / rows, losses / rows, (rows - wins - losses) / rows]
    drawn = np.random.default_rng(0).multinomial(rows, shares, RESAMPLES)
    return _interval((wins - losses) / rows, (drawn[:, 0] - drawn[:, 1]) / rows)


def _interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    return Interval(value=value, low=low, high=high)


def per_class(confusion: NDArray[np.int64], classes: tuple[str, ...]) -> tuple[ClassMetrics, ...]:
    """Return each class's precision, recall and F1 from the matrix (true, predicted)."""
    right, true, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return tuple(
        ClassMetrics(
            name=name,
            rows=int(true[label]),
            precision=_ratio(right[label], predicted[label]),
            recall=_ratio(right[label], true[label]),
            f1=_ratio(2 * right[label], true[label] + predicted[label]),
        )
        for label, name in enumerate(classes)
    )


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
