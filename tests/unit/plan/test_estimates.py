"""Memory, arithmetic, time, money and Spot, beside sums done by hand."""

import math
from typing import Any

import pytest

from components.train.measured import Probed, Traced
from components.train.settings import EarlyStopping, Training
from pipelines.plan import money
from pipelines.plan.compute import compute, step_seconds
from pipelines.plan.dataset import Dataset
from pipelines.plan.hardware import Price, Row
from pipelines.plan.memory import memory
from pipelines.plan.quantity import Quantity, exactly, unknown
from pipelines.plan.spot import preempted
from pipelines.plan.storage import storage
from pipelines.plan.time import duration, other_steps, train_seconds, whole

PLAN = Training(epochs=5, batch_size=100)


def row(**changes: Any) -> Row:
    given = {"memory_gb": 1.0, "bandwidth_gbps": 1000.0, "sources": ["x"]}
    peaks = {"bf16": 100.0, "fp16": 100.0, "fp32": 10.0}
    return Row.model_validate({**given, "peak_tflops": peaks, **changes})


def test_memory_is_sixteen_bytes_a_parameter_and_the_activations(traced: Traced) -> None:
    found = memory(traced)
    assert found.fixed == 16 * 1_000_000
    assert found.most == 116_000_000
    assert found.model_dump(mode="json").items() >= {"fixed": 16_000_000, "most": 116_000_000}.items()
    assert found.each == 1_000_000


@pytest.mark.parametrize(
    ("capacity", "fit"),
    [
        (116e6 / 0.8 + 1, "fits"),
        (116e6 / 0.8 - 1, "unknown"),
        (12e6 / 0.95 - 1, "does not fit"),
        (12e6 / 0.95 + 1, "unknown"),  # a gradient may be gone before the next is there
    ],
)
def test_fits_for_sure_for_sure_not_or_unknown(traced: Traced, capacity: float, fit: str) -> None:
    assert memory(traced).fit(capacity) == fit


def test_what_is_not_understood_may_keep_memory_too(traced: Traced) -> None:
    found = memory(traced.model_copy(update={"lower_bound": ("a loop of unknown length",)}))
    assert (found.fit(1e12), found.fit(1e6)) == ("unknown", "does not fit")


def test_the_largest_operation_is_on_the_batch_or_on_the_variables(traced: Traced) -> None:
    wide = memory(traced.model_copy(update={"updating": 200_000_000}))
    assert wide.most == 216_000_000
    assert wide.each == 1_000_000
    assert wide.largest_batch(250e6) == 0  # the update alone has no room in 0.8 · 250 - 16 MB


def test_the_largest_batch_that_fits_for_sure(traced: Traced) -> None:
    assert memory(traced).largest_batch(100e6) == 64
    assert memory(traced).largest_batch(10e6) == 0


def test_arithmetic_of_all_steps(traced: Traced) -> None:
    found = compute(traced, steps=50)
    assert found.per_example == 60e6
    assert found.forward == 2e9
    assert found.total == 300e9
    assert found.moved_least == 3 * 4e6 + 2 * 4e6 + 2 * 8e6 + 1e6
    assert found.moved_per_step == found.moved_least + 2 * 90e6


def test_a_step_is_as_long_as_its_arithmetic_within_three(traced: Traced) -> None:
    work = compute(traced.model_copy(update={"flops": 10**12, "dtype": "mixed_bfloat16"}), steps=1)
    found = step_seconds(work, row(), "mixed_bfloat16")
    middle = 1e12 / (100e12 * math.sqrt(0.10 * 0.55))
    assert found.value == pytest.approx(middle)
    assert found.low == pytest.approx(middle / 3)
    assert found.high == pytest.approx(middle * 3)


def test_float32_may_be_rounded_by_tensor_cores(traced: Traced) -> None:
    work = compute(traced.model_copy(update={"flops": 10**12}), steps=1)
    found = step_seconds(work, row(), "float32")
    utilised = math.sqrt(0.10 * 0.55) * 1e12
    assert found.value == pytest.approx(1e12 / (math.sqrt(10 * 50) * utilised))  # TF32 is half of bf16
    assert found.low == pytest.approx(1e12 / (50 * utilised) / 3)
    assert found.high == pytest.approx(1e12 / (10 * utilised) * 3)


def test_where_nobody_knows_how_fast_tensor_cores_are_only_the_variables_bound_a_step(traced: Traced) -> None:
    work = compute(traced.model_copy(update={"flops": 10**12}), steps=1)
    peaks = {"bf16": "unknown", "fp16": 100.0, "fp32": 10.0}
    found = step_seconds(work, row(peak_tflops=peaks), "float32")
    assert found.low == pytest.approx(work.moved_least / 1e12)
    assert found.high == pytest.approx(3 * (found.value or 0))
    assert "less in TF32" in found.why


def test_without_tensor_cores_for_it_float32_is_float32(traced: Traced) -> None:
    work = compute(traced.model_copy(update={"flops": 10**12}), steps=1)
    peaks = {"bf16": "unsupported", "fp16": 100.0, "fp32": 10.0}
    found = step_seconds(work, row(peak_tflops=peaks), "float32")
    assert found.low == pytest.approx((found.value or 0) / 3)


def test_a_step_is_as_long_as_its_memory_traffic(traced: Traced) -> None:
    work = compute(traced.model_copy(update={"activations": 50 * 10**9}), steps=1)
    found = step_seconds(work, row(), "float32")
    assert found.value == pytest.approx(work.moved_per_step / 1e12)
    assert found.low
    assert found.low < 50e9 / 1e12 / 3  # what is kept for the gradients need not be written


def test_short_steps_have_no_upper_bound(traced: Traced) -> None:
    found = step_seconds(compute(traced, 1), row(), "float32")
    assert found.value is None
    assert found.high is None
    assert found.low
    assert "waits for its host" in found.why


@pytest.mark.parametrize(
    ("peaks", "dtype", "why"),
    [
        ({"bf16": "unknown", "fp16": 1.0, "fp32": 1.0}, "mixed_bfloat16", "its peak in bf16 is in no public"),
        ({"bf16": "unsupported", "fp16": 1.0, "fp32": 1.0}, "mixed_bfloat16", "it has no bf16"),
    ],
)
def test_an_unknown_peak_gives_no_time(traced: Traced, peaks: dict[str, Any], dtype: str, why: str) -> None:
    found = step_seconds(compute(traced, 1), row(peak_tflops=peaks), dtype)
    assert found.value is None
    assert found.why.startswith(why)


def test_a_lower_bound_of_arithmetic_gives_a_lower_bound_of_time(traced: Traced) -> None:
    work = compute(traced.model_copy(update={"lower_bound": ("a loop",), "flops": 10**13}), 1)
    found = step_seconds(work, row(), "float32")
    assert (found.value, found.high) == (None, None)
    assert found.low == pytest.approx(1e13 / 50e12)


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


PRICE = Price(region="here", scope="vm", count=8, on_demand=80.0, spot=20.0, source="x")


def test_a_machine_is_paid_whole() -> None:
    hour = Quantity(value=3600, low=1800, high=7200)
    assert money.cost(hour, PRICE, count=1, spot=False).value == 80
    assert money.cost(hour, PRICE, count=16, spot=True).high == 80


def test_accelerators_alone_are_a_lower_bound() -> None:
    alone = PRICE.model_copy(update={"scope": "accelerator"})
    found = money.cost(Quantity(value=3600, low=1800, high=7200), alone, count=4, spot=False)
    assert (found.value, found.low, found.high) == (40, 20, None)


def test_an_unknown_price_is_unknown() -> None:
    assert money.cost(exactly(1.0), None, 1, spot=False).value is None
    dear = PRICE.model_copy(update={"on_demand": "unknown"})
    assert money.cost(exactly(1.0), dear, 8, spot=False).value is None
    assert money.at(exactly(1800.0), 3.0).value == 1.5


def test_checkpoints_come_at_young_and_dalys_interval() -> None:
    hourly, rare, daily = preempted(7200, epochs=7200, checkpoint=10**9, restart=60, every=600)
    assert hourly.interval == pytest.approx(math.sqrt(2 * 10 * 3600))
    again = 3600 * math.exp(60 / 3600)
    assert hourly.configured == pytest.approx(again * math.expm1(610 / 3600) / 600)
    assert hourly.without == pytest.approx(again * math.expm1(2) / 7200)
    for row in (hourly, rare, daily):
        assert 1 < (row.best or 0) <= (row.configured or 0) < (row.without or 0)
    assert (hourly.without or 0) > (rare.without or 0) > (daily.without or 0) > 1


def test_the_best_interval_between_checkpoints_is_the_best() -> None:
    for every in (30, 100, 600, 3000):
        for row in preempted(7200, epochs=7200, checkpoint=10**9, restart=60, every=every):
            assert (row.best or 0) <= (row.configured or 0) * 1.001


def test_checkpoints_wait_for_the_end_of_an_epoch() -> None:
    few, many = (preempted(7200, epochs, checkpoint=10**9, restart=0, every=600)[0] for epochs in (3, 7200))
    assert few.interval == 2400 > many.interval
    assert (few.configured or 0) > (many.configured or 0)
    whole = preempted(7200, epochs=1, checkpoint=10**9, restart=0, every=600)[0]
    assert whole.configured == whole.best == whole.without  # the only epoch is over before there is any


def test_what_is_always_cut_off_never_ends() -> None:
    long = preempted(10**7, epochs=10**5, checkpoint=1, restart=0, every=600)[0]
    assert long.without is None
    assert long.configured is not None


def test_storage_counts_shards_twice_and_the_model(traced: Traced, probed: Probed, data: Dataset) -> None:
    found = storage(data, traced, probed)
    assert found.raw == found.features == 1500 * (64 + 8)
    assert found.run == 2 * found.raw + 13_000_000
    assert found.checkpoint == 12_000_000
    assert storage(data, traced, None).model == 12_000_000


@pytest.mark.parametrize(("patience", "least"), [(0, 2), (1, 2), (3, 4), (9, 5)])
def test_early_stopping_needs_an_epoch_to_compare_with(patience: int, least: int) -> None:
    plan = PLAN.model_copy(update={"early_stopping": EarlyStopping(patience=patience)})
    assert (PLAN.least_epochs, plan.least_epochs) == (5, least)


def test_a_layer_in_float16_alone_has_the_peak_of_float16(traced: Traced) -> None:
    work = compute(traced.model_copy(update={"flops": 10**12}), steps=1)
    assert step_seconds(work, row(), "float16") == step_seconds(work, row(), "mixed_float16")
    assert step_seconds(work, row(), "float16") != step_seconds(work, row(), "float32")
