"""Trains on growing parts of the data and says what more rows would bring.

    python -m modelyard.components.train.learning TRIAL.json CURVE.json

The parts are an eighth, a quarter, a half and all of the training rows, each within the next; each is trained
as a run would do it, so this takes about twice as long as one training. error = a · rows^-b + c is fitted to
what the same validation rows say, and never asked about more than four times the rows that there are. What
another seed would bring is in no interval: each part is trained once.
"""

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components import artifacts, lifeline
from modelyard.components.shards import Split
from modelyard.components.train import trace, trainer
from modelyard.components.train.backend import keras
from modelyard.components.train.data import Features, ordered
from modelyard.components.train.measured import CurvePoint, LearningCurve, Question, Trial
from modelyard.components.train.power_law import fit

PARTS = (1 / 8, 1 / 4, 1 / 2, 1.0)
BEYOND = (2, 4)
LEAST_VALIDATION, PER_CLASS = 50, 5
DRAWS = 200
QUANTILES = (0.1, 0.9)


class Part(Split):
    """Some rows of a split."""

    def __init__(self, split: Split, rows: NDArray[np.int64]) -> None:
        self._split, self._rows = split, rows
        self.labels = split.labels[rows]

    def __len__(self) -> int:
        return len(self._rows)

    def gather(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the examples at `rows` of this part."""
        return self._split.gather(self._rows[rows])


def learning_curve(trial: Trial) -> LearningCurve:
    """Return the curve of a model on its features.

    Raises:
        DataError: the features are malformed.
        TrainError: the model cannot be trained.
    """
    began = time.perf_counter()
    rows = Features.read(Path(trial.features))
    held, classes = len(rows.validation), len(rows.schema.classes)
    counts = [math.floor(part * len(rows.train)) for part in PARTS]
    least = math.ceil(PER_CLASS * classes / PARTS[0])
    if held < LEAST_VALIDATION:
        return _refused(
            f"{held} validation rows tell too little; {LEAST_VALIDATION} are needed: raise data.validation"
        )
    if len(rows.train) < least:
        return _refused(
            f"an eighth of {len(rows.train):,} training rows is less than {PER_CLASS} a class; a curve needs "
            f"{least:,} rows: get more"
        )
    order = np.random.default_rng(0).permutation(len(rows.train))
    errors = [_error(trial.question, rows, order[:count]) for count in counts]
    return extrapolate(counts, errors, held, time.perf_counter() - began)


def extrapolate(counts: list[int], errors: list[float], held: int, seconds: float) -> LearningCurve:
    """Return the curve through points, with intervals for how few rows they were measured on.

    Args:
        counts: training rows of each point.
        errors: share of validation rows that were wrong.
        held: how many validation rows there are.
        seconds: that the training took.
    """
    size, random, wrong = np.asarray(counts, float), np.random.default_rng(0), held * np.asarray(errors)
    # Jeffreys': of rows that nobody has seen some may be wrong, also where no validation row is
    drawn = random.beta(wrong + 0.5, held - wrong + 0.5, (DRAWS, len(errors)))
    best = fit(size, np.asarray(errors))
    points = [_point(count, errors[place], drawn[:, place]) for place, count in enumerate(counts)]
    if not best.a:
        return _refused(
            f"the error does not fall as rows grow, {errors[0]:.1%} with {counts[0]:,} and {errors[-1]:.1%} "
            f"with {counts[-1]:,}: what more would bring, this does not tell",
            points,
            seconds,
        )
    if any(not few.min() <= best.at(rows) <= few.max() for rows, few in zip(counts, drawn.T, strict=True)):
        return _refused(
            f"no law goes through the errors, {errors[0]:.1%} with {counts[0]:,} to {errors[-1]:.1%} with "
            f"{counts[-1]:,} rows: perhaps fewer rows train too few steps; raise training.epochs",
            points,
            seconds,
        )
    laws = [fit(size, one) for one in drawn]
    more = [counts[-1] * times for times in BEYOND]
    beyond = [_point(rows, best.at(rows), np.array([law.at(rows) for law in laws])) for rows in more]
    return LearningCurve(
        points=tuple(points),
        beyond=tuple(beyond),
        exponent=best.b,
        floor=best.c,
        refused=None,
        seconds=seconds,
    )


def _error(question: Question, rows: Features, chosen: NDArray[np.int64]) -> float:
    """Train on some rows as a run would, and return the share of validation rows that are wrong."""
    part = Features(rows.schema, rows.normalization, Part(rows.train, chosen), rows.validation)
    network, plan = trace.compiled(question.model_copy(update={"rows": len(chosen)}))
    trainer.fit(network, part, plan)
    # by the weights that stay: with early stopping those of the epoch that what it watches found best
    validation = ordered(rows.validation, plan.batch_size)
    found = network.evaluate(validation, verbose=0, return_dict=True)
    keras.backend.clear_session()
    return 1.0 - float(found["accuracy"])


def _point(rows: int, error: float, drawn: NDArray[np.float64]) -> CurvePoint:
    low, high = map(float, np.quantile(drawn, QUANTILES))
    return CurvePoint(rows=rows, error=error, low=min(low, error), high=max(high, error))


def _refused(why: str, points: Sequence[CurvePoint] = (), seconds: float = 0.0) -> LearningCurve:
    """Return a curve that says nothing about more rows."""
    return LearningCurve(
        points=tuple(points), beyond=(), exponent=None, floor=None, refused=why, seconds=seconds
    )


def main() -> None:
    """Read the trial, train, and write the curve."""
    lifeline.follow()
    trial, answer = map(Path, sys.argv[1:])
    artifacts.write(answer, learning_curve(artifacts.read(trial, Trial)))


if __name__ == "__main__":
    main()
