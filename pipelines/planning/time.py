"""How long the step `train` and the whole run take.

train = start + build + [rehearsed export] + compile + epochs · (a + b · steps + validation) + export

The parts come from a probe on the same machine; then the interval is that of its windows, and of no less than
±15 %, until runs that were planned and measured say better (residuals.py). The other steps take what they
took in earlier runs here, or what they took where modelyard is developed: that was with little data, so those
that grow with it are unknown where there is more and nobody measured them.
"""

import math
from collections.abc import Mapping

from modelyard.components.artifacts import Record
from modelyard.components.train.measured import Pace, Probed
from modelyard.components.train.settings import Training
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.quantity import Quantity, exactly, unknown
from modelyard.pipelines.planning.words import seconds

LEAST = 0.15
ENOUGH = 8  # steps whose time can be compared with that of others
ELSEWHERE = {
    "fingerprint": 0.3,
    "ingest": 0.5,
    "preprocess": 0.5,
    "evaluate": 0.8,
    "deploy": 1.5,
    "explain": 0.1,
}
ELSEWHERE_SOURCE = "digits on two idle cores, 2026-11-26; more where a process starts more slowly than there"
START = 5.0  # seconds that a process with TensorFlow took to start and to end there
ELSEWHERE_FACTOR = 2.0
CACHED = ("ingest", "preprocess")
LITTLE = 1e6  # bytes of rows, some more than those of the digits


class Duration(Record):
    """Seconds of the step `train` in parts: `once`, and `epoch` for each of `epochs`, validation included.

    `busy` is how many processes wanted each core while it was measured, 1 on an idle machine. `around` is the
    part of `start` that belongs to the pod and not to the process; 0 on this machine. `low` and `high` are
    what an epoch may take by its windows, as shares of `epoch`. `input_share` is the part of a step that
    reading takes beyond what hides behind the training; `overhead` the part of a step that does not depend on
    the size of the batch; both are None where too few steps were measured. `score` is what evaluate takes for
    a row, None in what an older modelyard kept.
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
    input_share: float | None
    overhead: float | None
    score: float | None = None

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
    share = overhead = None
    if step and _told(probed.epoch) and _told(probed.compute):
        share = max(0.0, step - bare) / step
    half, size = probed.half, min(plan.batch_size, data.rows["train"])
    if half and _told(half) and _told(probed.compute):  # t = o + p·B at two sizes
        few = size // 2
        overhead = min(bare, max(0.0, half.each - few * (bare - half.each) / (size - few)))
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
        input_share=share,
        overhead=overhead,
        score=probed.score,
    )


def _told(pace: Pace) -> bool:
    """Say whether enough were measured to compare them with others."""
    return pace.windows * pace.count >= ENOUGH


def train_seconds(found: Duration | None, correction: Quantity | None, fetches: bool = False) -> Quantity:
    """Return how long the step `train` takes.

    Args:
        found: what a probe said; None without one.
        correction: how actual times compared with planned ones in earlier runs, if there were enough.
        fetches: it reads so many rows from a bucket that this counts, and no probe does.
    """
    if found is None:
        return unknown("--probe measures it")
    value, least, high = found.seconds(), found.seconds(found.least_epochs), None
    if correction and correction.value and correction.low and correction.high:
        low, high, why = least * correction.low, value * correction.high, correction.why
        value *= correction.value
    else:
        low = found.once * (1 - LEAST) + found.epoch * found.least_epochs * found.low
        why = "the probe's windows, at least ±15 %"
        if fetches:
            why += "; fetching its rows from the bucket comes on top, which nobody measured"
        else:
            high = found.once * (1 + LEAST) + found.epoch * found.epochs * found.high
    if found.busy > 1:
        why += f", and x/÷ {found.busy:.2g} as {found.busy:.2g} processes wanted each core"
    return Quantity(
        value=value, low=low / found.busy, high=None if high is None else high * found.busy, why=why
    )


def other_steps(
    data: Dataset, time: Duration | None, past: Mapping[str, float], here: bool
) -> dict[str, Quantity]:
    """Return how long each step but `train` takes.

    Args:
        data: what the plan itself prepared is in the cache, and costs a run on this machine nothing.
        time: what a probe said there, or None.
        past: medians of earlier runs of the same configuration there, by step.
        here: they run on this machine, and not in pods.
    """
    found = {}
    for step in ELSEWHERE:
        if step in CACHED and here and data.features:
            found[step] = exactly(0.0)
        elif step in past:
            found[step] = _within(past[step], 1.5)
        else:
            found[step] = _assumed(step, data, time, here)
    return found


def little(data: Dataset) -> bool:
    """Say whether the rows are so few that what a step takes for them is lost in its start."""
    return sum(data.rows.values()) * data.row_bytes <= LITTLE


def whole(train: Quantity, others: Mapping[str, Quantity]) -> Quantity:
    """Return how long the whole run takes, if every step runs, and of which steps that is not known."""
    total = exactly(0.0)
    for one in (train, *others.values()):
        total = total.plus(one)
    whys: dict[str, list[str]] = {}
    for step, one in others.items():
        if one.value is None:
            whys.setdefault(one.why, []).append(step)
    every = len(others)
    said = [
        f"{'the other steps' if len(steps) == every else ', '.join(steps)}: {why}"
        for why, steps in whys.items()
    ]
    return total.model_copy(update={"why": "; ".join(filter(None, (train.why, *said)))})


def _assumed(step: str, data: Dataset, time: Duration | None, here: bool) -> Quantity:
    """Return what a step takes by what it takes elsewhere, with little data."""
    around = 0.0 if here else time.around if time else None
    scored = time.score if time and step == "evaluate" else None
    rows = 2 * data.rows.get("test", 0)  # the champion is scored, too
    value = ELSEWHERE[step] * (time.slow if time else 1.0) + (scored or 0.0) * rows + (around or 0.0)
    why = ""
    if around is None:
        why = "how long a pod takes to start there is not known"
    elif not little(data) and step in CACHED:
        took = data.seconds.get(step)
        why = "nobody measured it for so much data" + (f", but here: {seconds(took)}" if took else "")
    elif not little(data) and step == "evaluate" and scored is None:
        why = "--probe measures what scoring a row takes"
    return unknown(why, at_least=value / ELSEWHERE_FACTOR) if why else _within(value, ELSEWHERE_FACTOR)


def _within(value: float, factor: float) -> Quantity:
    return Quantity(value=value, low=value / factor, high=value * factor)
