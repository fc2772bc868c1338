"""How much arithmetic and memory traffic training is, and how long an accelerator may take for it.

step = max(flops / (peak · utilisation), bytes / bandwidth)

Without a probe nobody knows the utilisation: published, tuned runs reach 10 to 55 % of the peak, small
networks less. So the interval is the middle of that, divided and multiplied by three, and open above for
steps so short that the host cannot keep up. float32 may be rounded to TF32, with half the peak of bf16, or
not: then the interval begins at the one and ends at the other, and the middle is the geometric mean.
"""

import math

from modelyard.components.artifacts import Record
from modelyard.components.train.measured import Traced
from modelyard.pipelines.planning.hardware import Row
from modelyard.pipelines.planning.quantity import Quantity, unknown

UTILISATION = (0.10, 0.55)
MIDDLE = math.sqrt(UTILISATION[0] * UTILISATION[1])
FACTOR = 3.0
SHORT = 0.005  # seconds; a step of some hundred operations is not sent off faster than about that
PEAKS = {
    "float32": "fp32",
    "mixed_bfloat16": "bf16",
    "bfloat16": "bf16",
    "mixed_float16": "fp16",
    "float16": "fp16",
}


class Compute(Record):
    """Floating-point operations, and bytes between processor and memory.

    `moved_least` are the bytes of the variables and the batch, `moved_per_step` also those of activations, as
    far as no compiler keeps them from being written. `least_steps` are those until early stopping may end
    it; `total` is that of all `steps`. `lower_bound` says why the arithmetic is more than was counted; empty
    when it is exact.
    """

    per_example: float
    per_step: int
    forward: int
    steps: int
    least_steps: int
    total: float
    moved_per_step: int
    moved_least: int
    lower_bound: tuple[str, ...]


def compute(traced: Traced, steps: int, least_steps: int | None = None) -> Compute:
    """Return the arithmetic of `steps` training steps, which early stopping may end after `least_steps`."""
    # weights are read twice and written once, gradients written and read, the optimizer's read and written
    least = 3 * traced.weights + 2 * traced.gradients + 2 * traced.optimizer + traced.batch
    return Compute(
        per_example=traced.flops / traced.batch_size,
        per_step=traced.flops,
        forward=traced.flops - traced.backward,
        steps=steps,
        least_steps=steps if least_steps is None else least_steps,
        total=float(steps) * traced.flops,
        moved_per_step=least + 2 * traced.activations,
        moved_least=least,
        lower_bound=traced.lower_bound,
    )


def step_seconds(work: Compute, row: Row, dtype: str) -> Quantity:
    """Return how long a step may take on an accelerator that nobody probed."""
    name = PEAKS.get(dtype, "fp32")
    peak = getattr(row.peak_tflops, name)
    if peak == "unsupported":
        return unknown(f"it has no {name}")
    pace = math.inf if row.bandwidth_gbps == "unknown" else row.bandwidth_gbps * 1e9
    least = work.moved_least / pace
    if peak == "unknown":
        return unknown(f"its peak in {name} is in no public document that was read", at_least=least)
    fastest = _fastest(row, name)
    certain = max(least, work.per_step / (fastest * 1e12))
    if work.lower_bound:
        return unknown("the arithmetic is a lower bound", at_least=certain)
    moved = work.moved_per_step / pace
    slow, quick = (work.per_step / (one * 1e12 * MIDDLE) for one in (peak, fastest))
    middle = max(moved, slow if fastest == math.inf else math.sqrt(slow * quick))
    if middle < SHORT:
        why = "so short a step waits for its host, which only a probe there measures"
        return unknown(why, at_least=certain)
    low, high = max(least, quick / FACTOR), max(moved, slow) * FACTOR
    return Quantity(
        value=middle, low=low, high=high, why=f"no probe: x/÷ {FACTOR:g}{_rounding(peak, fastest)}"
    )


def _fastest(row: Row, name: str) -> float:
    """Return the peak that float32 may reach: from Ampere on, TensorFlow rounds its products (TF32).

    It is half of that in bf16, and without a bound where that is not known.
    """
    peak: float = getattr(row.peak_tflops, name)
    half = row.peak_tflops.bf16
    if name != "fp32" or half == "unsupported":
        return peak
    return max(peak, half / 2) if isinstance(half, float) else math.inf


def _rounding(peak: float, fastest: float) -> str:
    if fastest == math.inf:
        return " in float32, less in TF32, whose peak is not known"
    return "" if fastest == peak else " around float32 and TF32"
