"""Trains on growing parts of the data, and extrapolates what more examples would bring.

    python -m modelyard.components.train.learning_curve QUESTION.json CURVE.json

The parts are an eighth, a quarter, a half and all of the training examples, each a subset of the next. Each
is trained as a run would train it, so this takes about twice as long as one training. `a * rows^-b + c` is
fitted to the errors on the validation examples, and extrapolated to four times the rows at most. A curve
never rises: what is extrapolated is at most the last measured error, and where a measured error is higher
than the one before, the answer is that it cannot tell. Each part is trained once, so the intervals do not
include the effect of another seed.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modelyard.components import artifacts, problems
from modelyard.components.artifacts import format_number
from modelyard.components.problems.base import Problem
from modelyard.components.step import step
from modelyard.components.train import model as networks
from modelyard.components.train import trainer
from modelyard.components.train.backend import keras
from modelyard.components.train.cost import build_compiled_network
from modelyard.components.train.data import Features, Subset, ordered_batches
from modelyard.components.train.measurement import CurvePoint, LearningCurve, TrainingWorkload

FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 1.0)
EXTRAPOLATION_FACTORS = (2, 4)
MINIMUM_VALIDATION = 50
RESAMPLES = 200
QUANTILES = (0.1, 0.9)
EXPONENTS = np.linspace(0.05, 1.5, 59)
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class PowerLaw:
    """error = a * rows^-b + c."""

    a: float
    b: float
    c: float

    def error_at(self, rows: float) -> float:
        """Return the error with so many rows."""
        return float(self.a * rows**-self.b + self.c)


def measure_learning_curve(workload: TrainingWorkload) -> LearningCurve:
    """Return the curve of a model on its features.

    Raises:
        DataError: the features are malformed.
        TrainError: the model cannot be trained.
    """
    rows = Features.read(Path(workload.features))
    problem, held = problems.of(rows.schema.problem), len(rows.validation)
    counts = [math.floor(part * len(rows.train)) for part in FRACTIONS]
    minimum = math.ceil(problem.minimum_rows(rows.schema) / FRACTIONS[0])
    if held < MINIMUM_VALIDATION:
        return _without_extrapolation(
            problem.error,
            f"{held} validation examples are too few, at least {MINIMUM_VALIDATION} are needed: raise "
            "data.validation",
        )
    if len(rows.train) < minimum:
        return _without_extrapolation(
            problem.error,
            f"{len(rows.train):,} training examples are too few, at least {minimum:,} are needed: "
            f"{problem.minimum_rows(rows.schema):,} in an eighth of them",
        )
    order = np.random.default_rng(0).permutation(len(rows.train))
    found = [_train_and_score(workload, rows, order[:count], problem) for count in counts]
    errors, drawn = [error for error, _ in found], np.stack([draws for _, draws in found], axis=1)
    return extrapolate(problem.error, counts, errors, drawn)


def extrapolate(measure: str, counts: list[int], errors: list[float], drawn: Numbers) -> LearningCurve:
    """Return the curve through points, with intervals for the choice of the validation examples.

    Args:
        measure: what the errors are.
        counts: training examples of each point.
        errors: on the validation examples.
        drawn: (RESAMPLES, points), what other validation examples would give.
    """
    size = np.asarray(counts, float)
    best = fit_power_law(size, np.asarray(errors))
    points = [_curve_point(count, errors[place], drawn[:, place]) for place, count in enumerate(counts)]
    said = ", ".join(f"{format_number(one.error)} with {one.rows:,} examples" for one in points)
    if errors != sorted(errors, reverse=True) or errors[0] == errors[-1]:
        return _without_extrapolation(
            measure,
            f"cannot tell, as the error does not fall with every step: {said}. Raise data.validation, "
            "so that chance counts less, or training.epochs",
            points,
        )
    if any(
        not few.min() <= best.error_at(rows) <= few.max() for rows, few in zip(counts, drawn.T, strict=True)
    ):
        return _without_extrapolation(
            measure,
            f"cannot tell, as the errors follow no power law: {said}. Few examples may train too few steps: "
            "raise training.epochs",
            points,
        )
    laws = [fit_power_law(size, one) for one in drawn]
    beyond = []
    for rows in (counts[-1] * times for times in EXTRAPOLATION_FACTORS):
        others = np.minimum([law.error_at(rows) for law in laws], drawn[:, -1])
        beyond.append(_curve_point(rows, min(best.error_at(rows), errors[-1]), others))
    return LearningCurve(measure=measure, points=tuple(points), beyond=tuple(beyond), refused=None)


def fit_power_law(rows: Numbers, errors: Numbers) -> PowerLaw:
    """Return the power law with the smallest squared error: for each b on a grid, a and c are linear."""
    falling = rows[None, :] ** -EXPONENTS[:, None]
    spread = falling - falling.mean(1, keepdims=True)
    a = (spread * (errors - errors.mean())).sum(1) / (spread**2).sum(1)
    c = errors.mean() - a * falling.mean(1)
    without_floor = (falling * errors).sum(1) / (falling**2).sum(1)
    a, c = np.where(c < 0, without_floor, a), np.maximum(c, 0.0)
    a, c = np.maximum(a, 0.0), np.where(a < 0, errors.mean(), c)  # an error that does not fall is constant
    differences = ((a[:, None] * falling + c[:, None] - errors) ** 2).sum(1)
    best = int(differences.argmin())
    return PowerLaw(float(a[best]), float(EXPONENTS[best]), float(c[best]))


def _train_and_score(
    workload: TrainingWorkload, rows: Features, chosen: NDArray[np.int64], problem: Problem
) -> tuple[float, Numbers]:
    """Train on some rows as a run would, and return the error on the validation examples and draws of it."""
    part = Features(rows.schema, rows.normalization, Subset(rows.train, chosen), rows.validation)
    network = build_compiled_network(workload.model_copy(update={"training_examples": len(chosen)}))
    trainer.fit(network, part, workload.training)
    # with early stopping, the weights are those of the best epoch, not of the last
    validation = ordered_batches(rows.validation, workload.training.batch_size)
    exported = networks.add_export_layer(network, workload.model, rows.schema)
    targets = rows.validation.targets
    scores = problem.scores(exported.predict(validation, verbose=0), targets)
    keras.backend.clear_session()
    return problem.error_draws(targets, scores, RESAMPLES)


def _curve_point(rows: int, error: float, drawn: Numbers) -> CurvePoint:
    low, high = map(float, np.quantile(drawn, QUANTILES))
    return CurvePoint(rows=rows, error=error, low=min(low, error), high=max(high, error))


def _without_extrapolation(measure: str, why: str, points: Sequence[CurvePoint] = ()) -> LearningCurve:
    return LearningCurve(measure=measure, points=tuple(points), beyond=(), refused=why)


def main() -> None:
    """Read the workload, train, and write the curve."""
    with step("learning_curve"):
        workload, answer = map(Path, sys.argv[1:])
        artifacts.write(answer, measure_learning_curve(artifacts.read(workload, TrainingWorkload)))


if __name__ == "__main__":
    main()
