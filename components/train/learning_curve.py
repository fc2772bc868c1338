"""Measures a learning curve: trains on growing subsets of the data, and extrapolates the error.

    python -m modelyard.components.train.learning_curve WORKLOAD.json CURVE.json

The subsets are an eighth, a quarter, a half and all of the training examples, each contained in the next.
Training on the four subsets takes about twice as long as on all examples. The power law
`a * examples^-b + c` is fitted to the validation errors and extrapolated to two and four times the examples.
An extrapolated error is at most the last measured one. If a measured error is higher than the previous one,
nothing is extrapolated. Each subset is trained once, so the intervals do not include the effect of the seed.
"""

import math
import sys
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
MIN_VALIDATION = 50
RESAMPLES = 200
QUANTILES = (0.1, 0.9)
EXPONENTS = np.linspace(0.05, 1.5, 59)
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class PowerLaw:
    """error = a * examples^-b + c."""

    a: float
    b: float
    c: float

    def error_at(self, examples: float) -> float:
        """Return the error with a number of training examples."""
        return float(self.a * examples**-self.b + self.c)


def measure_learning_curve(workload: TrainingWorkload) -> LearningCurve:
    """Return the curve of a model on its features."""
    features = Features.read(Path(workload.features))
    problem, validation_examples = problems.get_problem(features.schema.problem), len(features.validation)
    counts = [math.floor(fraction * len(features.train)) for fraction in FRACTIONS]
    minimum = math.ceil(problem.minimum_examples(features.schema) / FRACTIONS[0])
    reason = None
    if validation_examples < MIN_VALIDATION:
        reason = (
            f"{validation_examples} validation examples are too few, at least {MIN_VALIDATION} are "
            "required: raise data.validation"
        )
    elif len(features.train) < minimum:
        reason = (
            f"{len(features.train):,} training examples are too few, at least {minimum:,} are required: "
            f"{problem.minimum_examples(features.schema):,} in the smallest subset"
        )
    if reason:
        return LearningCurve(measure=problem.error_name, points=(), extrapolated=(), reason=reason)
    order = np.random.default_rng(0).permutation(len(features.train))
    results = [_train_and_score(workload, features, order[:count], problem) for count in counts]
    errors, resamples = [error for error, _ in results], np.stack([draws for _, draws in results], axis=1)
    return extrapolate(problem.error_name, counts, errors, resamples)


def extrapolate(measure: str, counts: list[int], errors: list[float], resamples: Numbers) -> LearningCurve:
    """Return the learning curve through measured points.

    Args:
        measure: name of the error.
        counts: number of training examples of each point.
        errors: validation error of each point.
        resamples: (RESAMPLES, points), errors on resampled validation examples, for the intervals.
    """
    sizes = np.asarray(counts, float)
    best = fit_power_law(sizes, np.asarray(errors))
    points = [_make_point(count, errors[index], resamples[:, index]) for index, count in enumerate(counts)]
    summary = ", ".join(f"{format_number(point.error)} with {point.examples:,} examples" for point in points)
    extrapolated: list[CurvePoint] = []
    reason = None
    if errors != sorted(errors, reverse=True) or errors[0] == errors[-1]:
        reason = (
            f"cannot extrapolate, because the error does not fall with each subset: {summary}. Raise "
            "data.validation, which reduces noise, or training.epochs"
        )
    elif any(
        not draws.min() <= best.error_at(examples) <= draws.max()
        for examples, draws in zip(counts, resamples.T, strict=True)
    ):
        reason = (
            f"cannot extrapolate, because the errors do not follow a power law: {summary}. Raise "
            "training.epochs, because small subsets may be trained for too few steps"
        )
    else:
        laws = [fit_power_law(sizes, draws) for draws in resamples]
        for examples in (counts[-1] * factor for factor in EXTRAPOLATION_FACTORS):
            draws = np.minimum([law.error_at(examples) for law in laws], resamples[:, -1])
            extrapolated.append(_make_point(examples, min(best.error_at(examples), errors[-1]), draws))
    return LearningCurve(
        measure=measure, points=tuple(points), extrapolated=tuple(extrapolated), reason=reason
    )


def fit_power_law(examples: Numbers, errors: Numbers) -> PowerLaw:
    """Return the least-squares power law: for each b on a grid, it is linear in a and c."""
    powers = examples[None, :] ** -EXPONENTS[:, None]
    deviations = powers - powers.mean(1, keepdims=True)
    a = (deviations * (errors - errors.mean())).sum(1) / (deviations**2).sum(1)
    c = errors.mean() - a * powers.mean(1)
    a_without_c = (powers * errors).sum(1) / (powers**2).sum(1)
    a, c = np.where(c < 0, a_without_c, a), np.maximum(c, 0.0)
    a, c = np.maximum(a, 0.0), np.where(a < 0, errors.mean(), c)  # constant if the error does not fall
    differences = ((a[:, None] * powers + c[:, None] - errors) ** 2).sum(1)
    best = int(differences.argmin())
    return PowerLaw(float(a[best]), float(EXPONENTS[best]), float(c[best]))


def _train_and_score(
    workload: TrainingWorkload, features: Features, indices: NDArray[np.int64], problem: Problem
) -> tuple[float, Numbers]:
    """Train on a subset, and return the validation error with its resampled values."""
    subset = Features(
        features.schema, features.normalization, Subset(features.train, indices), features.validation
    )
    network = build_compiled_network(workload.model_copy(update={"training_examples": len(indices)}))
    trainer.fit(network, subset, workload.training)
    # Early stopping restores the best epoch's weights, so the error of the last epoch is not used.
    validation = ordered_batches(features.validation, workload.training.batch_size)
    model = networks.add_export_layer(network, workload.model, features.schema)
    targets = features.validation.targets
    scores = problem.compute_scores(model.predict(validation, verbose=0), targets)
    keras.backend.clear_session()
    return problem.resample_error(targets, scores, RESAMPLES)


def _make_point(examples: int, error: float, draws: Numbers) -> CurvePoint:
    low, high = map(float, np.quantile(draws, QUANTILES))
    return CurvePoint(examples=examples, error=error, low=min(low, error), high=max(high, error))


def main() -> None:
    """Read the workload and write its learning curve."""
    with step("learning_curve"):
        workload, result = map(Path, sys.argv[1:])
        artifacts.write(result, measure_learning_curve(artifacts.read(workload, TrainingWorkload)))


if __name__ == "__main__":
    main()
