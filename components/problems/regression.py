"""Regression: one number for each example. Targets are float32, answers are in their unit.

The layers compute in standard deviations of the training targets around their mean, and the model scales what
they give (`Normalization.target_mean`, `target_deviation`). Scores are the answers.
"""

import math
from collections.abc import Mapping, Sequence
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
    Schema,
    format_number,
)
from modelyard.components.errors import DataError, TrainError
from modelyard.components.problems.base import Mistake, Problem, Shown, adapted
from modelyard.components.problems.intervals import ONE_SIDED

RESAMPLES = 2_000
GROUPS = 10_000
MINIMUM_SPREAD = 1e-3
MINIMUM_VARIANCE = 1e-9  # of a resample, relative to that of all rows; less is rounding
CURVE_ROWS = 20
RELATIVE = ("MeanAbsolutePercentageError", "MeanSquaredLogarithmicError")
SHOWN_ROWS = 1_000

Floats = NDArray[np.float64]


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
        squares = np.square(scores[:, 0] - targets)[:, None]
        drawn = _resampled_means(squares, draws)[:, 0]
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
    ) -> Metrics:
        """Return RMSE, MAE and R², with intervals from one bootstrap of the rows of all models.

        A gain is the other's error minus the candidate's in each resample, so it is paired. The constant
        prediction is the mean of the training targets.
        """
        actual, predicted = targets.astype(np.float64), candidate[:, 0]
        centred, mean = actual - actual.mean(), float(training["mean"])
        answers = [predicted, np.full_like(actual, mean), *(scores[:, 0] for scores in champions.values())]
        errors = [one - actual for one in answers]
        table = np.stack([centred, centred**2, *(e**2 for e in errors), *map(np.abs, errors)], axis=1)
        # the first row is the estimate, the others are the resamples
        means = np.concatenate([table.mean(axis=0)[None], _resampled_means(table, RESAMPLES)])
        rmse, mae = np.sqrt(means[:, 2 : 2 + len(errors)]), means[:, 2 + len(errors) :]
        variance = means[:, 1] - means[:, 0] ** 2
        varied = variance > MINIMUM_VARIANCE * variance[0]  # constant targets have no R²
        r2 = 1 - means[varied, 2] / variance[varied]
        shown = _evenly(len(actual), SHOWN_ROWS)
        details = Details(actual=tuple(actual[shown].tolist()), predicted=tuple(predicted[shown].tolist()))

        def compare(metric: str, found: Floats, other: int, version: int | None) -> Comparison:
            return _comparison(metric, found[:, 0], found[:, other], version, len(actual))

        versions = list(champions)
        return Metrics(
            problem=schema.problem,
            rows=len(actual),
            primary="rmse",
            values={
                "rmse": _metric(rmse[:, 0], "lower"),
                "mae": _metric(mae[:, 0], "lower"),
                "r2": _metric(r2, "higher"),
            },
            champion=_metric(rmse[:, 2], "lower") if champions else None,
            gain=_interval(rmse[:, 2] - rmse[:, 0]) if champions else None,
            baseline={"rmse": float(rmse[0, 1]), "mae": float(mae[0, 1])},
            constant=compare("rmse", rmse, 1, None),
            comparisons=tuple(
                compare(metric, found, 2 + best, versions[best])
                for metric, found in (("rmse", rmse), ("mae", mae))
                for best in ([int(found[0, 2:].argmin())] if champions else [])
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


def _metric(found: Floats, direction: Direction) -> Metric:
    return Metric(direction=direction, **dict(_interval(found)))


def _interval(found: Floats) -> Interval:
    """Return the estimate, which comes first, with the interval of the resamples behind it."""
    low, high = np.quantile(found[1:], (0.025, 0.975)).tolist()
    return Interval(value=float(found[0]), low=low, high=high)


def _comparison(metric: str, found: Floats, others: Floats, version: int | None, rows: int) -> Comparison:
    """Compare errors; the estimate comes first, with the resamples behind it.

    The one-sided limit is the lower one of the percentile of the resamples and of the normal limit with their
    deviation. Resamples of few rows vary too little, so the deviation is corrected; in simulations with 30
    and 88 rows, 4 to 6 % of the limits are then above the true gain.
    """
    gains = others - found
    deviation = float(gains[1:].std()) * rows / max(1, rows - 6)
    at_least = min(float(np.quantile(gains[1:], 0.05)), float(gains[0]) - ONE_SIDED * deviation)
    interval = _interval(gains)
    return Comparison(
        metric=metric, other=float(others[0]), version=version, at_least=at_least, **dict(interval)
    )


def _resampled_means(table: Floats, resamples: int) -> Floats:
    """Return the means of the columns (resamples, columns) when the rows are drawn with replacement.

    Beyond GROUPS rows, groups of rows are drawn, which takes a time that does not depend on the rows: every
    GROUPSth row is of the same group, so the groups are as independent as the rows, and as many in the end.
    """
    groups = min(len(table), GROUPS)
    number = np.arange(len(table)) % groups
    sums = np.stack([np.bincount(number, column, groups) for column in table.T], axis=1)
    rows, random = np.bincount(number, minlength=groups), np.random.default_rng(0)
    means = np.empty((resamples, table.shape[1]))
    for place in range(resamples):
        weights = np.bincount(random.integers(0, groups, groups), minlength=groups)
        means[place] = weights @ sums / (weights @ rows)
    return means


def _evenly(rows: int, count: int) -> NDArray[np.int64]:
    """Return `count` row numbers, or all, evenly spaced with the first and the last."""
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).round().astype(np.int64))
