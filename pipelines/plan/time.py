"""How long the step `train` and the whole run take.

train = start + build + [rehearsed export] + compile + epochs · (a + b · steps + validation) + export

The parts come from a probe on the same machine; then the interval is that of its windows, and of no less than
±15 %, until runs that were planned and measured say better (residuals.py). The other steps take what they
took in earlier runs here, or what they took where modelyard is developed.
"""

import math
from collections.abc import Mapping

from components.artifacts import Record
from components.train.measured import Probed
from components.train.settings import Training
from pipelines.plan.dataset import Dataset
from pipelines.plan.quantity import Quantity, exactly, unknown

LEAST = 0.15
ELSEWHERE = {"fingerprint": 0.3, "ingest": 0.5, "preprocess": 0.5, "evaluate": 0.8, "deploy": 1.5}
ELSEWHERE_SOURCE = "digits on two idle cores, 2026-11-26; more where a process starts more slowly than there"
START = 5.0  # seconds that a process with TensorFlow took to start and to end there
ELSEWHERE_FACTOR = 2.0
CACHED = ("ingest", "preprocess")


class Duration(Record):
    """Seconds of the step `train` in parts: `once`, and `epoch` for each of `epochs`, validation included.

    `busy` is how many processes wanted each core while it was measured, 1 on an idle machine. `around` is the
    part of `start` that belongs to the pod and not to the process; 0 on this machine. `low` and `high` are
    what an epoch may take by its windows, as shares of `epoch`. `input_share` is the part of a step that
    reading takes beyond what hides behind the training; `overhead` the part of a step that does not depend on
    the size of the batch.
    """

    once: float
    epoch: float
    validation: float
    epochs: int
    least_epochs: int
    low: float
    high: float
    busy: float
    around: float
    start: float
    compile: float
    export: float
    step: float
    input_share: float
    overhead: float | None

    @property
    def slow(self) -> float:
        """Return how many times as long as where modelyard is developed a process takes to start here."""
        return max(1.0, (self.start - self.around) / START)

    def seconds(self, epochs: int | None = None) -> float:
        """Return the seconds of so many epochs; of all when None."""
        return self.once + self.epoch * (self.epochs if epochs is None else epochs)


def duration(
    probed: Probed, wall: float, plan: Training, data: Dataset, rehearsed: bool, pod: bool = False
) -> Duration:
    """Return how long training takes on the machine that was probed.

    Args:
        probed: what the probe found.
        wall: seconds of its whole process.
        plan: the training.
        data: the rows.
        pod: the process had a pod around it, as each step has there.
        rehearsed: a model of the user's own is exported once before it is trained.
    """
    steps, held = (math.ceil(data.rows.get(name, 0) / plan.batch_size) for name in ("train", "validation"))
    validation = probed.validation.seconds(held) if probed.validation else 0.0
    start = max(0.0, wall - probed.inside) + probed.opening + probed.building
    export = probed.export + (probed.export_again if rehearsed else 0.0)
    compiling = probed.first_epoch + (probed.first_validation if held else 0.0)
    step, bare = probed.epoch.each, probed.compute.each
    half = probed.half
    size = plan.batch_size // 2
    overhead = None
    if half and plan.batch_size > 1:  # t = o + p·B at two sizes
        overhead = max(0.0, half.each - size * (bare - half.each) / (plan.batch_size - size))
    return Duration(
        once=start + compiling + export,
        epoch=probed.epoch.seconds(steps) + validation,
        validation=validation,
        epochs=plan.epochs,
        least_epochs=plan.least_epochs,
        low=min(1 - LEAST, probed.epoch.low),
        high=max(1 + LEAST, probed.epoch.high),
        busy=max(1.0, probed.load),
        around=max(0.0, wall - probed.age) if pod and probed.age else 0.0,
        start=start,
        compile=compiling,
        export=export,
        step=step,
        input_share=max(0.0, step - bare) / step if step else 0.0,
        overhead=None if overhead is None else min(overhead, bare),
    )


def train_seconds(found: Duration | None, correction: Quantity | None) -> Quantity:
    """Return how long the step `train` takes.

    Args:
        found: what a probe said; None without one.
        correction: how actual times compared with planned ones in earlier runs, if there were enough.
    """
    if found is None:
        return unknown("--probe measures it")
    value, least = found.seconds(), found.seconds(found.least_epochs)
    if correction and correction.value and correction.low and correction.high:
        low, high, middle = correction.low, correction.high, correction.value
        return Quantity(value=value * middle, low=least * low, high=value * high, why=correction.why)
    low = found.once * (1 - LEAST) + found.epoch * found.least_epochs * found.low
    high = found.once * (1 + LEAST) + found.epoch * found.epochs * found.high
    why = "the probe's windows, at least ±15 %"
    if found.busy > 1:
        why += f", and x/÷ {found.busy:.2g} as {found.busy:.2g} processes wanted each core"
    return Quantity(value=value, low=low / found.busy, high=high * found.busy, why=why)


def other_steps(
    data: Dataset,
    probed: Probed | None,
    past: Mapping[str, float],
    around: float | None = 0.0,
    slow: float = 1.0,
) -> dict[str, Quantity]:
    """Return how long each step but `train` takes.

    Args:
        data: what the plan itself prepared is in the cache, and costs the run nothing.
        probed: what scoring a row takes.
        past: medians of earlier runs of the same configuration there, by step.
        slow: how many times as long as assumed everything takes.
        around: seconds of the pod around each; None when that is not known, 0 on this machine.
    """
    found = {}
    for step, assumed in ELSEWHERE.items():
        if step in CACHED and data.features and around == 0:
            found[step] = exactly(0.0)
        elif step in past:
            found[step] = Quantity(value=past[step], low=past[step] / 1.5, high=past[step] * 1.5)
        else:
            scoring = probed.score * data.rows.get("test", 0) if probed and step == "evaluate" else 0.0
            value = assumed * slow + scoring + (around or 0.0)
            found[step] = Quantity(value=value, low=value / ELSEWHERE_FACTOR, high=value * ELSEWHERE_FACTOR)
            if around is None:
                found[step] = unknown("how long its pod takes to start is not known", at_least=value)
    return found


def whole(train: Quantity, others: Mapping[str, Quantity]) -> Quantity:
    """Return how long the whole run takes, if every step runs."""
    total = exactly(0.0)
    for one in (train, *others.values()):
        total = total.plus(one)
    return total.model_copy(update={"why": train.why})
