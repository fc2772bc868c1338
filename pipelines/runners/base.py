"""The interface of the runners: runners, runs and their summaries.

    runner = select.local_runner("local", environment)
    run = runner.start(config, options)
    summary = run.result()                      # meanwhile run.steps() and run.events() show the progress
    runner.open("20261124-091502-3f9a").logs()

Three packages implement it: local, pods and kfp. `select` chooses one.
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
"""Arguments of the pipeline that are not in the configuration: `skip_unchanged`, `force_after`."""
LogLines = Iterator[tuple[str, Iterator[str]]]
"""The attempts of the steps that have started, each with its log lines."""


class Step(Record):
    """The state of a step; `seconds` is its wall time."""

    name: str
    state: State
    seconds: float
    cached: bool


class EvaluationSummary(Metrics):
    """The metrics without details; `compared_with` is the version of the champion."""

    compared_with: int | None = None


class Failure(Record):
    """Why a run failed: the error's class and message, the step and its log file."""

    kind: str
    message: str
    exit_code: int
    step: str | None
    log: str | None

    @classmethod
    def of(
        cls, found: Exception | records.Failure, step: str | None = None, log: Path | None = None
    ) -> "Failure":
        """Return the failure for an error, or for the record that a step wrote."""
        record = records.Failure.from_error(found) if isinstance(found, Exception) else found
        told = record.model_dump(include={"kind", "message", "exit_code"})
        return cls(**told, step=step, log=str(log) if log else None)


class RunSummary(Record):
    """The result of a run, as text or as JSON.

    `run` is the name of the run. `fingerprint` identifies data, configuration and code: equal fingerprints
    give the same version. `version` is None when nothing was published; `champion` is the champion at the
    end. A run that ends early because of `skip_unchanged` has the decision `unchanged` and neither metrics
    nor report. `uses` names the runs whose artifacts came from the cache. `resumed_after` is the epoch of
    the checkpoint from which training resumed; on Kubeflow Pipelines it is known only if a version was
    published. `metrics` are for
    scripts: each metric by its name, its 95 % interval as `<name>_interval`, the number of test examples as
    `rows`, and the `gain` over the champion if there is one; `evaluation` has all that was measured.
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
    """One run, as in `runs list`.

    `id` is the name, or the ID on KFP. `data` is the source or the kind of the data. `started` is an ISO
    8601 time in UTC; `seconds` count until now when the run has not ended. Unknown values are None.
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
        """Return a copy with the known parts of the result."""
        known: dict[str, Any] = {"decision": decision, "version": version}
        if metrics:
            known |= {"metric": metrics.primary, "value": metrics.primary_metric.value}
        return self.model_copy(update=known)


class Run(ABC):
    """One run on any runner.

    Attributes:
        name: its name.
        folder: its folder on this machine, which may not exist.
        environment: the environment of its steps.
    """

    name: str
    folder: Path
    environment: "Environment"

    plan_key: str | None = None
    """The key of its plan; None when it is not known."""

    in_this_process: bool = False
    """Whether this process executes the run, when `result` is called."""

    @property
    @abstractmethod
    def last_line(self) -> str:
        """The last log line of the running step; empty when it is not known."""

    @abstractmethod
    def info(self) -> RunInfo:
        """Return the summary for `runs list`."""

    @abstractmethod
    def steps(self) -> tuple[Step, ...]:
        """Return the last known state of every step."""

    @abstractmethod
    def events(self) -> Sequence[Event]:
        """Return all events so far, in order."""

    @abstractmethod
    def result(self, leave_stuck: bool = False) -> RunSummary:
        """Wait for the end of the run and return the result; execute it if this process started it.

        Args:
            leave_stuck: do not cancel a run on a server when one of its pods cannot start.

        Raises:
            ModelyardError: the run cannot be followed to its end. Its own failure is in the result, not
                raised.
        """

    def failure(self) -> Failure | None:
        """Return why it failed or was cancelled, if this machine has a record."""
        summary = read_summary(self.folder)
        return summary.failure if summary else None

    @abstractmethod
    def logs(self, steps: Sequence[str], follow: bool = False) -> LogLines:
        """Return the logs of steps.

        Args:
            steps: names of the steps.
            follow: wait for new lines until the run or the steps have ended.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Cancel the run; published versions are kept.

        Raises:
            ModelyardError: it has ended, or cannot be cancelled from this machine.
        """

    @abstractmethod
    def retry(self) -> "Run":
        """Retry the steps that did not succeed, and return the run; finished steps are cached.

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
        """Return the effect of Ctrl-C on the run, and the command that continues or follows it."""


class Runner(ABC):
    """Starts and lists runs."""

    @abstractmethod
    def start(self, config: "Config", options: Options) -> Run:
        """Start a run.

        Args:
            config: the configuration; on a cluster, without files of this machine.
            options: arguments of the pipeline.

        Raises:
            ModelyardError: it cannot run in this environment.
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
            f"The run {name} has ended already ({state}). `modelyard runs list` shows active runs."
        )


def check_has_failed(name: str, state: str, command: str) -> None:
    """Raise ConfigError unless a run failed or was cancelled; `command` starts a new run."""
    if state not in ("failed", "cancelled"):
        raise ConfigError(
            f"The run {name} is {state}, and only a failed or cancelled run can be retried. Start a "
            f"new one with `modelyard {command}`: finished steps are cached."
        )


def read_summary(folder: Path) -> RunSummary | None:
    """Return the summary in a run's folder, if there is one."""
    return read(folder / "run.json", RunSummary) if (folder / "run.json").exists() else None


def steps_from_events(events: Iterable[Event], names: Iterable[str], now: float) -> tuple[Step, ...]:
    """Return the state of each step after events.

    Args:
        events: the events so far.
        names: names of the steps.
        now: the time, in epoch seconds.
    """
    steps = {name: Step(name=name, state="waiting", seconds=0.0, cached=False) for name in names}
    for event in events:
        if isinstance(event, StepChange) and event.step in steps:
            seconds = round(max(0.0, now - event.at), 3) if event.state == "running" else event.seconds
            fields = {"name": event.step, "state": event.state, "cached": event.cached}
            steps[event.step] = Step.model_validate({**fields, "seconds": seconds})
    return tuple(steps.values())
