"""Memory, arithmetic, money, Spot and storage, beside sums done by hand."""

import math
from typing import Any

import pytest

from modelyard.components.train.measured import Probed, Traced
from modelyard.components.train.settings import EarlyStopping, Training
from modelyard.pipelines.planning import money
from modelyard.pipelines.planning.compute import compute, step_seconds
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.hardware import Price, Row
from modelyard.pipelines.planning.memory import memory
from modelyard.pipelines.planning.quantity import Quantity, exactly
from modelyard.pipelines.planning.spot import preempted
from modelyard.pipelines.planning.storage import storage

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
