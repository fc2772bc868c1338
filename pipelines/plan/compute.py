"""How much arithmetic and memory traffic training is, and how long an accelerator may take for it.

step = max(flops / (peak · utilisation), bytes / bandwidth)

Without a probe nobody knows the utilisation: published, tuned runs reach 10 to 55 % of the peak, small
networks less. So the interval is the middle of that, divided and multiplied by three, and open above for
steps so short that the host cannot keep up.
"""

import math

from components.artifacts import Record
from components.train.measured import Traced
from pipelines.plan.hardware import Row
from pipelines.plan.quantity import Quantity, unknown

UTILISATION = (0.10, 0.55)
MIDDLE = math.sqrt(UTILISATION[0] * UTILISATION[1])
FACTOR = 3.0
SHORT = 0.005  # seconds; a step of some hundred operations is not sent off faster than about that
PEAKS = {"float32": "fp32", "mixed_bfloat16": "bf16", "bfloat16": "bf16", "mixed_float16": "fp16"}


class Compute(Record):
    """Floating-point operations, and bytes between processor and memory, which are at least these.

    `least_steps` are those until early stopping may end it; `total` is that of all `steps`. `lower_bound`
    says why the arithmetic is more than was counted; empty when it is exact.
    """

    per_example: float
    per_step: int
    forward: int
    steps: int
    least_steps: int
    total: float
    moved_per_step: int
    lower_bound: tuple[str, ...]


def compute(traced: Traced, steps: int, least_steps: int | None = None) -> Compute:
    """Return the arithmetic of `steps` training steps, which early stopping may end after `least_steps`."""
    # weights are read twice and written once, gradients written and read, the optimizer's read and written
    variables = 3 * traced.weights + 2 * traced.gradients + 2 * traced.optimizer
    return Compute(
        per_example=traced.flops / traced.batch_size,
        per_step=traced.flops,
        forward=traced.flops - traced.backward,
        steps=steps,
        least_steps=steps if least_steps is None else least_steps,
        total=float(steps) * traced.flops,
        moved_per_step=variables + 2 * traced.activations + traced.batch,
        lower_bound=traced.lower_bound,
    )


def step_seconds(work: Compute, row: Row, dtype: str) -> Quantity:
    """Return how long a step may take on an accelerator that nobody probed."""
    name = PEAKS.get(dtype, "fp32")
    peak = getattr(row.peak_tflops, name)
    if peak == "unsupported":
        return unknown(f"it has no {name}")
    moved = 0.0 if row.bandwidth_gbps == "unknown" else work.moved_per_step / (row.bandwidth_gbps * 1e9)
    if peak == "unknown":
        return unknown(f"its peak in {name} is in no public document that was read", at_least=moved)
    fastest = work.per_step / (_fastest(row, name) * 1e12)
    if work.lower_bound:
        return unknown("the arithmetic is a lower bound", at_least=max(fastest, moved))
    middle = max(work.per_step / (peak * 1e12 * MIDDLE), moved)
    low = max(moved, min(middle / FACTOR, fastest / (FACTOR * MIDDLE)))
    if middle < SHORT:
        why = "so short a step waits for its host, which only a probe there measures"
        return unknown(why, at_least=low)
    return Quantity(value=middle, low=low, high=middle * FACTOR, why="no probe: x/÷ 3")


def _fastest(row: Row, name: str) -> float:
    """Return the peak that float32 may reach: from Ampere on, TensorFlow rounds its products (TF32)."""
    peaks = row.peak_tflops
    peak: float = getattr(peaks, name)
    rounds = name == "fp32" and isinstance(peaks.bf16, float)
    return max(peak, peaks.bf16 / 2) if rounds else peak  # type: ignore[operator]
