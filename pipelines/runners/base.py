"""The interface of the runners: runners, runs and summaries of runs.

    runner = select.create_local_runner("local", environment)
    run = runner.start(config, options)
    summary = run.result()  # run.steps() and run.events() show the progress
    runner.open("20261124-091502-3f9a").logs(["train"])

Three packages implement it: local, pods and kfp. `select` chooses one.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from modelyard.components import records
from modelyard.components.artifacts import Interval, Metrics, Prediction, Record, Rule, read
from modelyard.components.errors import ConfigError
from modelyard.components.events import Event, StepChange
from modelyard.components.explain.explanation import Explanation
from modelyard.pipelines.steps import STEPS

if TYPE_CHECKING:
    from modelyard.pipelines.config.config import Config
    from modelyard.pipelines.environments.environment import Environment

State = Literal["waiting", "running", "succeeded", "failed", "skipped"]
END_STATES = ("succeeded", "failed", "cancelled", "skipped")
RunnerName = Literal["local", "pods", "kfp"]
KFP_RUN_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
Options = Mapping[str, bool | int]
"""Arguments of the pipeline that are not in the configuration: `skip_unchanged`, `force_after`."""
LogLines = Iterator[tuple[str, Iterator[str]]]
"""Steps with their log lines, one item for each started attempt."""


class StepStatus(Record):
    """The state of a step; `seconds` is its wall time."""

    name: str
    state: State = "waiting"
    seconds: float = 0.0
    cached: bool = False


class EvaluationSummary(Metrics):
    """The metrics of evaluate without details; `compared_with` is the version of the champion."""

    compared_with: int | None = None


class RunFailure(Record):
    """Why a run failed: class, message and exit code of the error, the step and its log file."""

    kind: str
    message: str
    exit_code: int
    step: str | None
    log: str | None

    @classmethod
    def from_error(
        cls, error: Exception | records.Failure, step: str | None = None, log: Path | None = None
    ) -> "RunFailure":
        """Return the failure for an error, or for the record of an error."""
        record = records.Failure.from_error(error) if isinstance(error, Exception) else error
        fields = record.model_dump(include={"kind", "message", "exit_code"})
        return cls(**fields, step=step, log=str(log) if log else None)


class RunSummary(Record):
    """The result of a run.

    Attributes:
        run: the name of the run.
        model: the name of the model.
        state: how the run ended.
        fingerprint: identifies data, configuration and code; equal fingerprints give the same version.
        version: the published version; None if none was published.
        champion: the champion at the end of the run.
        decision: the decision of the gate; `unchanged` if the run ended early because of `skip_unchanged`,
            without metrics and report.
        reason: why the gate made this decision, or why the version was not promoted.
        rules: the rules of the gate with their results.
        notes: sentences about the decision, such as the effects of leakage.
        metrics: for scripts, each metric by its name, its 95 % interval as `<name>_interval`, the number of
            test examples as `examples`, and the `gain` over the champion if there is one.
        evaluation: all measurements of evaluate.
        steps: the state of each step.
        seconds: the wall time.
        report: the path of the report.
        store: the URL of the model store.
        reused_runs: the names of the runs whose artifacts came from the cache.
        resumed_after: the epoch of the checkpoint from which training resumed; on Kubeflow Pipelines, known
            only if a version was published.
        prediction: a prediction of the server of the champion.
        failure: why the run failed or was cancelled.
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
    steps: tuple[StepStatus, ...]
    seconds: float
    report: str | None = None
    store: str
    reused_runs: tuple[str, ...] = ()
    resumed_after: int | None = None
    prediction: Prediction | None = None
    failure: RunFailure | None = None


class RunInfo(Record):
    """One run in `runs list`.

    `id` is the ID on Kubeflow Pipelines, elsewhere the name. `data` is the source or the kind of the data.
    `started` is an ISO 8601 time in UTC; `seconds` is the duration so far. Unknown values are None.
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
        """Return a copy with the result."""
        update: dict[str, Any] = {"decision": decision, "version": version}
        if metrics:
            update |= {"metric": metrics.primary, "value": metrics.primary_metric.value}
        return self.model_copy(update=update)


class Run(ABC):
    """One run on any runner.

    Attributes:
        folder: its folder on this machine, which may not exist.
        environment: the environment of its steps.
        plan_key: the key of its plan, if known.
        in_this_process: whether `result` executes the run in this process.
    """

    name: str
    folder: Path
    environment: "Environment"
    plan_key: str | None = None
    in_this_process: bool = False

    @property
    @abstractmethod
    def last_line(self) -> str:
        """The last log line of the running step; empty if unknown."""

    @abstractmethod
    def info(self) -> RunInfo:
        """Return the summary for `runs list`."""

    @abstractmethod
    def steps(self) -> tuple[StepStatus, ...]:
        """Return the last known state of every step."""

    @abstractmethod
    def events(self) -> Sequence[Event]:
        """Return all events so far, in order."""

    @abstractmethod
    def result(self, leave_stuck: bool = False) -> RunSummary:
        """Wait for the end of the run and return the result; execute the run if this process started it.

        The failure of the run is in the result, not raised. With `leave_stuck`, a run on a server is not
        cancelled when one of its pods cannot start.

        Raises:
            ModelyardError: the run cannot be followed to its end.
        """

    def failure(self) -> RunFailure | None:
        """Return why the run failed or was cancelled, if this machine has a summary."""
        summary = read_summary(self.folder)
        return summary.failure if summary else None

    @abstractmethod
    def logs(self, steps: Sequence[str], follow: bool = False) -> LogLines:
        """Return the logs of steps; with `follow`, until the run or the steps have ended.

        Raises:
            ConfigError: there is no such step.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Cancel the run; published versions are kept.

        Raises:
            ModelyardError: the run has ended, or cannot be cancelled from this machine.
        """

    @abstractmethod
    def retry(self) -> "Run":
        """Retry the steps that did not succeed, and return the run; finished steps are cached.

        Raises:
            ModelyardError: the run has not failed.
        """

    @abstractmethod
    def explain(self) -> Explanation:
        """Return how the run ended and why, or that it is running."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return the configuration as nested sections."""

    @abstractmethod
    def interrupt_message(self) -> str:
        """Return the effect of Ctrl-C on the run, and the command that continues or follows it."""


class Runner(ABC):
    """Starts and lists runs."""

    @abstractmethod
    def start(self, config: "Config", options: Options) -> Run:
        """Start a run; on a cluster, the configuration must not name local files.

        Raises:
            ModelyardError: the configuration cannot run in this environment.
        """

    @abstractmethod
    def list(self, model: str | None = None, limit: int = 20) -> Sequence[RunInfo]:
        """Return the latest runs of a model, or of all models, newest first."""

    @abstractmethod
    def open(self, name: str) -> Run:
        """Return a run by its name or ID.

        Raises:
            NotFoundError: there is no such run.
        """


def check_steps(steps: Sequence[str]) -> None:
    """Raise ConfigError unless `steps` is a list of names of steps."""
    if isinstance(steps, str):
        raise ConfigError(f'The steps are {steps!r}, which is text. Pass a list such as ["train"].')
    for step in steps:
        if step not in STEPS:
            raise ConfigError(f"There is no step {step!r}. The steps are {', '.join(STEPS)}.")


def check_not_ended(name: str, state: str) -> None:
    """Raise ConfigError when a run has ended."""
    if state in END_STATES:
        raise ConfigError(
            f"The run {name} has already ended ({state}). `modelyard runs list` shows active runs."
        )


def check_has_failed(name: str, state: str, command: str) -> None:
    """Raise ConfigError unless a run failed or was cancelled; `command` starts a new run."""
    if state not in ("failed", "cancelled"):
        raise ConfigError(
            f"The state of the run {name} is {state}; only a failed or cancelled run can be retried. Start a "
            f"new run with `modelyard {command}`: finished steps are cached."
        )


def read_summary(folder: Path) -> RunSummary | None:
    """Return the summary in a run's folder, if there is one."""
    return read(folder / "run.json", RunSummary) if (folder / "run.json").exists() else None


def steps_from_events(events: Iterable[Event], names: Iterable[str], now: float) -> tuple[StepStatus, ...]:
    """Return the state of each step after events; `now` is in epoch seconds."""
    steps = {name: StepStatus(name=name) for name in names}
    for event in events:
        if isinstance(event, StepChange) and event.step in steps:
            seconds = round(max(0.0, now - event.at), 3) if event.state == "running" else event.seconds
            fields = {"name": event.step, "state": event.state, "cached": event.cached}
            steps[event.step] = StepStatus.model_validate({**fields, "seconds": seconds})
    return tuple(steps.values())
