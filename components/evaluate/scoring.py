"""How a model does on rows with known labels: the ONNX model is run, and its predictions become metrics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components.artifacts import ClassMetrics, Interval, Metrics
from modelyard.components.errors import EvaluateError, describe
from modelyard.components.shards import Split

BATCH = 256
TOLERANCE = 1e-3
RESAMPLES = 10_000
LEAST = 1e-7


@dataclass(frozen=True)
class Scores:
    """A model's answers to the test rows.

    `predicted` (n,) int64 is the likeliest class, `likelihood` (n,) float64 the true class's probability.
    """

    predicted: NDArray[np.int64]
    likelihood: NDArray[np.float64]


class Scorer:
    """A model in ONNX Runtime.

    Args:
        path: of model.onnx.
        classes: how many the model must know.
        who: what an error calls it.

    Raises:
        EvaluateError: the file is not a model that ONNX Runtime can run.
    """

    def __init__(self, path: Path, classes: int, who: str) -> None:
        import onnxruntime

        self._classes, self._who = classes, who
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:
            raise EvaluateError(
                f"{path} of {who} cannot be loaded by ONNX Runtime: {describe(error)} Export it again."
            ) from error

    def probabilities(self, examples: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 (n, classes) for raw examples (n, *shape).

        Raises:
            EvaluateError: the model does not take the examples, or does not give probabilities.
        """
        name = self._session.get_inputs()[0].name
        try:
            output = np.asarray(self._session.run(None, {name: examples})[0])
        except Exception as error:
            raise EvaluateError(
                f"{self._who} does not take {examples.dtype} examples of shape {examples.shape[1:]}: "
                f"{describe(error)} Export it with the signature of the features."
            ) from error
        self._check(output, len(examples))
        return output.astype(np.float32, copy=False)

    def _check(self, output: NDArray[Any], rows: int) -> None:
        if output.shape != (rows, self._classes):
            raise EvaluateError(
                f"{self._who} gives {output.shape} for {rows} rows and {self._classes} classes, not "
                f"{(rows, self._classes)}. Let its last layer have one unit per class."
            )
        if not np.isfinite(output).all():
            bad = np.argwhere(~np.isfinite(output))[0]
            raise EvaluateError(
                f"{self._who} gives {output[tuple(bad)]} for class {bad[1]}. Lower the learning rate or "
                "check the normalisation, and train again."
            )
        sums = output.sum(axis=1)
        if output.min() < -TOLERANCE or (np.abs(sums - 1) > TOLERANCE).any():
            worst = sums[np.abs(sums - 1).argmax()]
            raise EvaluateError(
                f"{self._who} gives no probabilities: a row sums to {worst:.4f} and the least value is "
                f"{output.min():.4f}. End the model with a softmax, or set model.logits."
            )

    def scores(self, split: Split) -> Scores:
        """Return the answers to every row of a split, in batches."""
        predicted: list[NDArray[np.int64]] = []
        likelihood: list[NDArray[np.float64]] = []
        for examples, labels in split.batches(BATCH):
            output = self.probabilities(examples)
            predicted.append(output.argmax(axis=1))
            likelihood.append(output[np.arange(len(labels)), labels].astype(np.float64))
        return Scores(np.concatenate(predicted), np.concatenate(likelihood))


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
