"""Learning curves: laws that are known, and features that are too few."""

from typing import Any

import numpy as np
import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.train import trainer
from modelyard.components.train.learning import extrapolate, learning_curve
from modelyard.components.train.measured import Question, Trial
from modelyard.components.train.power_law import fit

ROWS = np.array([500.0, 1000.0, 2000.0, 4000.0])


@pytest.mark.parametrize(("a", "b", "c"), [(3.0, 0.5, 0.05), (10.0, 0.9, 0.0), (0.8, 0.25, 0.02)])
def test_a_law_is_found_again(a: float, b: float, c: float) -> None:
    law = fit(ROWS, a * ROWS**-b + c)
    assert law.at(16000) == pytest.approx(a * 16000**-b + c, abs=0.003)


def test_what_does_not_fall_is_flat() -> None:
    law = fit(ROWS, np.array([0.1, 0.12, 0.13, 0.14]))
    assert law.at(16000) == pytest.approx(0.1225)


def test_beyond_are_twice_and_four_times_the_rows_with_an_interval() -> None:
    errors = [float(3 * rows**-0.5 + 0.05) for rows in ROWS]
    few = extrapolate([int(one) for one in ROWS], errors, held=100, seconds=1.0)
    many = extrapolate([int(one) for one in ROWS], errors, held=10_000, seconds=1.0)
    assert [one.rows for one in few.beyond] == [8000, 16000]
    for curve in (few, many):
        for one in curve.beyond:
            assert one.low <= 3 * one.rows**-0.5 + 0.05 <= one.high
    assert many.beyond[1].high - many.beyond[1].low < few.beyond[1].high - few.beyond[1].low


def test_no_wrong_row_among_few_does_not_mean_none_at_all() -> None:
    curve = extrapolate([250, 500, 1000, 2000], [0.10, 0.04, 0.02, 0.0], held=50, seconds=1.0)
    last = curve.points[-1]
    assert last.low == last.error == 0.0
    assert 0.01 < last.high < 0.1
    assert all(one.low <= one.error <= one.high for one in (*curve.points, *curve.beyond))


def test_what_does_not_fall_is_not_continued() -> None:
    curve = extrapolate([250, 500, 1000, 2000], [0.10, 0.12, 0.13, 0.14], held=100, seconds=1.0)
    assert curve.refused
    assert "does not fall as rows grow, 10.0% with 250 and 14.0% with 2,000" in curve.refused
    assert curve.beyond == ()
    assert [one.rows for one in curve.points] == [250, 500, 1000, 2000]


def test_what_no_law_goes_through_is_not_continued() -> None:
    curve = extrapolate([161, 322, 644, 1289], [0.698, 0.647, 0.295, 0.129], held=144, seconds=1.0)
    assert curve.refused
    assert curve.refused.startswith("no law goes through the errors, 69.8% with 161 to 12.9% with 1,289 rows")
    assert curve.beyond == ()


def trial(desk: Any, rows: int, validation: int, wrong: bool = False, **training: Any) -> Trial:
    pictures, labels = desk.pictures(rows)
    if wrong:
        labels = np.random.default_rng(0).permutation(labels)
    features = desk.features(pictures, labels, validation=validation)
    schema = artifacts.read(features / "schema.json", Schema)
    normalization = artifacts.read(features / "normalization.json", Normalization)
    asked = Question(
        examples=schema,
        normalization=normalization,
        architecture={"filters": [], "dense": [8]},
        training={"epochs": 2, "batch_size": 16} | training,
    )
    return Trial(question=asked, features=str(features))


def test_too_few_rows_are_refused(desk: Any) -> None:
    curve = learning_curve(trial(desk, rows=40, validation=60))
    assert curve.refused == (
        "an eighth of 40 training rows is less than 5 a class; a curve needs 120 rows: get more"
    )
    assert curve.points == curve.beyond == ()


def test_too_few_validation_rows_are_refused(desk: Any) -> None:
    curve = learning_curve(trial(desk, rows=400, validation=12))
    assert curve.refused
    assert curve.refused.startswith("12 validation rows tell too little")


def test_a_real_curve_has_a_point_a_part(desk: Any) -> None:
    curve = learning_curve(trial(desk, rows=160, validation=60))
    assert curve.refused is None
    assert [one.rows for one in curve.points] == [20, 40, 80, 160]
    assert all(0 <= one.low <= one.high <= 1 for one in (*curve.points, *curve.beyond))


def test_with_early_stopping_the_error_is_that_of_the_weights_that_stay(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories, fit_ = [], trainer.fit

    def watched(*arguments: Any) -> Any:
        histories.append(fit_(*arguments))
        return histories[-1]

    monkeypatch.setattr(trainer, "fit", watched)
    curve = learning_curve(trial(desk, 160, 60, wrong=True, epochs=6, early_stopping={"patience": 3}))
    for point, history in zip(curve.points, histories, strict=True):
        best = int(np.argmin(history.metrics["val_loss"]))
        assert point.error == pytest.approx(1 - history.metrics["val_accuracy"][best], abs=1e-6)
    # of wrong labels nothing is learned, and loss and accuracy disagree, else this test says nothing
    assert any(
        history.metrics["val_accuracy"][int(np.argmin(history.metrics["val_loss"]))]
        < max(history.metrics["val_accuracy"])
        for history in histories
    )
