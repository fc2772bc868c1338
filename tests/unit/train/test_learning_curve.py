"""Learning curves: known power laws, errors without a power law, and too few examples."""

from typing import Any

import numpy as np
import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.problems.classification import PROBLEM
from modelyard.components.train import learning_curve as curves
from modelyard.components.train import trainer
from modelyard.components.train.learning_curve import extrapolate, fit_power_law, measure_learning_curve
from modelyard.components.train.measurement import TrainingWorkload
from modelyard.components.train.settings import Model, Training

COUNTS = np.array([500.0, 1000.0, 2000.0, 4000.0])


@pytest.mark.parametrize(("a", "b", "c"), [(3.0, 0.5, 0.05), (10.0, 0.9, 0.0), (0.8, 0.25, 0.02)])
def test_fit_recovers_a_power_law(a: float, b: float, c: float) -> None:
    law = fit_power_law(COUNTS, a * COUNTS**-b + c)
    assert law.error_at(16000) == pytest.approx(a * 16000**-b + c, abs=0.003)


def test_fit_of_rising_errors_is_constant() -> None:
    law = fit_power_law(COUNTS, np.array([0.1, 0.12, 0.13, 0.14]))
    assert law.error_at(16000) == pytest.approx(0.1225)


def extrapolate_errors(counts: list[int], errors: list[float], validation_examples: int) -> Any:
    """Extrapolate shares of wrong predictions on `validation_examples` validation examples."""
    targets, resampled = np.zeros(validation_examples, np.int64), []
    for error in errors:
        scores = np.stack(
            [
                np.arange(validation_examples) < round(error * validation_examples),
                np.ones(validation_examples),
            ],
            axis=1,
        ).astype(float)
        resampled.append(PROBLEM.resample_error(targets, scores, curves.RESAMPLES)[1])
    return extrapolate(PROBLEM.error_name, counts, errors, np.stack(resampled, axis=1))


def test_errors_are_extrapolated_to_two_and_four_times_the_examples() -> None:
    errors = [float(3 * count**-0.5 + 0.05) for count in COUNTS]
    small = extrapolate_errors([int(count) for count in COUNTS], errors, validation_examples=100)
    large = extrapolate_errors([int(count) for count in COUNTS], errors, validation_examples=10_000)
    assert [point.examples for point in small.extrapolated] == [8000, 16000]
    for curve in (small, large):
        for estimate in curve.extrapolated:
            assert estimate.low <= 3 * estimate.examples**-0.5 + 0.05 <= estimate.high
    assert (
        large.extrapolated[1].high - large.extrapolated[1].low
        < small.extrapolated[1].high - small.extrapolated[1].low
    )


def test_the_interval_of_an_error_of_zero_is_not_empty() -> None:
    curve = extrapolate_errors([250, 500, 1000, 2000], [0.10, 0.04, 0.02, 0.0], validation_examples=50)
    last = curve.points[-1]
    assert last.low == last.error == 0.0
    assert 0.01 < last.high < 0.1
    assert all(point.low <= point.error <= point.high for point in (*curve.points, *curve.extrapolated))


@pytest.mark.parametrize("errors", [[0.10, 0.12, 0.13, 0.14], [0.12, 0.06, 0.07, 0.05], [0.1] * 4])
def test_rising_errors_are_not_extrapolated(errors: list[float]) -> None:
    curve = extrapolate_errors([250, 500, 1000, 2000], errors, validation_examples=100)
    assert curve.reason
    assert f"{errors[-1]:.4f} with 2,000 examples" in curve.reason
    assert curve.extrapolated == ()
    assert [point.examples for point in curve.points] == [250, 500, 1000, 2000]


def test_extrapolated_errors_never_rise() -> None:
    """The best power law through these errors is above the last one at twice the examples."""
    curve = extrapolate_errors([250, 500, 1000, 2000], [0.30, 0.28, 0.27, 0.20], validation_examples=60)
    points = (*curve.points, *curve.extrapolated)
    assert len(points) == 6
    for value in ("error", "high"):
        values = [getattr(point, value) for point in points]
        assert values == sorted(values, reverse=True)
    assert all(point.low <= point.error <= point.high for point in points)


def test_errors_without_a_power_law_are_not_extrapolated() -> None:
    curve = extrapolate_errors([161, 322, 644, 1289], [0.698, 0.647, 0.295, 0.129], validation_examples=144)
    assert curve.reason
    assert "training.epochs" in curve.reason
    assert curve.extrapolated == ()


def workload(train_env: Any, training_examples: int, validation: int, **training: Any) -> TrainingWorkload:
    images, labels = train_env.images(training_examples)
    features = train_env.features(images, labels, validation=validation)
    schema = artifacts.read(features / "schema.json", Schema)
    normalization = artifacts.read(features / "normalization.json", Normalization)
    return TrainingWorkload(
        example_schema=schema,
        normalization=normalization,
        model=Model(filters=(), dense=(8,)),
        training=Training(**{"epochs": 2, "batch_size": 16} | training),
        training_examples=training_examples,
        features=str(features),
    )


def test_too_few_training_examples_give_no_learning_curve(train_env: Any) -> None:
    curve = measure_learning_curve(workload(train_env, training_examples=40, validation=60))
    assert curve.reason
    assert "at least 120" in curve.reason
    assert curve.points == curve.extrapolated == ()


def test_too_few_validation_examples_give_no_learning_curve(train_env: Any) -> None:
    curve = measure_learning_curve(workload(train_env, training_examples=400, validation=12))
    assert curve.reason
    assert "data.validation" in curve.reason


def test_the_error_is_that_of_the_final_weights(train_env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fit, example_counts = trainer.fit, []

    def fit_and_reset(network: Any, part: Any, training: Any) -> Any:
        history = fit(network, part, training)
        example_counts.append(len(part.train))
        # the network predicts only the first class
        network.set_weights([0 * weights for weights in network.get_weights()])
        return history

    monkeypatch.setattr(curves, "FRACTIONS", (1 / 2, 1.0))
    monkeypatch.setattr(trainer, "fit", fit_and_reset)
    curve = measure_learning_curve(workload(train_env, 60, 60, epochs=1))
    assert example_counts == [point.examples for point in curve.points] == [30, 60]
    assert [point.error for point in curve.points] == [pytest.approx(2 / 3)] * 2
    assert all(point.low <= point.error <= point.high for point in curve.points)
