"""Classification. Targets are labels from 0 to classes - 1; predictions are probabilities.

Scores are the predicted class, the probability of the true class and the highest probability.
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
    PairedMetrics,
    Record,
    Schema,
    Slice,
)
from modelyard.components.errors import DataError, EvaluateError, TrainError
from modelyard.components.problems import intervals
from modelyard.components.problems.base import DisplayValue, Mistake, Problem, with_adapted_arguments
from modelyard.components.problems.intervals import ONE_SIDED, TWO_SIDED

PROBABILITY_TOLERANCE = 1e-3
CALIBRATION_BINS = 15
SMALLEST_PROBABILITY = 1e-7
CURVE_EXAMPLES_PER_CLASS = 5
MATRIX_CLASSES = 30

Labels = NDArray[np.int64]


class Details(Record):
    """`Metrics.details`: the confusion matrix (true, predicted)."""

    confusion: tuple[tuple[int, ...], ...]


class Classification(Problem):
    """See Problem."""

    target_dtype = "int64"
    stratified = True
    error_name = "share of wrong predictions"

    def check_schema(self, schema: Schema) -> None:
        if len(schema.names) < 2:
            raise DataError(
                f"The dataset has only the class {schema.names[0]!r}. Add examples of a second class."
            )

    def check_targets(self, schema: Schema, split: str, start: int, targets: NDArray[Any]) -> None:
        classes = len(schema.names)
        outside = np.flatnonzero((targets < 0) | (targets >= classes))
        if len(outside):
            index = outside[0]
            raise DataError(
                f"Example {start + index} of {split} has the label {targets[index]}, but labels of {classes} "
                f"classes are 0 to {classes - 1}. Correct the label, or name all classes."
            )

    def check_splits(self, schema: Schema, targets: Mapping[str, NDArray[Any]]) -> None:
        counts = {split: _count_labels(labels, len(schema.names)) for split, labels in targets.items()}
        present = np.flatnonzero(np.sum(list(counts.values()), axis=0))
        if len(present) < 2:
            raise DataError(
                f"All examples have the class {schema.names[present[0]]!r}. Add examples of a second "
                "class, or check the labels."
            )
        for label in np.flatnonzero(counts["train"] == 0):
            by_split = ", ".join(f"{split} {count[label]}" for split, count in counts.items())
            raise DataError(
                f"The class {schema.names[label]!r} (label {label}) has no training examples ({by_split}). "
                "Add examples of it, remove the class, or lower data.test and data.validation."
            )

    def compute_statistics(self, schema: Schema, targets: NDArray[Any]) -> dict[str, Any]:
        """Return the number of examples of each class, in label order."""
        return {"examples": _count_labels(targets, len(schema.names)).tolist()}

    def describe_targets(self, schema: Schema, statistics: Mapping[str, Any]) -> str:
        counts = statistics["examples"]
        smallest, largest = counts.index(min(counts)), counts.index(max(counts))
        return (
            f"{len(counts)} classes, with {counts[smallest]:,} (class {schema.names[smallest]}) to "
            f"{counts[largest]:,} (class {schema.names[largest]}) training examples"
        )

    def compute_scaling(self, targets: NDArray[Any]) -> tuple[float, float]:
        """Return no scaling, as predictions are probabilities."""
        return 0.0, 1.0

    def build_output_layer(self, names: Sequence[str], logits: bool) -> Any:
        import keras

        return keras.layers.Dense(len(names), activation=None if logits else "softmax", name="classes")

    def build_export_layer(self, logits: bool) -> Any:
        """Return a softmax for a model whose output is logits."""
        import keras

        return keras.layers.Softmax(name="probabilities", dtype="float32") if logits else None

    def build_default_metrics(self) -> list[Any]:
        return ["accuracy"]

    def adapt_loss(self, loss: Any, logits: bool, normalization: Normalization) -> Any:
        """Convert targets to one-hot and logits to probabilities, as the loss requires."""
        softmax = logits and not hasattr(loss, "from_logits")
        loss.call = with_adapted_arguments(loss.call, _make_adapter(type(loss).__name__, softmax))
        return loss

    def adapt_metric(self, metric: Any, logits: bool) -> Any:
        """Convert targets to one-hot, as the metric requires, and logits to probabilities."""
        metric.update_state = with_adapted_arguments(
            metric.update_state, _make_adapter(type(metric).__name__, logits)
        )
        return metric

    def check_untrained_predictions(self, predictions: NDArray[Any], logits: bool) -> None:
        """Check that the output is logits if `model.logits` is set, and probabilities otherwise."""
        sums = predictions.sum(axis=1)
        probabilities = bool((predictions >= 0).all() and np.allclose(sums, 1, atol=1e-3))
        if logits and probabilities:
            raise TrainError(
                "model.logits is true, but the output of the model is probabilities. Remove model.logits, or "
                "the softmax in the last layer."
            )
        if not (logits or probabilities):
            raise TrainError(
                f"The output of the model is not probabilities: values from {predictions.min():.3g} to "
                f"{predictions.max():.3g} sum to {sums[0]:.3g} for an example. End the model with a softmax, "
                "or set model.logits: true if these are logits."
            )

    def draw_random_targets(self, schema: Schema, count: int, random: np.random.Generator) -> Labels:
        return random.integers(0, len(schema.names), count)

    def minimum_examples(self, schema: Schema) -> int:
        return CURVE_EXAMPLES_PER_CLASS * len(schema.names)

    def resample_error(
        self, targets: NDArray[Any], scores: NDArray[np.float64], draws: int
    ) -> tuple[float, NDArray[np.float64]]:
        """Draw from Jeffreys' posterior, so that the interval of an error of zero is not empty."""
        count = len(targets)
        wrong = int((scores[:, 0] != targets).sum())
        return wrong / count, np.random.default_rng(0).beta(wrong + 0.5, count - wrong + 0.5, draws)

    def check_predictions(self, predictions: NDArray[Any], model: str) -> None:
        sums = predictions.sum(axis=1)
        if predictions.min() < -PROBABILITY_TOLERANCE or (np.abs(sums - 1) > PROBABILITY_TOLERANCE).any():
            worst = sums[np.abs(sums - 1).argmax()]
            raise EvaluateError(
                f"{model} does not predict probabilities: the sum for an example is {worst:.4f} and the "
                f"minimum {predictions.min():.4f}. End the model with a softmax, or set model.logits."
            )

    def compute_scores(self, predictions: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.float64]:
        """Return predicted class, probability of the true class and highest probability: (n, 3)."""
        likelihood = predictions[np.arange(len(targets)), targets]
        return np.stack([predictions.argmax(axis=1), likelihood, predictions.max(axis=1)], axis=1).astype(
            np.float64
        )

    def measure(
        self,
        schema: Schema,
        targets: NDArray[Any],
        candidate: NDArray[np.float64],
        champions: Mapping[int, NDArray[np.float64]],
        training: Mapping[str, Any],
        mask: NDArray[np.bool_],
    ) -> Metrics:
        """The baseline is the most frequent class of the training examples."""
        size = len(schema.names)
        same_examples, gain = None, None
        comparisons: tuple[Comparison, ...] = ()
        if champions:
            labels, scores = targets[mask], candidate[mask]
            champion_scores = {version: other[mask] for version, other in champions.items()}
            same_examples = PairedMetrics(
                examples=len(labels),
                candidate=compute_metrics(labels, scores, size),
                champion=compute_metrics(labels, next(iter(champion_scores.values())), size),
            )
            correct = scores[:, 0] == labels
            champions_correct = {version: other[:, 0] == labels for version, other in champion_scores.items()}
            gain = compute_gain(correct, next(iter(champions_correct.values())))
            comparisons = compare_with_champions(labels, correct, champions_correct, schema.names)
        confusion = confusion_matrix(targets, candidate, size)
        baseline_comparison = compare_with_baseline(confusion)
        most_frequent = int(np.argmax(training["examples"]))
        return Metrics(
            problem=schema.problem,
            examples=len(targets),
            primary="accuracy",
            values=compute_metrics(targets, candidate, size),
            champion=same_examples.champion["accuracy"] if same_examples else None,
            gain=gain,
            same_examples=same_examples,
            baseline={
                "accuracy": float(confusion[most_frequent].sum() / len(targets)),
                "balanced_accuracy": baseline_comparison.other,
            },
            baseline_comparison=baseline_comparison,
            comparisons=comparisons,
            slices=compute_class_slices(confusion, schema.names),
            details={"confusion": confusion.tolist()},
        )

    def select_golden_examples(self, schema: Schema, targets: NDArray[Any], count: int) -> NDArray[np.int64]:
        """Return the first example of each class, then the second of each, and so on."""
        order = np.argsort(targets, kind="stable")
        starts = np.cumsum([0, *_count_labels(targets, len(schema.names))])
        number_in_class = np.empty_like(targets)
        number_in_class[order] = np.arange(len(targets)) - starts[targets[order]]
        return np.sort(np.lexsort((targets, number_in_class))[:count])

    def find_mistakes(
        self, schema: Schema, targets: NDArray[Any], scores: NDArray[np.float64], count: int
    ) -> list[Mistake]:
        """Return the most confident wrong predictions, with their probabilities."""
        wrong = np.flatnonzero(scores[:, 0] != targets)
        worst = wrong[np.argsort(-scores[wrong, 2], kind="stable")[:count]]
        return [
            Mistake(
                number=number,
                actual=DisplayValue(schema.names[target], f"{likelihood:.3f}"),
                predicted=DisplayValue(schema.names[int(predicted)], f"{highest:.3f}"),
            )
            for number, target, (predicted, likelihood, highest) in zip(
                worst.tolist(), targets[worst].tolist(), scores[worst].tolist(), strict=True
            )
        ]

    def build_figures(self, metrics: Metrics) -> dict[str, Any]:
        """Return the confusion matrix, the most frequent confusions, and the classes, lowest recall first."""
        details, names = Details.model_validate(metrics.details), [entry.name for entry in metrics.slices]
        return {
            "names": names,
            "cells": build_matrix_cells(details),
            "confusions": find_most_frequent_confusions(details, names),
            "ranked": sorted(
                metrics.slices, key=lambda entry: entry.values["recall"].value if entry.examples else math.inf
            ),
        }

    def log_plot(self, metrics: Metrics, artifact: Any) -> dict[str, Any]:
        """Log the confusion matrix."""
        details = Details.model_validate(metrics.details)
        categories = [entry.name for entry in metrics.slices]
        matrix = [list(row) for row in details.confusion]
        artifact.log_confusion_matrix(categories, matrix)
        return {"categories": categories, "matrix": matrix}


PROBLEM = Classification()


def _make_adapter(name: str, softmax: bool) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Return a function that converts labels and predictions for the Keras class `name`."""
    from keras import ops

    def adapt(targets: Any, predictions: Any) -> tuple[Any, Any]:
        if not name.startswith(("Sparse", "CategoricalGeneralized")):
            targets = ops.one_hot(ops.cast(ops.reshape(targets, (-1,)), "int32"), predictions.shape[-1])
        return targets, ops.softmax(predictions) if softmax else predictions

    return adapt


def confusion_matrix(targets: Labels, scores: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """Return the number of examples of each true class (first axis) and predicted class."""
    return _count_labels(targets * size + scores[:, 0].astype(np.int64), size * size).reshape(size, size)


def compute_metrics(targets: Labels, scores: NDArray[np.float64], size: int) -> dict[str, Metric]:
    """Return the metrics of a model from its scores of at least one example."""
    confusion, correct = confusion_matrix(targets, scores, size), scores[:, 0] == targets
    return {
        "accuracy": proportion_metric(int(correct.sum()), len(correct)),
        "balanced_accuracy": balanced_accuracy(confusion),
        "macro_f1": macro_f1(confusion),
        "log_loss": cross_entropy(scores[:, 1]),
        "calibration_error": calibration_error(scores[:, 2], correct),
    }


def proportion_metric(part: int, whole: int) -> Metric:
    """Return part / whole with Wilson's interval."""
    low, high = intervals.wilson_interval(part, whole)
    return Metric(value=part / whole, low=float(low), high=float(high), direction="higher")


def balanced_accuracy(confusion: NDArray[np.int64]) -> Metric:
    """Return the mean recall of the classes that have test examples."""
    totals = confusion.sum(axis=1)
    present = totals > 0
    low, high = _compute_balanced_accuracy_limits(confusion, TWO_SIDED)
    value = float((np.diag(confusion)[present] / totals[present]).mean())
    return Metric(value=value, low=low, high=high, direction="higher")


def _compute_balanced_accuracy_limits(confusion: NDArray[np.int64], z: float) -> tuple[float, float]:
    totals, correct = confusion.sum(axis=1), np.diag(confusion)
    correct, totals = correct[totals > 0], totals[totals > 0]
    weights = np.full(len(totals), 1 / len(totals))
    return intervals.weighted_mean_interval(
        correct / totals, *intervals.wilson_interval(correct, totals, z), weights
    )


def compare_with_baseline(confusion: NDArray[np.int64]) -> Comparison:
    """Compare balanced accuracy with that of the prediction of a single class, 1 / classes."""
    baseline = 1 / int((confusion.sum(axis=1) > 0).sum())
    accuracy = balanced_accuracy(confusion)
    at_least, _ = _compute_balanced_accuracy_limits(confusion, ONE_SIDED)
    return Comparison(
        metric="balanced_accuracy",
        value=accuracy.value - baseline,
        low=accuracy.low - baseline,
        high=accuracy.high - baseline,
        other=baseline,
        at_least=at_least - baseline,
    )


def macro_f1(confusion: NDArray[np.int64]) -> Metric:
    """Return the mean F1 of the classes that are the true or predicted class of an example."""
    correct = np.diag(confusion)
    union = confusion.sum(axis=1) + confusion.sum(axis=0) - correct
    correct, union = correct[union > 0], union[union > 0]
    low, high = (_f1(limit) for limit in intervals.wilson_interval(correct, union))
    value = _f1(correct / union)
    limits = intervals.weighted_mean_interval(value, low, high, np.full(len(union), 1 / len(union)))
    return Metric(value=float(value.mean()), low=limits[0], high=limits[1], direction="higher")


def _f1(share: Any) -> Any:
    """Return F1 from the share of correct predictions among examples of the true or predicted class.

    The limits of F1 are converted from those of the share. Source: K. F. Y. Lam, V. Gopal and J. Qian,
    "Confidence intervals for the F1 score: a comparison of four methods", arXiv:2309.14621 (2023).
    """
    return 2 * share / (1 + share)


def calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> Metric:
    """Return the expected calibration error, in bins of equal width of the highest probability.

    Source: C. Guo et al., "On calibration of modern neural networks", ICML (2017). The interval is that of
    the accuracies of the bins.
    """
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    totals = np.bincount(bins)
    hits, sums = np.bincount(bins, correct)[totals > 0], np.bincount(bins, confidence)[totals > 0]
    totals = totals[totals > 0]
    mean_confidence, accuracy = sums / totals, hits / totals
    low, high = intervals.wilson_interval(hits, totals)
    gap = np.abs(accuracy - mean_confidence)
    low_gap, high_gap = np.abs(low - mean_confidence), np.abs(high - mean_confidence)
    inside = (low <= mean_confidence) & (mean_confidence <= high)
    smallest, largest = np.where(inside, 0.0, np.minimum(low_gap, high_gap)), np.maximum(low_gap, high_gap)
    below, above = intervals.weighted_mean_interval(gap, smallest, largest, totals / totals.sum())
    value = float(gap @ totals / totals.sum())
    return Metric(value=value, low=max(0.0, below), high=min(1.0, above), direction="lower")


def compute_gain(correct: NDArray[np.bool_], other: NDArray[np.bool_]) -> Interval:
    """Return the difference in accuracy of two models from the masks (n,) of their correct predictions."""
    wins, losses = np.array([(correct & ~other).sum()]), np.array([(other & ~correct).sum()])
    low, high = intervals.paired_gain_interval(wins, losses, np.array([1 / len(correct)]))
    return Interval(value=float(wins[0] - losses[0]) / len(correct), low=low, high=high)


def compare_with_champions(
    targets: Labels, correct: NDArray[np.bool_], others: Mapping[int, NDArray[np.bool_]], names: Sequence[str]
) -> tuple[Comparison, ...]:
    """Compare accuracy, balanced accuracy and recalls, each with the champion that has the highest value.

    `correct` is the mask (n,) of the candidate's correct predictions; `others` are those of the champions.
    """
    size = len(names)
    totals = _count_labels(targets, size)
    wins = {version: _count_labels(targets[correct & ~other], size) for version, other in others.items()}
    losses = {version: _count_labels(targets[other & ~correct], size) for version, other in others.items()}
    hits = {version: _count_labels(targets[other], size) for version, other in others.items()}
    share = np.divide(1.0, totals, out=np.zeros(size), where=totals > 0)

    def compare(metric: str, classes: Any, weights: NDArray[np.float64], name: str = "") -> Comparison:
        best = max(others, key=lambda version: (float(weights @ hits[version][classes]), version))
        class_wins, class_losses = wins[best][classes], losses[best][classes]
        low, high = intervals.paired_gain_interval(class_wins, class_losses, weights)
        at_least, _ = intervals.paired_gain_interval(class_wins, class_losses, weights, ONE_SIDED)
        return Comparison(
            metric=metric,
            slice=name,
            value=float(weights @ (class_wins - class_losses)),
            low=low,
            high=high,
            other=float(weights @ hits[best][classes]),
            version=best,
            at_least=at_least,
        )

    return (
        compare("accuracy", slice(None), np.full(size, 1 / len(targets))),
        compare("balanced_accuracy", slice(None), share / (totals > 0).sum()),
        *(compare("recall", [label], share[[label]], names[label]) for label in range(size) if totals[label]),
    )


def cross_entropy(likelihood: NDArray[np.float64]) -> Metric:
    """Return the mean negative log probability of the true class, +- 1.96 standard errors."""
    losses = -np.log(np.maximum(likelihood, SMALLEST_PROBABILITY))
    value, margin = float(losses.mean()), 1.96 * float(losses.std()) / math.sqrt(len(losses))
    return Metric(value=value, low=max(0.0, value - margin), high=value + margin, direction="lower")


def compute_class_slices(confusion: NDArray[np.int64], names: Sequence[str]) -> tuple[Slice, ...]:
    """Return recall, precision and F1 of each class from the matrix (true, predicted)."""
    correct, true, predicted = (
        counts.tolist() for counts in (np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0))
    )
    slices = []
    for label, name in enumerate(names):
        hits, union = correct[label], true[label] + predicted[label] - correct[label]
        values = {
            metric: proportion_metric(hits, whole)
            for metric, whole in (("recall", true[label]), ("precision", predicted[label]))
            if whole
        }
        if union:
            share = proportion_metric(hits, union)
            numbers = {key: _f1(getattr(share, key)) for key in ("value", "low", "high")}
            values["f1"] = Metric(direction="higher", **numbers)
        slices.append(Slice(name=name, examples=true[label], values=values))
    return tuple(slices)


def build_matrix_cells(details: Details) -> list[list[dict[str, Any]]] | None:
    """Return the confusion matrix with the shares of each row, or None if there are too many classes."""
    if len(details.confusion) > MATRIX_CLASSES:
        return None
    return [
        [
            {"count": count, "share": round(count / max(1, sum(row)), 3), "correct": true == predicted}
            for predicted, count in enumerate(row)
        ]
        for true, row in enumerate(details.confusion)
    ]


def find_most_frequent_confusions(details: Details, names: Sequence[str]) -> list[tuple[str, str, int]]:
    """Return the ten most frequent confusions: true class, predicted class, number of examples."""
    confusions = [
        (names[true], names[predicted], count)
        for true, row in enumerate(details.confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    return sorted(confusions, key=lambda confusion: -confusion[2])[:10]


def _count_labels(labels: NDArray[Any], size: int) -> NDArray[np.int64]:
    return np.bincount(labels, minlength=size)
