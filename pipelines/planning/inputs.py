"""What a plan rests on: every input with how it is known, from where and when."""

from collections.abc import Iterator, Mapping
from datetime import date

from modelyard.components.train.measured import Probed
from modelyard.components.train.settings import Training
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.planning.compute import FACTOR, SHORT, UTILISATION, Compute
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.hardware import Hardware
from modelyard.pipelines.planning.place import LIBRARIES
from modelyard.pipelines.planning.quantity import Input
from modelyard.pipelines.planning.risk import COPIES
from modelyard.pipelines.planning.speed import Speed
from modelyard.pipelines.planning.spot import WRITE
from modelyard.pipelines.planning.storage import EXPORTS
from modelyard.pipelines.planning.time import ELSEWHERE, ELSEWHERE_SOURCE, LEAST, START


def inputs(
    config: Config,
    data: Dataset,
    hardware: Hardware,
    work: Compute,
    probed: Probed | None,
    speed: Speed,
    price: float | None,
) -> tuple[Input, ...]:
    """Return the inputs of a plan.

    Args:
        config: the configuration.
        data: the rows.
        hardware: the file of accelerators.
        work: the arithmetic.
        probed: what a probe found now.
        speed: what is known of the machine.
        price: USD per hour, if somebody gave it.
    """
    training, today = config.training, date.today()
    rows = ", ".join(f"{name} {count:,}" for name, count in data.rows.items())
    found = [
        Input(name="rows", value=rows, basis=data.basis, source=f"{data.source}, {today}"),
        _setting("epochs", "epochs", training),
        _setting("batch size", "batch_size", training),
        _counted("parameters, memory of variables", "exact", today),
        _counted("arithmetic", "a lower bound" if work.lower_bound else "exact", today),
        _counted("memory of activations", "unbounded" if work.lower_bound else "an upper bound", today),
    ]
    if training.early_stopping:
        found.append(
            Input(name="epochs until it stops early", value="", basis="unknown", source="only training tells")
        )
    found.append(_speed(probed, speed.probed_at, today))
    if price is not None:
        found.append(_given("price", f"{price:g} USD an hour", "--price"))
    if correction := speed.correction:
        value = f"x{correction.value:.2g}"
        found.append(Input(name="correction", value=value, basis="measured", source=correction.why))
    found += [
        *_steps(speed.past),
        Input(
            name="accelerators: memory, peaks, bandwidth, prices",
            value=f"{len(hardware.rows)} of them",
            basis="given",
            source=f"{hardware.path}, read {hardware.read}",
        ),
        *_assumed(probed is not None or speed.probed_at is not None, exported=probed is not None),
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


def _setting(name: str, key: str, training: Training) -> Input:
    """Return a setting, which somebody wrote down or left at its default."""
    default = "" if key in training.model_fields_set else ", its default"
    return _given(name, getattr(training, key), f"training.{key}{default}")


def _counted(name: str, value: str, today: date) -> Input:
    return Input(name=name, value=value, basis="counted", source=f"the traced training step, {today}")


def _steps(past: Mapping[str, float]) -> Iterator[Input]:
    """Yield what the other steps take: those of earlier runs, and the rest."""
    rest = {step: seconds for step, seconds in ELSEWHERE.items() if step not in past}
    if past:
        source = "earlier runs of this configuration"
        yield Input(name="other steps: medians", value=_times(past), basis="measured", source=source)
    if rest:
        yield Input(name="other steps", value=_times(rest), basis="assumed", source=ELSEWHERE_SOURCE)


def _times(steps: Mapping[str, float]) -> str:
    return ", ".join(f"{step} {seconds:.3g} s" for step, seconds in steps.items())


def _assumed(measured: bool, exported: bool) -> Iterator[Input]:
    """Yield the numbers that nobody measured for this plan.

    Args:
        measured: the speed comes from a probe.
        exported: a probe wrote the files of the model.
    """
    none = "no source: a round number"
    found = {
        "share of an accelerator's peak": (
            f"{UTILISATION[0]:.0%} to {UTILISATION[1]:.0%}, x/÷ {FACTOR:g}",
            "published tuned runs, read 2026-11-23; small networks reach less",
        ),
        "shortest step that does not wait for its host": (f"{SHORT * 1e3:g} ms", none),
        "memory of the libraries": (f"{LIBRARIES / 1e9:g} GB", "a process that has imported TensorFlow"),
        "weights in the host's memory during an export": (f"{COPIES} times", none),
        "writing a checkpoint to a bucket": (f"{WRITE / 1e6:g} MB/s", none),
    }
    if measured:
        published = "the best published predictors reach 5 to 12 % with a profile of the same hardware"
        found["least interval around a probe"] = (f"±{LEAST:.0%}", published)
        found["start of a process where the other steps were measured"] = (f"{START:g} s", ELSEWHERE_SOURCE)
    if not exported:
        found["files of an exported model"] = (f"{EXPORTS} times the weights", "one of each format")
    for name, (value, source) in found.items():
        yield Input(name=name, value=value, basis="assumed", source=source)


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
