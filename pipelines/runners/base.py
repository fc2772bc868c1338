"""Where a run executes: the interface of the runners, and what each of them tells of a run.

    runner = select.local_runner("local", environment)
    run = runner.start(config, options)
    summary = run.result()                      # meanwhile run.steps() and run.events() show how it goes
    runner.open("20261124-091502-3f9a").logs()

Three packages implement it: local, pods and kfp. `select` alone knows which is for what.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from modelyard.components import records
from modelyard.components.artifacts import (
    Interval,
    Metrics,
    Prediction,
    Record,
    Rule,
    read,
)
from modelyard.components.errors import ConfigError
from modelyard.components.events import Event, StepChange
from modelyard.components.explain.explanation import Explanation

if TYPE_CHECKING:
    from modelyard.pipelines.config.config import Config
    from modelyard.pipelines.environments.environment import Environment

State = Literal["waiting", "running", "succeeded", "failed", "skipped"]
ENDED = ("succeeded", "failed", "cancelled", "skipped")
RunnerName = Literal["local", "pods", "kfp"]
Options = Mapping[str, bool | int]
"""Arguments of the pipeline that no configuration has: `skip_unchanged`, `force_after`."""
LogLines = Iterator[tuple[str, Iterator[str]]]
"""The steps that have begun, each attempt by itself, with the lines that it wrote."""


class Step(Record):
    """How one step went; `seconds` is its wall time."""

    name: str
    state: State
    seconds: float
    cached: bool


class EvaluationSummary(Metrics):
    """What was measured, without the details; `compared_with` is the version that was champion."""

    compared_with: int | None = None


class Failure(Record):
    """Why a run failed: the error's class, its paragraph, the step and its log."""

    kind: str
    message: str
    exit_code: int
    step: str | None
    log: str | None

    @classmethod
    def of(
        cls, found: Exception | records.Failure, step: str | None = None, log: Path | None = None
    ) -> "Failure":
        """Return how an error, or the record that a step left of one, is told."""
        record = records.Failure.of(found) if isinstance(found, Exception) else found
        told = record.model_dump(include={"kind", "message", "exit_code"})
        return cls(**told, step=step, log=str(log) if log else None)


class RunSummary(Record):
    """The result of a run, as text or as JSON.

    `run` names this run, `fingerprint` what it made: the same data, config and code give the same version.
    `version` is None when nothing was published; `champion` is the version in force in the end. A run that
    was asked to skip what is unchanged, and did, has the decision `unchanged` and neither metrics nor report.
    `uses` names the runs whose artifacts came from the cache. `resumed_after` is the epoch of the checkpoint
    from which training went on, on Kubeflow Pipelines of a version alone. `metrics` are the numbers that a
    script asks for: each metric by its name, its 95 % interval as `<name>_interval`, the number of test
    `rows`, and the `gain` over the champion if there is one; `evaluation` has them with everything else that
    was measured.
    """

    run: str
    model: str
    state: Literal["succeeded", "failed", "cancelled"]
    fingerprint: str | None = None
    version: int | None = None
    champion: int | None = None
    decision: Literal["promote", "hold", "reject", "unchanged"] | None = None
    reason: str | None = None
    rules: tuple[Rule, ...] = ()
    notes: tuple[str, ...] = ()
    metrics: dict[str, float | int | tuple[float, float] | Interval | None] | None = None
    evaluation: EvaluationSummary | None = None
    steps: tuple[Step, ...]
    seconds: float
    report: str | None = None
    store: str
    uses: tuple[str, ...] = ()
    resumed_after: int | None = None
    prediction: Prediction | None = None
    failure: Failure | None = None


class RunInfo(Record):
    """A run in short, as `runs list` shows it.

    `id` is how its runner knows it: the name, or KFP's id. `data` is the source, or the kind of the data.
    `started` is an ISO 8601 time in UTC; `seconds` count until now when the run has not ended. What is not
    known, as the decision of a run that is running, is None.
    """

    name: str
    id: str
    runner: RunnerName
    environment: str
    model: str | None
    state: str
    started: str
    seconds: float | None
    data: str | None = None
    decision: str | None = None
    metric: str | None = None
    value: float | None = None
    version: int | None = None
    schedule: str | None = None

    def with_result(self, decision: str | None, version: int | None, metrics: Metrics | None) -> "RunInfo":
        """Return it with a result, as far as it is known."""
        known: dict[str, Any] = {"decision": decision, "version": version}
        if metrics:
            known |= {"metric": metrics.primary, "value": metrics.main.value}
        return self.model_copy(update=known)


class Run(ABC):
    """One run, wherever it executes.

    Attributes:
        name: its name.
        folder: where this machine keeps what it knows of the run; it may not be there.
        environment: where its steps run.
    """

    name: str
    folder: Path
    environment: "Environment"

    plan_key: str | None = None
    """What connects it with its plan; None when that is not known."""

    in_this_process: bool = False
    """Whether this process executes the run, when `result` is called."""

    @property
    @abstractmethod
    def last_line(self) -> str:
        """The last line that the running step wrote, for a person who waits; empty when that is not known."""

    @abstractmethod
    def info(self) -> RunInfo:
        """Return the run in short."""

    @abstractmethod
    def steps(self) -> tuple[Step, ...]:
        """Return the state of every step, as it was last seen."""

    @abstractmethod
    def events(self) -> Sequence[Event]:
        """Return what has happened so far, in order; the list only grows."""

    @abstractmethod
    def result(self, leave_stuck: bool = False) -> RunSummary:
        """Return the result when the run has ended; a run that `start` began here, this call executes.

        Args:
            leave_stuck: do not cancel it when one of its pods cannot start, where a server leads it.

        Raises:
            ModelyardError: the run cannot be followed to its end. How it failed is in the result, not raised.
        """

    def failure(self) -> Failure | None:
        """Return why it failed, or was cancelled, if that is recorded on this machine."""
        summary = read_summary(self.folder)
        return summary.failure if summary else None

    @abstractmethod
    def logs(self, steps: Sequence[str], follow: bool = False) -> LogLines:
        """Return what the steps wrote.

        Args:
            steps: whose.
            follow: go on with what comes, until the run or the steps have ended.
        """

    @abstractmethod
    def cancel(self) -> None:
        """End the run; what it has published stays.

        Raises:
            ModelyardError: it has ended, or cannot be ended from here; the message says what to do.
        """

    @abstractmethod
    def retry(self) -> "Run":
        """Start again what has not succeeded, and return the run that does: what is done is cached.

        Raises:
            ModelyardError: it has not failed.
        """

    @abstractmethod
    def explain(self) -> Explanation:
        """Return how the run ended and why, or that it is running."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return its configuration, nested as in the file."""

    @abstractmethod
    def interrupt_message(self) -> str:
        """Return what Ctrl-C does to the run, and the command that goes on with it."""


class Runner(ABC):
    """Where runs execute."""

    @abstractmethod
    def start(self, config: "Config", options: Options) -> Run:
        """Start a run.

        Args:
            config: the configuration; for a cluster it names no files of this machine.
            options: arguments of the pipeline.

        Raises:
            ModelyardError: it cannot run there.
        """

    @abstractmethod
    def list(self, model: str | None = None, limit: int = 20) -> Sequence[RunInfo]:
        """Return the latest runs, newest first.

        Args:
            model: only runs of this model.
            limit: maximum number of runs.
        """

    @abstractmethod
    def open(self, name: str) -> Run:
        """Return a run by its name, or by its id.

        Raises:
            NotFoundError: there is none.
        """


def check_not_ended(name: str, state: str) -> None:
    """Raise ConfigError when a run has ended."""
    if state in ENDED:
        raise ConfigError(
            f"The run {name} has ended already ({state}). `modelyard runs list` shows the runs that have not."
        )


def check_has_failed(name: str, state: str, again: str) -> None:
    """Raise ConfigError unless a run failed or was cancelled; `again` is the command that starts another."""
    if state not in ("failed", "cancelled"):
        raise ConfigError(
            f"The run {name} is {state}, and only a failed or cancelled run can be retried. `modelyard "
            f"{again}` starts another: what is done is cached."
        )


def read_summary(folder: Path) -> RunSummary | None:
    """Return the summary that is in a run's folder, if one is."""
    return read(folder / "run.json", RunSummary) if (folder / "run.json").exists() else None


def steps_from_events(events: Iterable[Event], names: Iterable[str], now: float) -> tuple[Step, ...]:
    """Return the state of each step after some events.

    Args:
        events: what has happened.
        names: of the steps.
        now: epoch seconds.
    """
    steps = {name: Step(name=name, state="waiting", seconds=0.0, cached=False) for name in names}
    for event in events:
        if isinstance(event, StepChange) and event.step in steps:
            seconds = round(max(0.0, now - event.at), 3) if event.state == "running" else event.seconds
            fields = {"name": event.step, "state": event.state, "cached": event.cached}
            steps[event.step] = Step.model_validate({**fields, "seconds": seconds})
    return tuple(steps.values())
