"""Regression. Targets are float32 numbers; predictions are in the same unit.

The layers predict in standard deviations from the mean of the training targets, and the model scales their
output (`Normalization.target_mean`, `target_scale`). Scores are the predictions.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components.artifacts import (
    Comparison,
    Direction,
    Interval,
    Metric,
    Metrics,
    Normalization,
    PairedMetrics,
    Record,
    Schema,
    format_number,
)
from modelyard.components.errors import DataError, TrainError
from modelyard.components.problems.base import DisplayValue, Mistake, Problem, with_adapted_arguments

RESAMPLES = 2_000
MAX_GROUPS = 10_000
DRAWS_AT_ONCE = 2**17
"""Number of groups to draw at once."""
ONE_SIDED_QUANTILE = 0.96
MIN_SPREAD = 1e-3
MIN_VARIANCE = 1e-9  # of a resample, relative to that of all examples; smaller ones are rounding errors
CURVE_EXAMPLES = 20
RELATIVE_LOSSES = ("MeanAbsolutePercentageError", "MeanSquaredLogarithmicError")
PLOT_POINTS = 1_000

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], NDArray[Any]]


class Details(Record):
    """`Metrics.details`: targets and predictions of at most PLOT_POINTS test examples, evenly spaced."""

    actual: tuple[float, ...]
    predicted: tuple[float, ...]


class Regression(Problem):
    """See Problem."""

    target_dtype = "float32"
    error_name = "RMSE"

    def check_schema(self, schema: Schema) -> None:
        """Accept one target."""
        if len(schema.names) != 1:
            raise DataError(
                f"The dataset has the {len(schema.names)} targets {list(schema.names)}, but a regression has "
                "exactly one. Train a model for each target."
            )

    def check_targets(self, schema: Schema, split: str, start: int, targets: NDArray[Any]) -> None:
        """Accept finite numbers."""
        invalid = np.flatnonzero(~np.isfinite(targets))
        if len(invalid):
            raise DataError(
                f"Example {start + invalid[0]} of {split} has the target {targets[invalid[0]]}. Remove it "
                "from the source, or use a finite number in the range of float32."
            )

    def check_splits(self, schema: Schema, targets: Mapping[str, NDArray[Any]]) -> None:
        """Reject targets that are constant or too close together for float32."""
        for split in ("train", "test"):
            part = targets[split].astype(np.float64)
            if part.min() == part.max():
                raise DataError(
                    f"All {len(part):,} targets of {split} are {format_number(float(part[0]))}. Check y, or "
                    "add examples with other targets."
                )
            largest, deviation = float(np.abs(part).max()), float(part.std())
            if deviation < MIN_SPREAD * largest:
                raise DataError(
                    f"The targets of {split} are up to {largest:.6g}, with a standard deviation of only "
                    f"{deviation:.3g}, which is too small for float32. Subtract a constant from y."
                )

    def compute_statistics(self, schema: Schema, targets: NDArray[Any]) -> dict[str, Any]:
        """Return mean, standard deviation, quartiles, minimum and maximum."""
        values = targets.astype(np.float64)
        low, first, median, third, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist()
        return {
            "mean": float(values.mean()),
            "standard_deviation": float(values.std()),
            "minimum": low,
            "first_quartile": first,
            "median": median,
            "third_quartile": third,
            "maximum": high,
        }

    def describe_targets(self, schema: Schema, statistics: Mapping[str, Any]) -> str:
        low, high, mean, deviation = (
            format_number(statistics[key]) for key in ("minimum", "maximum", "mean", "standard_deviation")
        )
        return f"{schema.names[0]} from {low} to {high}, mean {mean}, standard deviation {deviation}"

    def compute_scaling(self, targets: NDArray[Any]) -> tuple[float, float]:
        values = targets.astype(np.float64)
        return float(values.mean()), float(values.std())

    def build_output_layer(self, names: Sequence[str], logits: bool) -> Any:
        import keras

        return keras.layers.Dense(len(names), name="target")

    def build_export_layer(self, logits: bool) -> Any:
        """Return None: the output of the trained model is the prediction."""
        return

    def build_default_metrics(self) -> list[Any]:
        import keras

        return [keras.metrics.MeanAbsoluteError(name="mae"), keras.metrics.RootMeanSquaredError(name="rmse")]

    def adapt_loss(self, loss: Any, logits: bool, normalization: Normalization) -> Any:
        """Scale targets and predictions to standard deviations, except for relative losses."""
        scale = normalization.target_scale[0]
        if type(loss).__name__ not in RELATIVE_LOSSES:
            loss.call = with_adapted_arguments(
                loss.call, lambda targets, predictions: (targets / scale, predictions / scale)
            )
        return loss

    def adapt_metric(self, metric: Any, logits: bool) -> Any:
        """Reshape targets to the shape of predictions."""
        from keras import ops

        metric.update_state = with_adapted_arguments(
            metric.update_state,
            lambda targets, predictions: (ops.reshape(targets, ops.shape(predictions)), predictions),
        )
        return metric

    def check_untrained_predictions(self, predictions: NDArray[Any], logits: bool) -> None:
        """Check that predictions are finite."""
        if not np.isfinite(predictions).all():
            raise TrainError(
                f"The untrained model predicts {predictions[~np.isfinite(predictions)][0]} for training "
                "examples. Use initializers with smaller values."
            )

    def draw_random_targets(self, schema: Schema, count: int, random: np.random.Generator) -> NDArray[Any]:
        return random.normal(size=count).astype(np.float32)

    def minimum_examples(self, schema: Schema) -> int:
        return CURVE_EXAMPLES

    def resample_error(self, targets: NDArray[Any], scores: Floats, draws: int) -> tuple[float, Floats]:
        """Bootstrap the examples."""
        squares = np.square(scores[:, 0] - targets)
        sample_means = _resample([squares], _draw_with_replacement, draws)[0, 1:]
        return math.sqrt(float(squares.mean())), np.sqrt(sample_means)

    def check_predictions(self, predictions: NDArray[Any], model: str) -> None:
        """Accept all finite numbers."""

    def compute_scores(self, predictions: NDArray[Any], targets: NDArray[Any]) -> Floats:
        """Return the predictions."""
        return predictions.astype(np.float64)

    def measure(
        self,
        schema: Schema,
        targets: NDArray[Any],
        candidate: Floats,
        champions: Mapping[int, Floats],
        training: Mapping[str, Any],
        mask: NDArray[np.bool_],
    ) -> Metrics:
        """Return RMSE, MAE and R². The baseline is the mean of the training targets."""
        actual, predicted = targets.astype(np.float64), candidate[:, 0]
        same_examples, gain = None, None
        comparisons: list[Comparison] = []
        if champions:
            others = {version: scores[mask, 0] for version, scores in champions.items()}
            same_examples = PairedMetrics(
                examples=int(mask.sum()),
                candidate=compute_metrics(actual[mask], predicted[mask]),
                champion=compute_metrics(actual[mask], next(iter(others.values()))),
            )
            all_comparisons = compare(actual[mask], predicted[mask], others)
            gain = Interval(**all_comparisons[0].model_dump(include={"value", "low", "high"}))
            for metric in ("rmse", "mae"):  # with the champion that has the lowest error
                of_metric = [entry for entry in all_comparisons if entry.metric == metric]
                comparisons.append(min(of_metric, key=lambda entry: entry.other))
        constant = np.full_like(actual, float(training["mean"]))
        baseline_comparisons = compare(actual, predicted, {None: constant})
        points = _select_evenly_spaced(len(actual), PLOT_POINTS)
        details = Details(actual=tuple(actual[points].tolist()), predicted=tuple(predicted[points].tolist()))
        return Metrics(
            problem=schema.problem,
            examples=len(actual),
            primary="rmse",
            values=compute_metrics(actual, predicted),
            champion=same_examples.champion["rmse"] if same_examples else None,
            gain=gain,
            same_examples=same_examples,
            baseline={entry.metric: entry.other for entry in baseline_comparisons},
            baseline_comparison=baseline_comparisons[0],
            comparisons=tuple(comparisons),
            details=details.model_dump(mode="json"),
        )

    def select_golden_examples(self, schema: Schema, targets: NDArray[Any], count: int) -> NDArray[np.int64]:
        """Return examples with evenly spaced ranks of their targets."""
        return np.sort(np.argsort(targets, kind="stable")[_select_evenly_spaced(len(targets), count)])

    def find_mistakes(
        self, schema: Schema, targets: NDArray[Any], scores: Floats, count: int
    ) -> list[Mistake]:
        """Return the predictions with the largest errors."""
        errors = scores[:, 0] - targets
        worst = np.argsort(-np.abs(errors), kind="stable")[:count]
        return [
            Mistake(
                number=index,
                actual=DisplayValue(format_number(targets[index]), ""),
                predicted=DisplayValue(format_number(scores[index, 0]), format_number(errors[index])),
            )
            for index in worst.tolist()
            if errors[index]
        ]

    def build_figures(self, metrics: Metrics) -> dict[str, Any]:
        """Return the points of two plots: predictions and errors over targets."""
        details = Details.model_validate(metrics.details)
        pairs = tuple(zip(details.actual, details.predicted, strict=True))
        return {
            "predicted": pairs,
            "residuals": tuple((actual, predicted - actual) for actual, predicted in pairs),
        }


PROBLEM = Regression()


def compute_metrics(actual: Floats, predicted: Floats) -> dict[str, Metric]:
    """Return RMSE, MAE and R² with percentile intervals of a bootstrap."""
    errors, deviations = predicted - actual, actual - actual.mean()
    columns = errors**2, np.abs(errors), deviations, deviations**2
    squared_errors, absolute_errors, center, spread = _resample(columns, _draw_with_replacement)
    metrics = {
        "rmse": _to_metric(np.sqrt(squared_errors), "lower"),
        "mae": _to_metric(absolute_errors, "lower"),
    }
    variance = spread - center**2
    has_variance = variance > MIN_VARIANCE * variance[0]
    if has_variance[0]:  # constant targets have no R²
        metrics["r2"] = _to_metric(1 - squared_errors[has_variance] / variance[has_variance], "higher")
    return metrics


def compare(
    actual: Floats, predicted: Floats, others: Mapping[int, Floats] | Mapping[None, Floats]
) -> list[Comparison]:
    """Compare RMSE and MAE with those of other models on the same examples.

    The limits of a gain are computed from quantiles of the ratio of the errors in random subsets of the
    examples. A subset contains each example with probability 1/2. The limits are exact for any number of
    examples and any distribution if the paired errors are exchangeable except for that ratio. Source:
    J. A. Hartigan, "Using subsample values as typical values", JASA 64 (1969). For other errors, the
    one-sided quantile is above 0.95 (benchmarks/gate.py).
    """
    absolute_errors = [np.abs(values - actual) for values in (predicted, *others.values())]
    sample_means = _resample([*(errors**2 for errors in absolute_errors), *absolute_errors], _draw_subsets)
    comparisons = []
    for metric, power, means in (
        ("rmse", 2, sample_means[: len(absolute_errors)]),
        ("mae", 1, sample_means[len(absolute_errors) :]),
    ):
        candidate_error = means[0, 0] ** (1 / power)
        for version, other in zip(others, means[1:], strict=True):
            other_error = float(other[0] ** (1 / power))
            smallest = 1e-12 * max(means[0, 0], other[0]) or 1.0
            ratios = (means[0, 1:] / np.maximum(other[1:], smallest)) ** (1 / power)
            gain = float(other_error - candidate_error)
            low, at_least, high = (
                other_error * (1 - np.quantile(ratios, (0.975, ONE_SIDED_QUANTILE, 0.025)))
            ).tolist()
            comparison = Comparison(
                metric=metric,
                value=gain,
                low=min(low, gain),
                high=max(high, gain),
                other=other_error,
                version=version,
                at_least=min(at_least, gain),  # the limit is 0 if the other model has no errors
            )
            comparisons.append(comparison)
    return comparisons


def _to_metric(values: Floats, direction: Direction) -> Metric:
    """Return the estimate, which is the first value, with the interval of the resamples after it."""
    low, high = np.quantile(values[1:], (0.025, 0.975)).tolist()
    return Metric(value=float(values[0]), low=low, high=high, direction=direction)


def _resample(columns: Sequence[Floats], draw: Draw, resamples: int = RESAMPLES) -> Floats:
    """Return the mean of each column (columns, 1 + resamples): of all examples, then of each resample.

    Groups of examples are drawn if there are more than MAX_GROUPS, so that the time does not depend on
    their number. Example i is in group i % groups, so groups are as independent as examples.
    """
    total = len(columns[0])
    groups = min(total, MAX_GROUPS)
    group_of_example = np.arange(total) % groups
    sums = np.stack([np.bincount(group_of_example, column, groups) for column in columns], axis=1)
    group_sizes, random = np.bincount(group_of_example, minlength=groups), np.random.default_rng(0)
    means = [sums.sum(axis=0, keepdims=True) / total]
    for chunk in np.array_split(np.arange(resamples), math.ceil(resamples * groups / DRAWS_AT_ONCE)):
        weights = draw(random, len(chunk), groups)
        means.append(weights @ sums / (weights @ group_sizes)[:, None])
    return np.concatenate(means).T


def _draw_with_replacement(random: np.random.Generator, count: int, groups: int) -> NDArray[Any]:
    """Return the number of times that each group is drawn (count, groups): the bootstrap."""
    indices = random.integers(0, groups, (count, groups)) + groups * np.arange(count)[:, None]
    return np.bincount(indices.ravel(), minlength=indices.size).reshape(indices.shape)


def _draw_subsets(random: np.random.Generator, count: int, groups: int) -> NDArray[Any]:
    """Return the drawn groups (count, groups), each with probability 1/2; at least one."""
    selection = random.integers(0, 2, (count, groups), np.int8)
    selection[~selection.any(axis=1)] = 1
    return selection.astype(np.float64)


def _select_evenly_spaced(size: int, count: int) -> NDArray[np.int64]:
    """Return at most `count` evenly spaced indices, including the first and the last."""
    return np.unique(np.linspace(0, size - 1, min(size, count)).round().astype(np.int64))
