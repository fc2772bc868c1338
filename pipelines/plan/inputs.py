"""What a plan rests on: every input with how it is known, from where and when."""

from datetime import date

from components.train.measured import Probed
from pipelines.config import Config
from pipelines.plan.compute import FACTOR, UTILISATION
from pipelines.plan.dataset import Dataset
from pipelines.plan.hardware import Hardware
from pipelines.plan.quantity import Input
from pipelines.plan.spot import WRITE
from pipelines.plan.time import ELSEWHERE, ELSEWHERE_SOURCE


def inputs(
    config: Config,
    data: Dataset,
    hardware: Hardware,
    probed: Probed | None,
    probed_at: str | None,
    price: float | None,
    earlier: bool,
) -> tuple[Input, ...]:
    """Return the inputs of a plan.

    Args:
        config: the configuration.
        data: the rows.
        hardware: the file of accelerators.
        probed: what a probe found now.
        probed_at: when an earlier probe was whose times are used.
        price: USD per hour, if somebody gave it.
        earlier: the interval is that of earlier runs.
    """
    training, today = config.training, date.today()
    rows = ", ".join(f"{name} {count:,}" for name, count in data.rows.items())
    found = [
        Input(name="rows", value=rows, basis=data.basis, source=f"{data.source}, {today}"),
        _given("epochs", training.epochs, "training.epochs"),
        _given("batch size", training.batch_size, "training.batch_size"),
        Input(
            name="parameters, arithmetic, memory",
            value="of one training step",
            basis="counted",
            source=f"the traced training step, {today}",
        ),
    ]
    if training.early_stopping:
        found.append(
            Input(name="epochs until it stops early", value="", basis="unknown", source="only training tells")
        )
    found.append(_speed(probed, probed_at, today))
    if price is not None:
        found.append(_given("price", f"{price:g} USD an hour", "--price"))
    seconds = ", ".join(f"{name} {value:g} s" for name, value in ELSEWHERE.items())
    found += [
        Input(
            name="other steps",
            value="their medians" if earlier else seconds,
            basis="measured" if earlier else "assumed",
            source="earlier runs of this configuration" if earlier else ELSEWHERE_SOURCE,
        ),
        Input(
            name="accelerators: memory, peaks, bandwidth, prices",
            value=f"{len(hardware.rows)} of them",
            basis="given",
            source=f"{hardware.path}, read {hardware.read}",
        ),
        Input(
            name="share of an accelerator's peak",
            value=f"{UTILISATION[0]:.0%} to {UTILISATION[1]:.0%}, x/÷ {FACTOR:g}",
            basis="assumed",
            source="published tuned runs, read 2026-11-23; small networks reach less",
        ),
        Input(
            name="writing a checkpoint to a bucket",
            value=f"{WRITE / 1e6:g} MB/s",
            basis="assumed",
            source="no source: a round number",
        ),
    ]
    nobody = (
        "time between preemptions",
        "time of data and artifacts to and from a bucket",
        "queue and quota",
        "time until a node is there",
        "storage and egress prices",
    )
    found += [
        Input(name=name, value="", basis="unknown", source="not estimable from outside") for name in nobody
    ]
    return tuple(found)


def _given(name: str, value: object, key: str) -> Input:
    return Input(name=name, value=str(value), basis="given", source=key)


def _speed(probed: Probed | None, probed_at: str | None, today: date) -> Input:
    name = "speed of training"
    if probed is None and probed_at:
        return Input(name=name, value="", basis="measured", source=f"a probe at {probed_at}")
    if probed is None:
        return Input(name=name, value="", basis="unknown", source="--probe measures it")
    value = f"{probed.epoch.each * 1e3:.3g} ms a step on {probed.device}"
    noise = ", with rows of noise" if probed.synthetic else ""
    return Input(
        name=name,
        value=value,
        basis="measured",
        source=f"a probe of {probed.epoch.windows} windows{noise}, {today}",
    )
