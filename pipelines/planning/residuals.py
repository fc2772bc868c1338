"""What earlier runs say about plans: each run keeps what was planned beside what happened.

<home>/plans/<key>.json           the last plan of a configuration in an environment
<home>/runs/<run>/plan.json       planned and actual of a run

The next plan takes the quantiles of actual / planned over the runs on the same machine, and says over how
many. A run counts when it measures what the probe spoke of: one whole training, of the same rows, and planned
on an idle machine.
"""

import hashlib
import json
import os
import platform
import statistics
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import Field

from modelyard.components.artifacts import History, Record, read, write
from modelyard.components.errors import DataError
from modelyard.pipelines.compile.uploads import gather
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning.quantity import Quantity
from modelyard.pipelines.planning.risk import Risk
from modelyard.pipelines.planning.storage import Storage
from modelyard.pipelines.planning.time import Duration
from modelyard.pipelines.planning.written import Written, expected, written
from modelyard.pipelines.runners.runs import RunSummary, Step

FEW, ENOUGH = 3, 10
RECENT = 50
IDLE = 1.25  # processes that want each core while it is probed: with more, the probe says little
PREPARED = ("ingest", "preprocess")  # which the plan itself leaves in the cache


class Prediction(Record):
    """What was planned for a configuration on a machine; `refusals` are those that no limit made.

    `price` is what an hour of `train` was expected to cost, in USD, None where no price is known. `facts` and
    `risks` are the plan in words. An older modelyard kept none of these, nor `storage`.
    """

    created: str
    machine: str
    rows: dict[str, int]
    train: Quantity
    whole: Quantity
    money: Quantity
    parts: Duration | None
    refusals: tuple[str, ...]
    price: float | None = None
    storage: Storage | None = None
    facts: dict[str, str] = Field(default_factory=dict)
    risks: tuple[Risk, ...] = ()


class Residual(Record):
    """What was planned for a run, and what happened, in seconds.

    `planned` is for the epochs that there were in the end; None when nobody planned the run, its probe was on
    another machine, or the run does not tell how much it trained: not how many epochs, or only those after
    `resumed_after`, as it went on from a checkpoint. `uncorrected` is what it was before earlier runs moved
    it, None when it is not to be compared with `actual`. `actual` is None when the step `train` came from the
    cache. `written` has bytes: what the steps that ran left on this machine, and `planned_written` what the
    plan said of the same steps; None where they are not here.
    """

    run: str
    key: str
    machine: str
    planned: float | None
    uncorrected: float | None
    actual: float | None
    planned_whole: float | None
    actual_whole: float
    epochs: int | None
    resumed_after: int = 0
    plan: Prediction | None = None
    planned_written: Written | None = None
    written: Written | None = None

    @property
    def ratio(self) -> float | None:
        """Return actual / planned of the step `train`, by what the probe alone said."""
        return self.actual / self.uncorrected if self.actual and self.uncorrected else None


def machine(environment: Environment) -> str:
    """Return what the times of a plan hold for: the processor here, or what `train` gets on a cluster."""
    backend = "" if environment.keras_backend == "tensorflow" else environment.keras_backend
    if environment.kind == "local":
        return ", ".join(filter(None, (_processor(), f"{os.cpu_count()} cores", backend)))
    train = environment.resources("train")
    device = f"{train.accelerator.type}x{train.accelerator.count}" if train.accelerator else "a node"
    cpu = f"cpu {train.cpu}" if train.cpu else ""
    labels = (f"{name}={value}" for name, value in sorted(train.node_selector.items()))
    asked = ", ".join(filter(None, (cpu, train.memory, *labels, backend)))
    return f"{device} ({asked or 'any'}), artifacts in {environment.pipeline_root}"


def key(config: Config, environment: Environment) -> str:
    """Return what identifies a plan: what decides how long a run takes."""
    config = gather(config, environment).config  # as the run has it, with what it uploads by its content
    model = {**config.model.model_dump(mode="json"), "code": config.code_sha256()}
    sections = [config.source().text(), config.preparation().text(), model, config.training.decisive()]
    place = [environment.kind, environment.resources("train").text()]
    place += [environment.keras_backend, environment.pipeline_root or ""]
    return hashlib.sha256(json.dumps([sections, place], sort_keys=True).encode()).hexdigest()[:16]


def keep(home: Path, plan_key: str, prediction: Prediction) -> None:
    """Keep a prediction for the runs that come, in one piece even if another plan does so now.

    Raises:
        OSError: nothing can be written there.
    """
    path = home / "plans" / f"{plan_key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    write(partial, prediction)
    partial.replace(path)


def planned(home: Path, plan_key: str) -> Prediction | None:
    """Return the last prediction for a configuration, if there is one that this modelyard can read."""
    try:
        return read(home / "plans" / f"{plan_key}.json", Prediction)
    except (DataError, OSError):
        return None


def record(
    folder: Path, plan_key: str, environment: Environment, summary: RunSummary, history: History | None
) -> Residual | None:
    """Write what was planned and what happened into a run's folder; nothing of a run that failed.

    Args:
        folder: the run's.
        plan_key: what `key` said before the run: its data and code may have changed since.
        environment: where it ran.
        summary: how it went.
        history: what `train` tells of its only attempt; None when that is not known.

    Raises:
        OSError: nothing can be written there.
    """
    if summary.state != "succeeded":
        return None
    here = machine(environment)
    before = planned(folder.parent.parent, plan_key)
    ran = {one.name for one in summary.steps if one.state == "succeeded" and not one.cached}
    step = next((one for one in summary.steps if one.name == "train" and one.name in ran), None)
    ran_all = step and not any(one.cached for one in summary.steps if one.name not in PREPARED)
    is_here = environment.kind == "local"
    resumed = history.resumed_after if history else 0
    usable = before if before and before.machine == here and not resumed else None
    epochs = history.epochs if history else None
    found = Residual(
        run=summary.run,
        key=plan_key,
        machine=here,
        planned=_for(usable, epochs) if usable and step else None,
        uncorrected=_by_probe(usable, epochs, environment, summary) if usable and step else None,
        actual=step.seconds if step else None,
        planned_whole=usable.whole.value if usable and ran_all else None,
        actual_whole=summary.seconds,
        epochs=epochs,
        resumed_after=resumed,
        plan=before,
        planned_written=expected(before.storage, ran) if before and before.storage and is_here else None,
        written=written(folder / "artifacts") if is_here else None,
    )
    write(folder / "plan.json", found)
    return found


def correction(home: Path, here: str, plan_key: str) -> Quantity | None:
    """Return by what planned times of `train` have to be multiplied, if enough runs say so.

    Those of the same configuration say it best; when they are too few, all that ran on the machine do. With
    fewer than ten runs the interval is from the smallest to the largest ratio, and no narrower than the ±15 %
    of a plan without any; with more, from the 10 % to the 90 % quantile.
    """
    there = [one for one in _residuals(home) if one.machine == here and _fair(one)]
    same = [one for one in there if one.key == plan_key]
    of = " of this configuration" if len(same) >= FEW else ""
    ratios = [one.ratio for one in (same if of else there) if one.ratio][-RECENT:]
    if len(ratios) < FEW:
        return None
    middle = statistics.median(ratios)
    if len(ratios) < ENOUGH:
        low, high = min(*ratios, 0.85 * middle), max(*ratios, 1.15 * middle)
    else:
        low, *_, high = statistics.quantiles(ratios, n=10, method="inclusive")
    why = f"actual / planned of the last {len(ratios)} planned runs{of} on this machine"
    return Quantity(value=middle, low=low, high=high, why=why)


def past_steps(home: Path, plan_key: str) -> dict[str, float]:
    """Return the median seconds of each step but `train`, over the last runs of the same configuration."""
    seen: dict[str, list[float]] = {}
    for one in [one for one in _residuals(home) if one.key == plan_key][-RECENT:]:
        for step in _steps(home / "runs" / one.run):
            if step.state == "succeeded" and not step.cached and step.name != "train":
                seen.setdefault(step.name, []).append(step.seconds)
    return {name: statistics.median(values) for name, values in seen.items()}


def _steps(folder: Path) -> tuple[Step, ...]:
    """Return the steps of a run; none when its summary is gone or cannot be read."""
    with suppress(DataError, OSError):
        return read(folder / "run.json", RunSummary).steps
    return ()


def _residuals(home: Path) -> Iterator[Residual]:
    """Yield those of all runs, oldest first; what an older modelyard wrote otherwise is left out."""
    for path in sorted((home / "runs").glob("*/plan.json")):
        with suppress(DataError, OSError):
            yield read(path, Residual)


def _fair(one: Residual) -> bool:
    """Say whether a run has a ratio, and was planned on an idle machine."""
    parts = one.plan.parts if one.plan else None
    return one.ratio is not None and (parts is None or parts.busy <= IDLE)


def _for(plan: Prediction, epochs: int | None) -> float | None:
    """Return the planned seconds of `train`, for the epochs that there were."""
    parts = plan.parts
    if plan.train.value is None or parts is None:
        return plan.train.value
    if epochs is None:  # how many there were only matters where it may have stopped early
        return plan.train.value if parts.least_epochs == parts.epochs else None
    return plan.train.value * parts.seconds(epochs) / parts.seconds()


def _by_probe(
    plan: Prediction, epochs: int | None, environment: Environment, summary: RunSummary
) -> float | None:
    """Return what the probe alone said of a training; None when a run does not measure it.

    That is when nobody knows how many epochs there were, when there were other rows, and where the processor
    may have trained instead of the accelerator.
    """
    rows = summary.metrics.rows if summary.metrics else None
    optional = environment.accelerator_optional and environment.resources("train").accelerator
    if plan.parts is None or epochs is None or rows is None or rows != plan.rows.get("test") or optional:
        return None
    return plan.parts.seconds(epochs)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
