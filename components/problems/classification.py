"""Classification: one of some classes for each example. Targets are labels, 0 to classes - 1.

Answers are probabilities. Scores are the likeliest class, the true class's probability and the highest one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components.artifacts import (
    Comparison,
    Interval,
    Metric,
    Metrics,
    Normalization,
    Record,
    SameRows,
    Schema,
    Slice,
)
from modelyard.components.errors import DataError, EvaluateError, TrainError
from modelyard.components.problems import intervals
from modelyard.components.problems.base import Mistake, PlotArtifact, Problem, Shown, adapted
from modelyard.components.problems.intervals import ONE_SIDED, TWO_SIDED

TOLERANCE = 1e-3
CALIBRATION_BINS = 15
SMALLEST_PROBABILITY = 1e-7
CURVE_ROWS_PER_CLASS = 5
MATRIX_CLASSES = 30

Labels = NDArray[np.int64]


class Details(Record):
    """`Metrics.details`: the confusion matrix (true, predicted)."""

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

    def own_metrics(self) -> list[Any]:
        """See Problem."""
        return ["accuracy"]

    def loss_on(self, loss: Any, logits: bool, normalization: Normalization) -> Any:
        """Give most losses one-hot targets, and those that take no logits probabilities."""
        softmax = logits and not hasattr(loss, "from_logits")
        loss.call = adapted(loss.call, _change(type(loss).__name__, softmax))
        return loss

    def metric_on(self, metric: Any, logits: bool) -> Any:
        """Give most metrics one-hot targets, and all of them probabilities."""
        metric.update_state = adapted(metric.update_state, _change(type(metric).__name__, logits))
        return metric

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
        """Return the likeliest class, the true class's probability and the highest of each row: (n, 3)."""
        likelihood = answers[np.arange(len(targets)), targets]
        return np.stack([answers.argmax(axis=1), likelihood, answers.max(axis=1)], axis=1).astype(np.float64)

    def measure(
        self,
        schema: Schema,
        targets: NDArray[Any],
        candidate: NDArray[np.float64],
        champions: Mapping[int, NDArray[np.float64]],
        training: Mapping[str, Any],
        compared: NDArray[np.bool_],
    ) -> Metrics:
        """See Problem. The constant prediction is the most frequent class of the training rows."""
        size = len(schema.names)
        then, candidate_then = targets[compared], candidate[compared]
        scores = {version: found[compared] for version, found in champions.items()}
        right = candidate_then[:, 0] == then
        others = {version: found[:, 0] == then for version, found in scores.items()}
        same_rows = first = None
        if others:
            first = next(iter(others.values()))
            same_rows = SameRows(
                rows=len(then),
                candidate=values(then, candidate_then, size),
                champion=values(then, next(iter(scores.values())), size),
            )
        confusion = confusion_matrix(targets, candidate, size)
        rows = confusion.sum(axis=1)
        present = int((rows > 0).sum())
        balanced = balanced_accuracy(confusion)
        low, _ = _balanced(confusion, ONE_SIDED)
        constant = Comparison(
            metric="balanced_accuracy",
            value=balanced.value - 1 / present,
            low=balanced.low - 1 / present,
            high=balanced.high - 1 / present,
            other=1 / present,
            at_least=low - 1 / present,
        )
        return Metrics(
            problem=schema.problem,
            rows=len(targets),
            primary="accuracy",
            values=values(targets, candidate, size),
            champion=same_rows.champion["accuracy"] if same_rows else None,
            gain=None if first is None else gain(right, first),
            same_rows=same_rows,
            baseline={
                "accuracy": float(rows[int(np.argmax(training["rows"]))] / len(targets)),
                "balanced_accuracy": 1 / present,
            },
            constant=constant,
            comparisons=comparisons(then, right, others, schema.names),
            slices=per_class(confusion, schema.names),
            details={"confusion": confusion.tolist()},
        )

    def golden_rows(self, schema: Schema, targets: NDArray[Any], count: int) -> NDArray[np.int64]:
        """Return the first row of each class, then the second of each, and so on."""
        order = np.argsort(targets, kind="stable")
        starts = np.cumsum([0, *_counts(targets, len(schema.names))])
        turn = np.empty_like(targets)
        turn[order] = np.arange(len(targets)) - starts[targets[order]]
        return np.sort(np.lexsort((targets, turn))[:count])

    def mistakes(
        self, schema: Schema, targets: NDArray[Any], scores: NDArray[np.float64], count: int
    ) -> list[Mistake]:
        """Return the wrong answers of which the model is most certain, with the probabilities."""
        wrong = np.flatnonzero(scores[:, 0] != targets)
        worst = wrong[np.argsort(-scores[wrong, 2], kind="stable")[:count]]
        return [
            Mistake(
                row=row,
                actual=Shown(schema.names[target], f"{likelihood:.3f}"),
                predicted=Shown(schema.names[int(predicted)], f"{highest:.3f}"),
            )
            for row, target, (predicted, likelihood, highest) in zip(
                worst.tolist(), targets[worst].tolist(), scores[worst].tolist(), strict=True
            )
        ]

    def figures(self, metrics: Metrics) -> dict[str, Any]:
        """Return the confusion matrix, what is confused most, and the classes, lowest recall first."""
        details, names = Details.model_validate(metrics.details), [one.name for one in metrics.slices]
        return {
            "names": names,
            "cells": cells(details),
            "confusions": confusions(details, names),
            "ranked": sorted(
                metrics.slices, key=lambda one: one.values["recall"].value if one.rows else math.inf
            ),
        }

    def log_plot(self, metrics: Metrics, artifact: PlotArtifact) -> dict[str, Any]:
        """Show the confusion matrix."""
        details = Details.model_validate(metrics.details)
        categories = [one.name for one in metrics.slices]
        matrix = [list(row) for row in details.confusion]
        artifact.log_confusion_matrix(categories, matrix)
        return {"categories": categories, "matrix": matrix}


PROBLEM = Classification()


def _change(name: str, softmax: bool) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return what makes labels and answers into what the Keras class `name` takes."""
    from keras import ops

    def change(targets: Any, answers: Any) -> tuple[Any, Any]:
        if not name.startswith(("Sparse", "CategoricalGeneralized")):
            targets = ops.one_hot(ops.cast(ops.reshape(targets, (-1,)), "int32"), answers.shape[-1])
        return targets, ops.softmax(answers) if softmax else answers

    return change


def confusion_matrix(targets: Labels, scores: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """Return the rows of each true class (first axis) and predicted class."""
    return _counts(targets * size + scores[:, 0].astype(np.int64), size * size).reshape(size, size)


def values(targets: Labels, scores: NDArray[np.float64], size: int) -> dict[str, Metric]:
    """Return the metrics of a model from its scores; at least one row."""
    confusion, right = confusion_matrix(targets, scores, size), scores[:, 0] == targets
    return {
        "accuracy": proportion(int(right.sum()), len(right)),
        "balanced_accuracy": balanced_accuracy(confusion),
        "macro_f1": macro_f1(confusion),
        "log_loss": cross_entropy(scores[:, 1]),
        "calibration_error": calibration_error(scores[:, 2], right),
    }


def proportion(part: int, whole: int) -> Metric:
    """Return part / whole with Wilson's interval."""
    low, high = intervals.wilson(part, whole)
    return Metric(value=part / whole, low=float(low), high=float(high), direction="higher")


def balanced_accuracy(confusion: NDArray[np.int64]) -> Metric:
    """Return the mean recall of the classes that have test rows."""
    rows = confusion.sum(axis=1)
    has_rows = rows > 0
    low, high = _balanced(confusion, TWO_SIDED)
    value = float((np.diag(confusion)[has_rows] / rows[has_rows]).mean())
    return Metric(value=value, low=low, high=high, direction="higher")


def _balanced(confusion: NDArray[np.int64], z: float) -> tuple[float, float]:
    rows, right = confusion.sum(axis=1), np.diag(confusion)
    right, rows = right[rows > 0], rows[rows > 0]
    weights = np.full(len(rows), 1 / len(rows))
    return intervals.mean(right / rows, *intervals.wilson(right, rows, z), weights)


def macro_f1(confusion: NDArray[np.int64]) -> Metric:
    """Return the mean F1 of the classes that are true or predicted somewhere."""
    right = np.diag(confusion)
    union = confusion.sum(axis=1) + confusion.sum(axis=0) - right
    right, union = right[union > 0], union[union > 0]
    low, high = (_f1(one) for one in intervals.wilson(right, union))
    value = _f1(right / union)
    limits = intervals.mean(value, low, high, np.full(len(union), 1 / len(union)))
    return Metric(value=float(value.mean()), low=limits[0], high=limits[1], direction="higher")


def _f1(share: Any) -> Any:
    """Return F1 from the share of right rows among those that are true or predicted of the class.

    The share is a proportion, so its limits give those of F1. Source: K. F. Y. Lam, V. Gopal and J. Qian,
    "Confidence intervals for the F1 score: a comparison of four methods", arXiv:2309.14621 (2023).
    """
    return 2 * share / (1 + share)


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> Metric:
    """Return the expected calibration error, in bins of equal width of the highest probability.

    Source: C. Guo et al., "On calibration of modern neural networks", ICML (2017). The interval is that of
    the accuracies of the bins.
    """
    number = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    rows = np.bincount(number)
    hits, sums = np.bincount(number, right)[rows > 0], np.bincount(number, confidence)[rows > 0]
    rows = rows[rows > 0]
    said, found = sums / rows, hits / rows
    low, high = intervals.wilson(hits, rows)
    gap, worst = np.abs(found - said), np.maximum(np.abs(low - said), np.abs(high - said))
    best = np.where((low <= said) & (said <= high), 0.0, np.minimum(np.abs(low - said), np.abs(high - said)))
    below, above = intervals.mean(gap, best, worst, rows / rows.sum())
    value = float(gap @ rows / rows.sum())
    return Metric(value=value, low=max(0.0, below), high=min(1.0, above), direction="lower")


def gain(right: NDArray[np.bool_], others: NDArray[np.bool_]) -> Interval:
    """Return how much more often `right` is right than `others`, on the same rows."""
    wins, losses = np.array([(right & ~others).sum()]), np.array([(others & ~right).sum()])
    low, high = intervals.paired_gain(wins, losses, np.array([1 / len(right)]))
    return Interval(value=float(wins[0] - losses[0]) / len(right), low=low, high=high)


def comparisons(
    targets: Labels,
    right: NDArray[np.bool_],
    others: Mapping[int, NDArray[np.bool_]],
    names: Sequence[str],
) -> tuple[Comparison, ...]:
    """Compare accuracy, balanced accuracy and recalls with those of the version that has the best of each."""
    if not others:
        return ()
    size = len(names)
    rows = _counts(targets, size)
    wins = {version: _counts(targets[right & ~other], size) for version, other in others.items()}
    losses = {version: _counts(targets[other & ~right], size) for version, other in others.items()}
    hits = {version: _counts(targets[other], size) for version, other in others.items()}
    share = np.divide(1.0, rows, out=np.zeros(size), where=rows > 0)

    def compare(metric: str, classes: Any, weights: NDArray[np.float64], name: str = "") -> Comparison:
        best = max(others, key=lambda version: (float(weights @ hits[version][classes]), version))
        won, lost = wins[best][classes], losses[best][classes]
        low, high = intervals.paired_gain(won, lost, weights)
        at_least, _ = intervals.paired_gain(won, lost, weights, ONE_SIDED)
        return Comparison(
            metric=metric,
            slice=name,
            value=float(weights @ (won - lost)),
            low=low,
            high=high,
            other=float(weights @ hits[best][classes]),
            version=best,
            at_least=at_least,
        )

    return (
        compare("accuracy", slice(None), np.full(size, 1 / len(targets))),
        compare("balanced_accuracy", slice(None), share / (rows > 0).sum()),
        *(compare("recall", [label], share[[label]], names[label]) for label in range(size) if rows[label]),
    )


def cross_entropy(likelihood: NDArray[np.float64]) -> Metric:
    """Return the mean negative logarithm of the true class's probability, +- 1.96 standard errors."""
    losses = -np.log(np.maximum(likelihood, SMALLEST_PROBABILITY))
    value, margin = float(losses.mean()), 1.96 * float(losses.std()) / math.sqrt(len(losses))
    return Metric(value=value, low=max(0.0, value - margin), high=value + margin, direction="lower")


def per_class(confusion: NDArray[np.int64], names: Sequence[str]) -> tuple[Slice, ...]:
    """Return each class's recall, precision and F1 from the matrix (true, predicted)."""
    right, true, predicted = (
        one.tolist() for one in (np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0))
    )
    found = []
    for label, name in enumerate(names):
        hits, union = right[label], true[label] + predicted[label] - right[label]
        values = {
            metric: proportion(hits, whole)
            for metric, whole in (("recall", true[label]), ("precision", predicted[label]))
            if whole
        }
        if union:
            share = proportion(hits, union)
            numbers = {key: _f1(getattr(share, key)) for key in ("value", "low", "high")}
            values["f1"] = Metric(direction="higher", **numbers)
        found.append(Slice(name=name, rows=true[label], values=values))
    return tuple(found)


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


def confusions(details: Details, names: Sequence[str], most: int = 10) -> list[tuple[str, str, int]]:
    """Return the most frequent confusions: true class, predicted class, rows."""
    found = [
        (names[true], names[predicted], count)
        for true, row in enumerate(details.confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    return sorted(found, key=lambda one: -one[2])[:most]


def _counts(labels: NDArray[Any], size: int) -> NDArray[np.int64]:
    return np.bincount(labels, minlength=size)
