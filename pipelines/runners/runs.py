"""Runs on this machine: their folders, their states, and what remains of them.

<home>/runs/20261124-091502-3f9a/
    run.json      the summary, written when the run ends
    report.html   what evaluate says, for people
    lifeline      held for as long as the run lives
    logs/         one file a step
    artifacts/    what the steps wrote; the cache points into it
    scratch/      temporary files; gone when the run ends
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from modelyard.components import lifeline
from modelyard.components.artifacts import Decision, Interval, Metrics, Outcome, Record, read, write
from modelyard.components.errors import ConfigError, ModelyardError, NotFoundError
from modelyard.components.explain import local_run
from modelyard.pipelines.serving.smoke_test import Prediction

NAME = re.compile(r"\b\d{8}-\d{6}-[0-9a-f]{4}\b")
State = Literal["waiting", "running", "succeeded", "failed", "skipped"]


class Step(Record):
    """How one step went; `seconds` is its wall time."""

    name: str
    state: State
    seconds: float
    cached: bool


class MetricsSummary(Record):
    """The numbers a script asks for; `accuracy_interval` and `gain` have 95 % bootstrap intervals."""

    accuracy: float
    accuracy_interval: tuple[float, float]
    rows: int
    gain: Interval | None


class Failure(Record):
    """Why a run failed: the error's class, its paragraph, the step and its log."""

    kind: str
    message: str
    exit_code: int
    step: str | None
    log: str | None

    @classmethod
    def of(cls, error: ModelyardError, step: str | None = None, log: Path | None = None) -> "Failure":
        """Return how an error is recorded."""
        return cls(
            kind=type(error).__name__,
            message=str(error),
            exit_code=error.exit_code,
            step=step,
            log=str(log) if log else None,
        )


class RunSummary(Record):
    """What `modelyard run` tells, as text or as JSON.

    `run` names this run, `fingerprint` what it made: the same data, config and code give the same version.
    `version` is None when nothing was published; `champion` is the version in force in the end. A run that
    was asked to skip what is unchanged, and did, has the decision `unchanged` and neither metrics nor report.
    `uses` names the runs whose artifacts came from the cache.
    """

    run: str
    model: str
    state: Literal["succeeded", "failed", "cancelled"]
    fingerprint: str | None = None
    version: int | None = None
    champion: int | None = None
    decision: Literal["promote", "hold", "reject", "unchanged"] | None = None
    reason: str | None = None
    metrics: MetricsSummary | None = None
    steps: tuple[Step, ...]
    seconds: float
    report: str | None = None
    store: str
    uses: tuple[str, ...] = ()
    prediction: Prediction | None = None
    failure: Failure | None = None


def home() -> Path:
    """Return the folder for runs and cache: MODELYARD_HOME, or .modelyard in the working directory."""
    return Path(os.environ.get("MODELYARD_HOME", ".modelyard")).absolute()


@contextmanager
def start(base: Path) -> Iterator[Path]:
    """Make the folder of a new run and hold its lifeline; clear up after runs that were killed.

    Raises:
        ConfigError: nothing can be written there.
    """
    for dead in _dead(base):
        _clear(dead)
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    run = base / "runs" / name
    try:
        for part in ("logs", "artifacts"):
            (run / part).mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"Runs are kept in {base}, which cannot be written: {error.strerror}. Set MODELYARD_HOME to a "
            "folder that can, or change its permissions."
        ) from error
    with (
        lifeline.hold(run / "lifeline") as variables,
        _environment({**variables, "TMPDIR": str(run / "scratch"), local_run.VARIABLE: str(run)}),
    ):
        (run / "scratch").mkdir()  # under the lifeline: a run with scratch and without it is dead
        try:
            yield run
        finally:
            _clear(run)


def of_pipelines(name: str) -> Path:
    """Return the folder for what is fetched of a run on Kubeflow Pipelines; it may not be there."""
    return home() / "runs" / re.sub(r"[^\w.-]+", "-", name).strip(".")


def finish(run: Path, summary: RunSummary) -> None:
    """Record how the run ended."""
    write(run / "run.json", summary)


def find(base: Path, name: str | None = None) -> RunSummary:
    """Return the summary of a run by its name, or of the latest one.

    Raises:
        NotFoundError: there is no such run.
    """
    found = sorted((base / "runs").glob("*/run.json"))  # names begin with the time of their start
    if name:
        found = [path for path in found if path.parent.name == name]
    if not found:
        wanted = f"run {name!r}" if name else "finished run"
        raise NotFoundError(f"There is no {wanted} in {base / 'runs'}. `modelyard run` makes one.")
    return read(found[-1], RunSummary)


def scores(evaluation: Path, outcome: Outcome | None, folder: Path) -> dict[str, Any]:
    """Return the part of a run's summary with the decision and the metrics; put the report into its folder.

    Args:
        evaluation: evaluate's folder; the report is beside it.
        outcome: deploy's, if it ran.
        folder: the run's.
    """
    decision = read(evaluation / "decision.json", Decision)
    metrics = read(evaluation / "metrics.json", Metrics)
    return {
        "version": outcome.version if outcome else None,
        "decision": outcome.decision if outcome else decision.decision,
        "reason": outcome.reason if outcome else decision.reason,
        "metrics": MetricsSummary(
            accuracy=metrics.accuracy.value,
            accuracy_interval=(metrics.accuracy.low, metrics.accuracy.high),
            rows=metrics.rows,
            gain=metrics.gain,
        ),
        "report": str(shutil.copyfile(evaluation.parent / "report", folder / "report.html")),
    }


def _dead(base: Path) -> list[Path]:
    """Return the runs that ended without clearing up: their scratch is there, their lifeline is free."""
    scratches = (base / "runs").glob("*/scratch")
    return [path.parent for path in scratches if not lifeline.held(path.parent / "lifeline")]


def _clear(run: Path) -> None:
    for partial in (run / "artifacts").rglob("*.partial"):
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(run / "scratch", ignore_errors=True)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables, which the steps inherit, for as long as the block lasts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
