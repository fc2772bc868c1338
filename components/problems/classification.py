"""Classification: one of some classes for each example. Targets are labels, 0 to classes - 1.

Answers are probabilities. Scores are the likeliest class, and the true class's probability.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components.artifacts import Interval, Metric, Metrics, Normalization, Record, Schema
from modelyard.components.errors import DataError, EvaluateError, TrainError
from modelyard.components.problems.base import PlotArtifact, Problem

TOLERANCE = 1e-3
RESAMPLES = 10_000
SMALLEST_PROBABILITY = 1e-7
CURVE_ROWS_PER_CLASS = 5
MATRIX_CLASSES = 30

Labels = NDArray[np.int64]


class ClassMetrics(Record):
    """How one class fared; a metric without a denominator is None."""

    name: str
    rows: int
    precision: float | None
    recall: float | None
    f1: float | None


class Details(Record):
    """`Metrics.details`: per class, and the confusion matrix (true, predicted)."""

    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]


class Classification(Problem):
    """See Problem."""

    target_dtype = "int64"
    stratified = True
    error = "share of wrong answers"

    def check_schema(self, schema: Schema) -> None:
        """See Problem."""
        if len(schema.names) < 2:
            raise DataError(
                f"The dataset has only the class {list(schema.names)}, so there is nothing to tell apart. "
                "Add examples of a second class."
            )

    def check_targets(self, schema: Schema, split: str, start: int, targets: NDArray[Any]) -> None:
        """See Problem."""
        classes = len(schema.names)
        outside = np.flatnonzero((targets < 0) | (targets >= classes))
        if len(outside):
            row = outside[0]
            raise DataError(
                f"Row {start + row} of {split} has the label {targets[row]}, but there are {classes} "
                f"classes, so labels are 0 to {classes - 1}. Correct the label, or name all classes."
            )

    def check_splits(self, schema: Schema, targets: Mapping[str, NDArray[Any]]) -> None:
        """See Problem."""
        rows = {split: _counts(labels, len(schema.names)) for split, labels in targets.items()}
        present = np.flatnonzero(np.sum(list(rows.values()), axis=0))
        if len(present) < 2:
            raise DataError(
                f"All rows have the class {schema.names[present[0]]!r}, so there is nothing to tell apart. "
                "Add examples of a second class, or check the labels."
            )
        for label in np.flatnonzero(rows["train"] == 0):
            held = ", ".join(f"{split} {counts[label]}" for split, counts in rows.items())
            raise DataError(
                f"The class {schema.names[label]!r} (label {label}) has no training rows ({held}). Add "
                "examples of it, remove the class, or lower data.test and data.validation."
            )

    def statistics(self, schema: Schema, targets: NDArray[Any]) -> dict[str, Any]:
        """Return the rows of each class, in label order."""
        return {"rows": _counts(targets, len(schema.names)).tolist()}

    def describe_targets(self, schema: Schema, statistics: Mapping[str, Any]) -> str:
        """See Problem."""
        rows = statistics["rows"]
        few, many = rows.index(min(rows)), rows.index(max(rows))
        return (
            f"{len(rows)} classes, with {rows[few]:,} ({schema.names[few]}) to {rows[many]:,} "
            f"({schema.names[many]}) training examples"
        )

    def scaling(self, targets: NDArray[Any]) -> tuple[float, float]:
        """Return that probabilities are not scaled."""
        return 0.0, 1.0

    def output_layer(self, names: Sequence[str], logits: bool) -> Any:
        """See Problem."""
        import keras

        return keras.layers.Dense(len(names), activation=None if logits else "softmax", name="classes")

    def export_layer(self, logits: bool) -> Any:
        """Return a softmax for a model that gives logits."""
        import keras

        return keras.layers.Softmax(name="probabilities", dtype="float32") if logits else None

    def compile_arguments(
        self,
        loss: str | None,
        logits: bool,
        normalization: Normalization,
    ) -> dict[str, Any]:
        """See Problem."""
        import keras

        return {
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=logits),
            "metrics": ["accuracy"],
        }

    def check_untrained(self, answers: NDArray[Any], logits: bool) -> None:
        """Tell logits from probabilities."""
        sums = answers.sum(axis=1)
        probabilities = bool((answers >= 0).all() and np.allclose(sums, 1, atol=1e-3))
        if logits and probabilities:
            raise TrainError(
                "model.logits is true, but the model gives probabilities already. Remove model.logits, or "
                "the softmax at the model's end."
            )
        if not (logits or probabilities):
            raise TrainError(
                f"The model gives values from {answers.min():.3g} to {answers.max():.3g} that sum to "
                f"{sums[0]:.3g} for an example, which are no probabilities. End it with a softmax, or set "
                "model.logits: true if these are logits."
            )

    def random_targets(self, schema: Schema, rows: int, random: np.random.Generator) -> Labels:
        """See Problem."""
        return random.integers(0, len(schema.names), rows)

    def minimum_rows(self, schema: Schema) -> int:
        """Return some rows of each class."""
        return CURVE_ROWS_PER_CLASS * len(schema.names)

    def error_draws(
        self, targets: NDArray[Any], scores: NDArray[np.float64], draws: int
    ) -> tuple[float, NDArray[np.float64]]:
        """Draw from Jeffreys' posterior: also with no wrong answer at all, the error is not exactly zero."""
        held = len(targets)
        wrong = int((scores[:, 0] != targets).sum())
        return wrong / held, np.random.default_rng(0).beta(wrong + 0.5, held - wrong + 0.5, draws)

    def check_answers(self, answers: NDArray[Any], model: str) -> None:
        """See Problem."""
        sums = answers.sum(axis=1)
        if answers.min() < -TOLERANCE or (np.abs(sums - 1) > TOLERANCE).any():
            worst = sums[np.abs(sums - 1).argmax()]
            raise EvaluateError(
                f"{model} gives no probabilities: a row sums to {worst:.4f} and the least value is "
                f"{answers.min():.4f}. End the model with a softmax, or set model.logits."
            )

    def scores(self, answers: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
        """Return the likeliest class and the true class's probability of each row: (n, 2)."""
        likelihood = answers[np.arange(len(targets)), targets]
        return np.stack([answers.argmax(axis=1), likelihood], axis=1).astype(np.float64)

    def measure(
        self,
        schema: Schema,
        targets: NDArray[Any],
        candidate: NDArray[np.float64],
        champion: NDArray[np.float64] | None,
    ) -> Metrics:
        """See Problem."""
        size = len(schema.names)
        predicted = candidate[:, 0].astype(np.int64)
        right = predicted == targets
        others = None if champion is None else champion[:, 0] == targets
        confusion = _counts(targets * size + predicted, size * size).reshape(size, size)
        details = Details(
            per_class=per_class(confusion, schema.names),
            confusion=tuple(tuple(row) for row in confusion.tolist()),
        )
        return Metrics(
            problem=schema.problem,
            rows=len(targets),
            primary="accuracy",
            values={"accuracy": accuracy(right), "loss": cross_entropy(candidate[:, 1])},
            champion=None if others is None else accuracy(others),
            gain=None if others is None else gain(right, others),
            details=details.model_dump(mode="json"),
        )

    def golden_rows(self, schema: Schema, targets: NDArray[Any], count: int) -> NDArray[np.int64]:
        """Return the first row of each class, then the second of each, and so on."""
        order = np.argsort(targets, kind="stable")
        starts = np.cumsum([0, *_counts(targets, len(schema.names))])
        turn = np.empty_like(targets)
        turn[order] = np.arange(len(targets)) - starts[targets[order]]
        return np.sort(np.lexsort((targets, turn))[:count])

    def figures(self, metrics: Metrics) -> dict[str, Any]:
        """Return the confusion matrix, what is confused most, and the classes, worst first."""
        details = Details.model_validate(metrics.details)
        return {
            "per_class": details.per_class,
            "cells": cells(details),
            "confusions": confusions(details),
            "ranked": sorted(details.per_class, key=lambda one: (one.f1 is None, one.f1 or 0.0)),
        }

    def log_plot(self, metrics: Metrics, artifact: PlotArtifact) -> dict[str, Any]:
        """Show the confusion matrix."""
        details = Details.model_validate(metrics.details)
        categories = [one.name for one in details.per_class]
        matrix = [list(row) for row in details.confusion]
        artifact.log_confusion_matrix(categories, matrix)
        return {"categories": categories, "matrix": matrix}


PROBLEM = Classification()


def accuracy(right: NDArray[np.bool_]) -> Metric:
    """Return the share of right answers with its bootstrap interval.

    Resampling rows with replacement draws the number of right ones from a binomial distribution, so that
    distribution is drawn from.
    """
    rows, value = len(right), float(right.mean())
    drawn = np.random.default_rng(0).binomial(rows, value, RESAMPLES) / rows
    return Metric(direction="higher", **dict(_interval(value, drawn)))


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


def cross_entropy(likelihood: NDArray[np.float64]) -> Metric:
    """Return the mean negative logarithm of the true class's probability, +- 1.96 standard errors."""
    losses = -np.log(np.maximum(likelihood, SMALLEST_PROBABILITY))
    value, margin = float(losses.mean()), 1.96 * float(losses.std()) / math.sqrt(len(losses))
    return Metric(value=value, low=max(0.0, value - margin), high=value + margin, direction="lower")


def per_class(confusion: NDArray[np.int64], names: Sequence[str]) -> tuple[ClassMetrics, ...]:
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
        for label, name in enumerate(names)
    )


def cells(details: Details) -> list[list[dict[str, Any]]] | None:
    """Return the confusion matrix with each row's shares, or None when there are too many classes."""
    if len(details.confusion) > MATRIX_CLASSES:
        return None
    return [
        [
            {"count": count, "share": round(count / max(1, sum(row)), 3), "right": true == predicted}
            for predicted, count in enumerate(row)
        ]
        for true, row in enumerate(details.confusion)
    ]


def confusions(details: Details, most: int = 10) -> list[tuple[str, str, int]]:
    """Return the most frequent confusions: true class, predicted class, rows."""
    names = [one.name for one in details.per_class]
    found = [
        (names[true], names[predicted], count)
        for true, row in enumerate(details.confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    return sorted(found, key=lambda one: -one[2])[:most]


def _interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    return Interval(value=value, low=low, high=high)


def _counts(labels: NDArray[Any], size: int) -> NDArray[np.int64]:
    return np.bincount(labels, minlength=size)


def _ratio(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
