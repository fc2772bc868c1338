"""How long training and the other steps take, beside sums done by hand."""

import pytest

from modelyard.components.train.measured import Probed
from modelyard.components.train.settings import EarlyStopping, Training
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.quantity import Quantity, exactly, unknown
from modelyard.pipelines.planning.time import duration, other_steps, train_seconds, whole

PLAN = Training(epochs=5, batch_size=100)


def test_training_is_its_parts(probed: Probed, data: Dataset) -> None:
    found = duration(probed, wall=46.0, plan=PLAN, data=data, rehearsed=False)
    assert found.start == pytest.approx(46 - 40 + 1)
    assert found.once == pytest.approx(7 + 3 + 1 + 2)
    assert found.epoch == pytest.approx((0.5 + 10 * 0.020) + (0.1 + 2 * 0.010))
    assert found.seconds() == pytest.approx(13 + 5 * 0.82)
    assert found.overhead == pytest.approx(0.010)  # 14 ms at half the batch, 18 ms at all of it
    assert found.input_share == pytest.approx(0.1)


def test_a_model_of_ones_own_is_exported_twice(probed: Probed, data: Dataset) -> None:
    built_in, own = (duration(probed, 46.0, PLAN, data, rehearsed) for rehearsed in (False, True))
    assert own.seconds() - built_in.seconds() == pytest.approx(1.5)  # the second time it imports nothing


def test_without_validation_rows_none_is_counted(probed: Probed, data: Dataset) -> None:
    bare = data.model_copy(update={"rows": {"train": 1000, "validation": 0, "test": 300}})
    found = duration(probed.model_copy(update={"validation": None}), 46.0, PLAN, bare, rehearsed=False)
    assert found.validation == 0
    assert found.compile == 3.0


def test_the_interval_is_no_narrower_than_fifteen_per_cent(probed: Probed, data: Dataset) -> None:
    found = train_seconds(duration(probed, 46.0, PLAN, data, rehearsed=False), None)
    assert found.value
    assert found.low
    assert found.high
    assert found.low <= 0.851 * found.value
    assert found.high >= 1.149 * found.value


def test_a_busy_machine_makes_it_wider(probed: Probed, data: Dataset) -> None:
    idle, busy = (
        train_seconds(duration(one, 46.0, PLAN, data, rehearsed=False), None)
        for one in (probed, probed.model_copy(update={"load": 3.0}))
    )
    assert busy.value == idle.value
    assert busy.low == pytest.approx((idle.low or 0) / 3)
    assert busy.high == pytest.approx((idle.high or 0) * 3)
    assert "3 processes wanted each core" in busy.why


def test_a_busy_machine_makes_it_wider_also_where_earlier_runs_moved_it(
    probed: Probed, data: Dataset
) -> None:
    time = duration(probed.model_copy(update={"load": 3.0}), 46.0, PLAN, data, rehearsed=False)
    found = train_seconds(time, Quantity(value=1.1, low=1.05, high=1.2, why="12 runs"))
    assert found.low == pytest.approx(1.05 * time.seconds() / 3)
    assert found.high == pytest.approx(1.2 * time.seconds() * 3)


def test_what_comes_from_a_bucket_has_no_upper_bound_until_runs_give_one(
    probed: Probed, data: Dataset
) -> None:
    time = duration(probed, 46.0, PLAN, data, rehearsed=False, pod=True)
    found = train_seconds(time, None, fetches=True)
    assert (found.value, found.high) == (pytest.approx(time.seconds()), None)
    assert "fetching its rows from the bucket" in found.why
    assert train_seconds(time, Quantity(value=1.1, low=1.05, high=1.2), fetches=True).high


def test_early_stopping_lowers_the_lower_end_alone(probed: Probed, data: Dataset) -> None:
    stopping = PLAN.model_copy(update={"early_stopping": EarlyStopping(patience=1)})
    all_, some = (train_seconds(duration(probed, 46.0, one, data, False), None) for one in (PLAN, stopping))
    assert some.value == all_.value
    assert some.high == all_.high
    assert some.low
    assert all_.low
    assert some.low < all_.low


def test_earlier_runs_move_and_narrow_it(probed: Probed, data: Dataset) -> None:
    time = duration(probed, 46.0, PLAN, data, rehearsed=False)
    found = train_seconds(time, Quantity(value=1.1, low=1.05, high=1.2, why="12 runs"))
    assert found.value == pytest.approx(1.1 * time.seconds())
    assert found.low == pytest.approx(1.05 * time.seconds())
    assert found.high == pytest.approx(1.2 * time.seconds())
    assert found.why == "12 runs"


def test_without_a_probe_there_is_no_time() -> None:
    assert train_seconds(None, None).value is None


def test_the_other_steps(probed: Probed, data: Dataset) -> None:
    time = duration(probed, 44.0, PLAN, data, rehearsed=False)
    found = other_steps(data, time, {"deploy": 4.0}, here=True)
    assert found["ingest"] == found["preprocess"] == exactly(0.0)  # the plan left them in the cache
    assert found["deploy"].value == 4.0
    assert found["evaluate"].value == pytest.approx(0.8 + 2 * 300 * 1e-4)  # the champion, too
    assert found["explain"].value
    assert other_steps(data.model_copy(update={"features": ""}), None, {}, here=True)["ingest"].value


def test_where_a_process_starts_slowly_the_other_steps_are_slow_too(probed: Probed, data: Dataset) -> None:
    quick, slow = (duration(probed, wall, PLAN, data, rehearsed=False) for wall in (43.0, 54.0))
    assert (quick.slow, slow.slow) == (1.0, 3.0)
    found = [other_steps(data, one, {}, here=True)["deploy"].value for one in (quick, slow)]
    assert found == [1.5, 4.5]


def test_in_pods_each_step_has_one(probed: Probed, data: Dataset) -> None:
    aged = probed.model_copy(update={"age": 44.0})
    found = duration(aged, wall=60.0, plan=PLAN, data=data, rehearsed=False, pod=True)
    assert found.around == 16.0
    assert found.start == pytest.approx(60 - 40 + 1)  # the pod's start is part of the step's
    bare = duration(probed, 44.0, PLAN, data, rehearsed=False)
    here, there = other_steps(data, bare, {}, here=True), other_steps(data, found, {}, here=False)
    for step in ("fingerprint", "evaluate", "deploy", "explain"):
        assert (there[step].value or 0) - (here[step].value or 0) == pytest.approx(16.0)
    assert (there["ingest"].value or 0) > 16.0  # what was prepared here is not there
    unprobed = other_steps(data, None, {}, here=False)["deploy"]
    assert (unprobed.value, unprobed.low) == (None, 1.5 / 2)


def test_steps_that_grow_with_the_rows_are_unknown_where_nobody_measured_so_many(
    probed: Probed, data: Dataset
) -> None:
    many = data.model_copy(update={"rows": {"train": 10**6, "test": 10**6}, "seconds": {"ingest": 42.0}})
    time = duration(probed, 44.0, PLAN, many, rehearsed=False)
    assert other_steps(many, time, {}, here=True)["ingest"] == exactly(0.0)
    elsewhere = other_steps(many, time, {}, here=False)
    for step in ("ingest", "preprocess"):
        assert elsewhere[step].value is None
        assert elsewhere[step].low
    assert "here: 42 s" in elsewhere["ingest"].why
    assert elsewhere["evaluate"].value == pytest.approx(0.8 + 2 * 10**6 * 1e-4)
    assert other_steps(many, None, {}, here=True)["evaluate"].value is None
    assert other_steps(many, None, {}, here=True)["deploy"].value
    assert other_steps(many, time, {"ingest": 50.0}, here=False)["ingest"].value == 50.0


def test_a_whole_run_is_unknown_when_a_part_is() -> None:
    found = whole(unknown("nobody knows", at_least=2.0), {"deploy": exactly(3.0)})
    assert (found.value, found.low, found.high, found.why) == (None, 5.0, None, "nobody knows")
    parts = {"ingest": unknown("too much"), "preprocess": unknown("too much"), "deploy": exactly(3.0)}
    assert whole(exactly(2.0), parts).why == "ingest, preprocess: too much"
    parts["deploy"] = unknown("too much")
    assert whole(exactly(2.0), parts).why == "the other steps: too much"
