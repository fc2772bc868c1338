"""Trains on growing parts of the data, and extrapolates what more examples would bring.

    python -m modelyard.components.train.learning_curve QUESTION.json CURVE.json

The parts are an eighth, a quarter, a half and all of the training examples, each a subset of the next. Each
is trained as a run would train it, so this takes about twice as long as one training. `a * rows^-b + c` is
fitted to the errors on the validation examples, and extrapolated to four times the rows at most. Each part is
trained once, so the intervals do not include the effect of another seed.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modelyard.components import artifacts
from modelyard.components.step import step
from modelyard.components.train import trainer
from modelyard.components.train.backend import keras
from modelyard.components.train.cost import compiled
from modelyard.components.train.data import Features, Part, ordered
from modelyard.components.train.measured import CurvePoint, LearningCurve, Question

PARTS = (1 / 8, 1 / 4, 1 / 2, 1.0)
BEYOND = (2, 4)
MINIMUM_VALIDATION, PER_CLASS = 50, 5
DRAWS = 200
QUANTILES = (0.1, 0.9)
EXPONENTS = np.linspace(0.05, 1.5, 59)
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class PowerLaw:
    """error = a * rows^-b + c."""

    a: float
    b: float
    c: float

    def at(self, rows: float) -> float:
        """Return the error with so many rows."""
        return float(min(1.0, self.a * rows**-self.b + self.c))


def learning_curve(question: Question) -> LearningCurve:
    """Return the curve of a model on its features.

    Raises:
        DataError: the features are malformed.
        TrainError: the model cannot be trained.
    """
    rows = Features.read(Path(question.features))
    held, classes = len(rows.validation), len(rows.schema.classes)
    counts = [math.floor(part * len(rows.train)) for part in PARTS]
    minimum = math.ceil(PER_CLASS * classes / PARTS[0])
    if held < MINIMUM_VALIDATION:
        return _refused(
            f"{held} validation examples are too few, at least {MINIMUM_VALIDATION} are needed: raise "
            "data.validation"
        )
    if len(rows.train) < minimum:
        return _refused(
            f"{len(rows.train):,} training examples are too few, at least {minimum:,} are needed: "
            f"{PER_CLASS} of each class in an eighth of them"
        )
    order = np.random.default_rng(0).permutation(len(rows.train))
    errors = [_error(question, rows, order[:count]) for count in counts]
    return extrapolate(counts, errors, held)


def extrapolate(counts: list[int], errors: list[float], held: int) -> LearningCurve:
    """Return the curve through points, with intervals for the number of validation examples.

    Args:
        counts: training examples of each point.
        errors: share of the validation examples that were wrong.
        held: number of validation examples.
    """
    size, wrong = np.asarray(counts, float), held * np.asarray(errors)
    # Jeffreys' interval: also with no wrong answer at all, the error is not exactly zero
    drawn = np.random.default_rng(0).beta(wrong + 0.5, held - wrong + 0.5, (DRAWS, len(errors)))
    best = fit(size, np.asarray(errors))
    points = [_point(count, errors[place], drawn[:, place]) for place, count in enumerate(counts)]
    said = f"{errors[0]:.1%} with {counts[0]:,} examples and {errors[-1]:.1%} with {counts[-1]:,}"
    if not best.a:
        return _refused(f"the error does not fall with more examples: {said}", points)
    if any(not few.min() <= best.at(rows) <= few.max() for rows, few in zip(counts, drawn.T, strict=True)):
        return _refused(
            f"the errors follow no power law: {said}. Few examples may train too few steps: raise "
            "training.epochs",
            points,
        )
    laws = [fit(size, one) for one in drawn]
    more = [counts[-1] * times for times in BEYOND]
    beyond = [_point(rows, best.at(rows), np.array([law.at(rows) for law in laws])) for rows in more]
    return LearningCurve(points=tuple(points), beyond=tuple(beyond), refused=None)


def fit(rows: Numbers, errors: Numbers) -> PowerLaw:
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


def _error(question: Question, rows: Features, chosen: NDArray[np.int64]) -> float:
    """Train on some rows as a run would, and return the share of validation examples that are wrong."""
    part = Features(rows.schema, rows.normalization, Part(rows.train, chosen), rows.validation)
    network = compiled(question.model_copy(update={"rows": len(chosen)}))
    trainer.fit(network, part, question.training)
    # with early stopping, the weights are those of the best epoch, not of the last
    validation = ordered(rows.validation, question.training.batch_size)
    found = network.evaluate(validation, verbose=0, return_dict=True)
    keras.backend.clear_session()
    return 1.0 - float(found["accuracy"])


def _point(rows: int, error: float, drawn: Numbers) -> CurvePoint:
    low, high = map(float, np.quantile(drawn, QUANTILES))
    return CurvePoint(rows=rows, error=error, low=min(low, error), high=max(high, error))


def _refused(why: str, points: Sequence[CurvePoint] = ()) -> LearningCurve:
    return LearningCurve(points=tuple(points), beyond=(), refused=why)


def main() -> None:
    """Read the question, train, and write the curve."""
    with step("learning_curve"):
        question, answer = map(Path, sys.argv[1:])
        artifacts.write(answer, learning_curve(artifacts.read(question, Question)))


if __name__ == "__main__":
    main()
