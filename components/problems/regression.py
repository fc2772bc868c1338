"""Regression: one number for each example. Targets are float32, answers are in their unit.

The layers compute in standard deviations of the training targets around their mean, and the model scales what
they give (`Normalization.target_mean`, `target_deviation`). Scores are the answers.
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
    Record,
    SameRows,
    Schema,
    format_number,
)
from modelyard.components.errors import DataError, TrainError
from modelyard.components.problems.base import Mistake, Problem, Shown, adapted

RESAMPLES = 2_000
GROUPS = 10_000
DRAWN = 2**17
"""How many numbers of groups are drawn at once."""
ONE_SIDED = 0.96
MINIMUM_SPREAD = 1e-3
MINIMUM_VARIANCE = 1e-9  # of a resample, relative to that of all rows; less is rounding
CURVE_ROWS = 20
RELATIVE = ("MeanAbsolutePercentageError", "MeanSquaredLogarithmicError")
SHOWN_ROWS = 1_000

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], NDArray[Any]]


class Details(Record):
    """`Metrics.details`: targets and answers of test rows, all or so many of them evenly spaced."""

    actual: tuple[float, ...]
    predicted: tuple[float, ...]


class Regression(Problem):
    """See Problem."""

    target_dtype = "float32"
    error = "RMSE"

    def check_schema(self, schema: Schema) -> None:
        """Accept one target."""
        if len(schema.names) != 1:
            raise DataError(
                f"The dataset has the {len(schema.names)} targets {list(schema.names)}, and a regression has "
                "one: targets in several units have no single error that decides. Train a model for each."
            )

    def check_targets(self, schema: Schema, split: str, start: int, targets: NDArray[Any]) -> None:
        """Accept finite numbers."""
        bad = np.flatnonzero(~np.isfinite(targets))
        if len(bad):
            raise DataError(
                f"Row {start + bad[0]} of {split} has the target {targets[bad[0]]}. Remove the row, or give "
                "it a finite number within float32, in the source."
            )

    def check_splits(self, schema: Schema, targets: Mapping[str, NDArray[Any]]) -> None:
        """Refuse targets that are constant, or that float32 does not tell apart."""
        for split in ("train", "test"):
            part = targets[split].astype(np.float64)
            if part.min() == part.max():
                raise DataError(
                    f"All {len(part):,} targets of {split} are {format_number(float(part[0]))}, so there is "
                    "nothing to predict. Check y, or add examples."
                )
            largest, deviation = float(np.abs(part).max()), float(part.std())
            if deviation < MINIMUM_SPREAD * largest:
                raise DataError(
                    f"The targets of {split} are up to {largest:.6g}, with a standard deviation of only "
                    f"{deviation:.3g}, which float32 answers cannot resolve. Subtract a constant from y."
                )

    def statistics(self, schema: Schema, targets: NDArray[Any]) -> dict[str, Any]:
        """Return mean, deviation, quartiles and extremes."""
        values = targets.astype(np.float64)
        low, first, median, third, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist()
        return {
            "mean": float(values.mean()),
            "deviation": float(values.std()),
            "minimum": low,
            "first_quartile": first,
            "median": median,
            "third_quartile": third,
            "maximum": high,
        }

    def describe_targets(self, schema: Schema, statistics: Mapping[str, Any]) -> str:
        """See Problem."""
        low, high, mean, deviation = (
            format_number(statistics[key]) for key in ("minimum", "maximum", "mean", "deviation")
        )
        return f"{schema.names[0]} from {low} to {high}, mean {mean}, standard deviation {deviation}"

    def scaling(self, targets: NDArray[Any]) -> tuple[float, float]:
        """See Problem."""
        values = targets.astype(np.float64)
        return float(values.mean()), float(values.std())

    def output_layer(self, names: Sequence[str], logits: bool) -> Any:
        """See Problem."""
        import keras

        return keras.layers.Dense(len(names), name="target")

    def export_layer(self, logits: bool) -> Any:
        """Return that the trained model gives answers already."""
        return

    def own_metrics(self) -> list[Any]:
        """Return metrics in the unit of the target."""
        import keras

        return [keras.metrics.MeanAbsoluteError(name="mae"), keras.metrics.RootMeanSquaredError(name="rmse")]

    def loss_on(self, loss: Any, logits: bool, normalization: Normalization) -> Any:
        """Give a loss of differences these in standard deviations of the training targets."""
        deviation = normalization.target_deviation[0]
        if type(loss).__name__ not in RELATIVE:
            loss.call = adapted(
                loss.call, lambda targets, answers: (targets / deviation, answers / deviation)
            )
        return loss

    def metric_on(self, metric: Any, logits: bool) -> Any:
        """Give targets the shape of the answers."""
        from keras import ops

        metric.update_state = adapted(
            metric.update_state, lambda targets, answers: (ops.reshape(targets, ops.shape(answers)), answers)
        )
        return metric

    def check_untrained(self, answers: NDArray[Any], logits: bool) -> None:
        """Accept finite answers, which a last layer without activation gives."""
        if not np.isfinite(answers).all():
            raise TrainError(
                f"The untrained model gives {answers[~np.isfinite(answers)][0]} for training rows. Give its "
                "layers an initializer whose values are smaller."
            )

    def random_targets(self, schema: Schema, rows: int, random: np.random.Generator) -> NDArray[Any]:
        """See Problem."""
        return random.normal(size=rows).astype(np.float32)

    def minimum_rows(self, schema: Schema) -> int:
        """See Problem."""
        return CURVE_ROWS

    def error_draws(self, targets: NDArray[Any], scores: Floats, draws: int) -> tuple[float, Floats]:
        """Draw by the bootstrap over the rows."""
        squares = np.square(scores[:, 0] - targets)
        drawn = _resample([squares], _with_replacement, draws)[0, 1:]
        return math.sqrt(float(squares.mean())), np.sqrt(drawn)

    def check_answers(self, answers: NDArray[Any], model: str) -> None:
        """Accept every finite number."""

    def scores(self, answers: NDArray[Any], targets: NDArray[Any]) -> Floats:
        """Return the answers."""
        return answers.astype(np.float64)

    def measure(
        self,
        schema: Schema,
        targets: NDArray[Any],
        candidate: Floats,
        champions: Mapping[int, Floats],
        training: Mapping[str, Any],
        compared: NDArray[np.bool_],
    ) -> Metrics:
        """Return RMSE, MAE and R². The constant prediction is the mean of the training targets."""
        actual, predicted = targets.astype(np.float64), candidate[:, 0]
        constant = np.full_like(actual, float(training["mean"]))
        by_constant = compare(actual, predicted, {None: constant})
        actual_then, predicted_then = actual[compared], predicted[compared]
        others = {version: scores[compared, 0] for version, scores in champions.items()}
        found = compare(actual_then, predicted_then, others) if others else []
        same_rows = None
        if others:
            same_rows = SameRows(
                rows=len(actual_then),
                candidate=values(actual_then, predicted_then),
                champion=values(actual_then, next(iter(others.values()))),
            )
        shown = _evenly(len(actual), SHOWN_ROWS)
        details = Details(actual=tuple(actual[shown].tolist()), predicted=tuple(predicted[shown].tolist()))
        return Metrics(
            problem=schema.problem,
            rows=len(actual),
            primary="rmse",
            values=values(actual, predicted),
            champion=same_rows.champion["rmse"] if same_rows else None,
            gain=Interval(**found[0].model_dump(include={"value", "low", "high"})) if found else None,
            same_rows=same_rows,
            baseline={one.metric: one.other for one in by_constant},
            constant=by_constant[0],
            comparisons=tuple(
                min((one for one in found if one.metric == metric), key=lambda one: one.other)
                for metric in ("rmse", "mae")
                if found
            ),
            details=details.model_dump(mode="json"),
        )

    def golden_rows(self, schema: Schema, targets: NDArray[Any], count: int) -> NDArray[np.int64]:
        """Return rows at evenly spaced ranks of their targets."""
        return np.sort(np.argsort(targets, kind="stable")[_evenly(len(targets), count)])

    def mistakes(self, schema: Schema, targets: NDArray[Any], scores: Floats, count: int) -> list[Mistake]:
        """Return the answers that are furthest from their targets, with the errors."""
        errors = scores[:, 0] - targets
        worst = np.argsort(-np.abs(errors), kind="stable")[:count]
        return [
            Mistake(
                row=row,
                actual=Shown(format_number(targets[row]), ""),
                predicted=Shown(format_number(scores[row, 0]), format_number(errors[row])),
            )
            for row in worst.tolist()
            if errors[row]
        ]

    def figures(self, metrics: Metrics) -> dict[str, Any]:
        """Return the points of two plots: answers and their errors, over the targets."""
        details = Details.model_validate(metrics.details)
        pairs = tuple(zip(details.actual, details.predicted, strict=True))
        return {
            "predicted": pairs,
            "residuals": tuple((actual, predicted - actual) for actual, predicted in pairs),
        }


PROBLEM = Regression()


def values(actual: Floats, predicted: Floats) -> dict[str, Metric]:
    """Return RMSE, MAE and R² with the percentile intervals of a bootstrap of the rows."""
    errors, centred = predicted - actual, actual - actual.mean()
    columns = errors**2, np.abs(errors), centred, centred**2
    squares, sizes, centre, spread = _resample(columns, _with_replacement)
    found = {"rmse": _metric(np.sqrt(squares), "lower"), "mae": _metric(sizes, "lower")}
    variance = spread - centre**2
    varied = variance > MINIMUM_VARIANCE * variance[0]
    if varied[0]:  # constant targets have no R²
        found["r2"] = _metric(1 - squares[varied] / variance[varied], "higher")
    return found


def compare(
    actual: Floats, predicted: Floats, others: Mapping[int, Floats] | Mapping[None, Floats]
) -> list[Comparison]:
    """Compare RMSE, then MAE, with those of other models on the same rows.

    The limits are quantiles of the ratio of the errors in random subsets of the rows, each of which has a row
    with probability 1/2. They are exact for any number of rows and any tails where the paired errors are
    exchangeable but for that ratio. Source: J. A. Hartigan, "Using subsample values as typical values", JASA
    64 (1969). Other errors are why the one-sided quantile is not 0.95 (benchmarks/gate.py).
    """
    sizes = [np.abs(one - actual) for one in (predicted, *others.values())]
    drawn = _resample([*(one**2 for one in sizes), *sizes], _subsets)
    found = []
    for metric, power, means in (("rmse", 2, drawn[: len(sizes)]), ("mae", 1, drawn[len(sizes) :])):
        ours = means[0, 0] ** (1 / power)
        for version, other in zip(others, means[1:], strict=True):
            theirs = float(other[0] ** (1 / power))
            smallest = 1e-12 * max(means[0, 0], other[0]) or 1.0
            ratios = (means[0, 1:] / np.maximum(other[1:], smallest)) ** (1 / power)
            gain = float(theirs - ours)
            low, at_least, high = (theirs * (1 - np.quantile(ratios, (0.975, ONE_SIDED, 0.025)))).tolist()
            comparison = Comparison(
                metric=metric,
                value=gain,
                low=min(low, gain),
                high=max(high, gain),
                other=theirs,
                version=version,
                at_least=min(at_least, gain),  # the limit is 0 when the other has no error at all
            )
            found.append(comparison)
    return found


def _metric(found: Floats, direction: Direction) -> Metric:
    return Metric(direction=direction, **dict(_interval(found)))


def _interval(found: Floats) -> Interval:
    """Return the estimate, which comes first, with the interval of the resamples behind it."""
    low, high = np.quantile(found[1:], (0.025, 0.975)).tolist()
    return Interval(value=float(found[0]), low=low, high=high)


def _resample(columns: Sequence[Floats], draw: Draw, resamples: int = RESAMPLES) -> Floats:
    """Return the mean of each column (columns, 1 + resamples): of all rows, then of those that are drawn.

    Beyond GROUPS rows, groups of rows are drawn, which takes a time that does not depend on the rows: every
    GROUPSth row is of the same group, so the groups are as independent as the rows, and as many in the end.
    """
    total = len(columns[0])
    groups = min(total, GROUPS)
    number = np.arange(total) % groups
    sums = np.stack([np.bincount(number, column, groups) for column in columns], axis=1)
    rows, random = np.bincount(number, minlength=groups), np.random.default_rng(0)
    means = [sums.sum(axis=0, keepdims=True) / total]
    for drawn in np.array_split(np.arange(resamples), math.ceil(resamples * groups / DRAWN)):
        weights = draw(random, len(drawn), groups)
        means.append(weights @ sums / (weights @ rows)[:, None])
    return np.concatenate(means).T


def _with_replacement(random: np.random.Generator, count: int, groups: int) -> NDArray[Any]:
    """Return how often each group is drawn (count, groups): the bootstrap."""
    drawn = random.integers(0, groups, (count, groups)) + groups * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)


def _subsets(random: np.random.Generator, count: int, groups: int) -> NDArray[Any]:
    """Return which groups are drawn (count, groups), each with probability 1/2; at least one."""
    drawn = random.integers(0, 2, (count, groups), np.int8)
    drawn[~drawn.any(axis=1)] = 1
    return drawn.astype(np.float64)


def _evenly(rows: int, count: int) -> NDArray[np.int64]:
    """Return `count` row numbers, or all, evenly spaced with the first and the last."""
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).round().astype(np.int64))
