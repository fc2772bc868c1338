"""Which accelerators can do it, in which order, and what is refused with which remedy."""

from datetime import date
from typing import Any

import pytest

from modelyard.components.errors import ConfigError
from modelyard.components.train.measured import Traced
from modelyard.pipelines.planning.compute import compute
from modelyard.pipelines.planning.hardware import Hardware, Row, load
from modelyard.pipelines.planning.memory import memory
from modelyard.pipelines.planning.offers import Offer, offers, wanted


@pytest.fixture(scope="module")
def hardware() -> Hardware:
    return load()


def offered(
    hardware: Hardware, traced: Traced, *asked: str, backend: str = "tensorflow", dtype: str = "float32"
) -> dict[str, Offer]:
    heavy = traced.model_copy(update={"flops": 5 * 10**12})
    found = offers(wanted(asked, hardware), hardware, memory(traced), compute(heavy, 1000), dtype, backend)
    return {one.accelerator: one for one in found}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("nvidia-l4", ("nvidia-l4", 1)),
        ("nvidia-l4x4", ("nvidia-l4", 4)),
        ("l4x2", ("nvidia-l4", 2)),
        ("a100", ("nvidia-tesla-a100", 1)),
        ("tpu7x", ("tpu7x", 1)),
        ("tpu7xx4", ("tpu7x", 4)),
        ("nvidia-h200-141gb", ("nvidia-h200-141gb", 8)),
    ],
)
def test_what_somebody_means(hardware: Hardware, text: str, meant: tuple[str, int]) -> None:
    assert wanted([text], hardware) == [meant]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nvidia-l4x3", "a node has 1, 2, 4, 8 of nvidia-l4, not 3"),
        ("nvidia-h200-141gbx1", "a node has 8 of"),
        ("nvidia-l5", "did you mean nvidia-l4"),
        ("abacus", "they are nvidia-tesla-t4"),
    ],
)
def test_what_does_not_exist_is_refused(hardware: Hardware, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        wanted([text], hardware)


def test_a_row_that_was_left_out_says_why(hardware: Hardware) -> None:
    partial = hardware.model_copy(update={"rejected": {"nvidia-l9": "its price is nonsense"}})
    with pytest.raises(ConfigError, match="was left out: its price is nonsense"):
        wanted(["nvidia-l9"], partial)


def priced(bf16: float | str, dollars: float, scope: str = "vm", memory: float = 80.0) -> Row:
    price = {"region": "here", "count": 1, "on_demand": dollars, "spot": dollars / 2, "source": "X"}
    peaks = {"bf16": bf16, "fp16": 100.0, "fp32": 10.0}
    row = {"memory_gb": memory, "bandwidth_gbps": 1000.0, "peak_tflops": peaks, "sources": ("X",)}
    return Row.model_validate({**row, "price": {**price, "scope": scope}})


def test_the_cheapest_that_can_do_it_is_first_and_what_is_only_bounded_last(traced: Traced) -> None:
    rows = {
        "tpu-v6e-slice": priced(800.0, 0.01, "chip"),  # TensorFlow has no build for it
        "nvidia-tesla-t4": priced(100.0, 0.1, "accelerator"),  # its machine comes on top
        "nvidia-b200": priced("unknown", 0.01),  # at least no time at all
        "nvidia-tesla-v100": priced(100.0, 0.1, memory=1.0),  # it may not fit
        "nvidia-l4": priced(100.0, 1.0),
        "nvidia-tesla-a100": priced(400.0, 2.0),  # four times as fast for twice the price
        "nvidia-h100-80gb": priced(800.0, 4.0),  # as much money, in half the time
    }
    small = Hardware(path="a test", read=date(2026, 11, 23), sources={"X": "x"}, rows=rows, rejected={})
    large = traced.model_copy(update={"activations": 10**9})
    assert list(offered(small, large, dtype="mixed_bfloat16")) == [
        "nvidia-h100-80gb",
        "nvidia-tesla-a100",
        "nvidia-l4",
        "nvidia-tesla-t4",
        "nvidia-b200",
        "nvidia-tesla-v100",
        "tpu-v6e-slice",
    ]


def test_where_no_time_is_known_an_hours_money_decides(hardware: Hardware, traced: Traced) -> None:
    work = compute(traced, 1000)  # so short a step that it waits for its host
    found = offers(wanted(["a100", "l4", "t4"], hardware), hardware, memory(traced), work, "float32", "jax")
    assert [one.accelerator for one in found] == ["nvidia-l4", "nvidia-tesla-a100", "nvidia-tesla-t4"]
    assert found[1].train.low < found[0].train.low
    assert [one.hour.value for one in found] == pytest.approx([0.8536, 3.6734, 0.35])


def test_what_is_known_of_a_price_is_said(hardware: Hardware, traced: Traced) -> None:
    found = offered(hardware, traced, "t4", "l4")
    assert found["nvidia-tesla-t4"].remark == "USD: the accelerator alone; its machine comes on top"
    assert found["nvidia-l4"].remark == ""


def test_what_cannot_be_had_on_demand_has_no_such_price(hardware: Hardware, traced: Traced) -> None:
    one, eight = (
        offered(hardware, traced, name)["nvidia-h100-80gb"] for name in ("h100-80gb", "h100-80gbx8")
    )
    assert one.on_demand.value is None
    assert one.spot.value
    assert one.remark == "USD: a machine with 1 is to be had on Spot and Flex-start only"
    assert eight.on_demand.value == pytest.approx((eight.train.value or 0) * 8 * 10.9791 / 3600)


def test_a_device_of_tpu7x_is_half_a_chip(hardware: Hardware) -> None:
    row = hardware.rows["tpu7x"]
    assert (row.memory, row.peak_tflops.bf16) == (96 * 2**30, 2307 / 2)


def test_tensorflow_on_a_tpu_is_refused_with_the_remedy(hardware: Hardware, traced: Traced) -> None:
    refused = offered(hardware, traced, "tpu-v6e-slice")["tpu-v6e-slice"].refused
    assert refused
    assert "TensorFlow 2.21 has no TPU build: set environment.keras_backend: jax" in refused
    assert not offered(hardware, traced, "tpu-v6e-slice", backend="jax")["tpu-v6e-slice"].refused


def test_a_model_that_fits_no_device_is_refused_on_each(hardware: Hardware, traced: Traced) -> None:
    huge = traced.model_copy(update={"weights": 10**11, "gradients": 10**11, "optimizer": 2 * 10**11})
    found = offered(hardware, huge).values()
    assert all(one.fit == "does not fit" for one in found)
    assert all(one.refused for one in found)
    h200 = next(one.refused for one in found if one.accelerator == "nvidia-h200-141gb")
    assert h200
    assert "cannot split it; take a larger device" in h200


def test_what_may_fit_names_the_batch_that_does(hardware: Hardware, traced: Traced) -> None:
    large = traced.model_copy(update={"activations": 20 * 10**9})
    found = offered(hardware, large, "nvidia-l4")["nvidia-l4"]
    assert found.fit == "unknown"
    assert "a batch of about 95 does" in found.remark  # (0.8 · 24 GB - 16 MB) / 200.1 MB


def test_more_devices_than_the_step_uses_would_idle(hardware: Hardware, traced: Traced) -> None:
    one, four = (offered(hardware, traced, name)["nvidia-l4"] for name in ("l4", "l4x4"))
    assert four.train == one.train
    assert four.on_demand.low == pytest.approx(4 * (one.on_demand.low or 0))
    assert "the others would idle" in four.remark


def test_bfloat16_needs_hardware_for_it(hardware: Hardware, traced: Traced) -> None:
    found = offered(hardware, traced, "nvidia-tesla-t4", dtype="mixed_bfloat16")["nvidia-tesla-t4"]
    assert found.refused == "nvidia-tesla-t4 has no bfloat16: use mixed_float16"


def test_a_price_says_where_it_is_from(hardware: Hardware, traced: Traced) -> None:
    found: Any = offered(hardware, traced, "h100-80gb")["nvidia-h100-80gb"]
    assert found.price == (
        "a machine with one accelerator, us-central1, silybench-data gpu_prices.csv, Cloud Billing Catalog "
        "read 2026-09-26, read 2026-11-23"
    )


def test_early_stopping_may_end_the_steps_before(hardware: Hardware, traced: Traced) -> None:
    heavy = traced.model_copy(update={"flops": 5 * 10**12})
    (whole,), (early,) = (
        offers([("nvidia-l4", 1)], hardware, memory(traced), compute(heavy, 1000, least), "float32", "jax")
        for least in (1000, 100)
    )
    assert whole.train.low
    assert early.train.low == pytest.approx(whole.train.low / 10)
    assert early.on_demand.low == pytest.approx((whole.on_demand.low or 0) / 10)
    assert (early.train.value, early.train.high) == (whole.train.value, whole.train.high)
