"""Starts, lists, follows and cancels the runs of this machine.

The parent process of a run executes it. Other processes read the folder of the run:
`start.json` names the parent process, the lifeline is locked while it is alive, `events.jsonl` has the
progress, `run.json` the result.
"""

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

from modelyard.components import lifeline, records
from modelyard.components.artifacts import Record, read, write
from modelyard.components.errors import (
    CancelledError,
    ConfigError,
    DataError,
    KilledError,
    ModelyardError,
    NotFoundError,
)
from modelyard.components.events import Event, EventFile
from modelyard.components.explain.explanation import Explanation, create_explanation, describe_decision
from modelyard.components.machine import check_keras
from modelyard.components.signals import on_sigterm
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import (
    LogLines,
    Options,
    Run,
    RunFailure,
    RunInfo,
    Runner,
    RunnerName,
    RunSummary,
    StepStatus,
    check_has_failed,
    check_not_ended,
    check_steps,
    read_summary,
    steps_from_events,
)
from modelyard.pipelines.runners.results import add_facts_to_report
from modelyard.pipelines.steps import STEPS

if TYPE_CHECKING:
    from modelyard.pipelines.config.config import Config
    from modelyard.pipelines.runners.local.execution import LocalExecution

PAUSE = 0.2  # seconds between two polls of a run of another process
TERMINATION_TIMEOUT = 60.0  # seconds to wait for the parent process of a cancelled run


class StartRecord(Record):
    """The arguments of a run and its parent process (`start.json`).

    `environment` is the name of the environment, `settings` its content; `started` is ISO 8601 in UTC.
    """

    runner: RunnerName
    environment: str
    settings: Environment
    config: dict[str, Any]
    options: dict[str, bool | int]
    started: str
    host: str
    pid: int
    pid_start_time: str


class LocalRun(Run):
    """A run of this machine; with an `execution`, this process executes it until `exit_stack` is closed."""

    def __init__(
        self,
        runner: "LocalRunner",
        folder: Path,
        start: StartRecord,
        execution: "LocalExecution | None" = None,
        exit_stack: ExitStack | None = None,
    ) -> None:
        self.name, self.folder, self.environment = folder.name, folder, runner.environment
        self._runner, self._start, self._execution, self._exit_stack = runner, start, execution, exit_stack
        self.in_this_process = execution is not None
        self._events = EventFile(folder / run_folder.EVENTS)

    @property
    def last_line(self) -> str:
        """The last log line of the running step; empty if another process executes the run."""
        return self._execution.tasks.last_line if self._execution else ""

    def info(self) -> RunInfo:
        """Return the summary for `runs list`."""
        start, data = self._start, self._start.config.get("data", {})
        try:
            summary, state = self._summary(), "running"
        except DataError:  # another version of modelyard wrote it; other commands raise the error
            summary, state = None, "unreadable"
        info = RunInfo(
            name=self.name,
            id=self.name,
            runner=start.runner,
            environment=start.environment,
            model=start.config.get("name"),
            state=summary.state if summary else state,
            started=start.started,
            seconds=summary.seconds if summary else self._seconds(time.time()),
            data=data.get("source") or data.get("kind"),
        )
        return info.with_result(summary.decision, summary.version, summary.evaluation) if summary else info

    def steps(self) -> tuple[StepStatus, ...]:
        """Return the state of every step."""
        if self._execution:
            return self._execution.tasks.steps()
        summary = self._summary()
        return summary.steps if summary else steps_from_events(self.events(), STEPS, time.time())

    def events(self) -> Sequence[Event]:
        """Return all events so far."""
        return self._events.read()

    def result(self, leave_stuck: bool = False) -> RunSummary:  # noqa: ARG002 - only for runs on a server
        """Execute the run, or wait until its parent process has exited."""
        if self._execution and self._exit_stack:
            return self._execute(self._execution, self._exit_stack)
        while (summary := self._summary()) is None:
            time.sleep(PAUSE)
        return summary

    def logs(self, steps: Sequence[str], follow: bool = False) -> LogLines:
        """Return the steps that have a log, with its lines."""
        check_steps(steps)
        return self._read_logs(steps, follow)

    def _read_logs(self, steps: Sequence[str], follow: bool) -> LogLines:
        yielded_steps: set[str] = set()
        while True:
            is_alive = follow and self.is_alive()  # checked before the logs are read
            for step in steps:
                path = self.folder / "logs" / f"{step}.log"
                if step not in yielded_steps and path.exists():
                    yielded_steps.add(step)
                    yield step, self._read_lines(path, step, follow)
            if not is_alive or yielded_steps.issuperset(steps):
                return
            time.sleep(PAUSE)

    def cancel(self) -> None:
        """Cancel the run: send SIGTERM to its parent process and wait until it has exited.

        Raises:
            ConfigError: the run has ended, or was started on another machine.
            ModelyardError: the parent process does not exit.
        """
        if not self.on_this_host:
            raise ConfigError(
                f"The run {self.name} was started on the machine {self._start.host}, but this machine is "
                f"{socket.gethostname()}. Run `modelyard runs cancel {self.name}` on {self._start.host}."
            )
        check_not_ended(self.name, self.info().state)
        self._terminate_parent()

    def retry(self) -> Run:
        """Start a run with the same configuration; finished steps are cached.

        Raises:
            ConfigError: the run has not failed, or its configuration is no longer valid.
        """
        from modelyard.pipelines.config.config import Config

        check_has_failed(self.name, self.info().state, "run")
        config = Config.model_validate(self._start.config)
        self._runner.check()
        return self._runner.start(config, self._start.options)

    def explain(self) -> Explanation:
        """Return how the run ended and why, or that it is running."""
        model, summary = self._start.config.get("name"), self._summary()
        if summary is None:
            step = next((step.name for step in self.steps() if step.state == "running"), None)
            return create_explanation(self.name, model, "running", step)
        if failure := summary.failure:
            return create_explanation(
                self.name, model, summary.state, failure.step, failure.message, failure.kind
            )
        decision = describe_decision(summary.decision, summary.reason or "") if summary.decision else ""
        return create_explanation(self.name, model, "succeeded", None, decision)

    def config(self) -> dict[str, Any]:
        """Return the configuration."""
        return self._start.config

    def interrupt_message(self) -> str:
        """Return the effect of Ctrl-C on the run, and the command that continues or follows it."""
        if self._execution:
            return f"Ctrl-C cancelled the run {self.name}. {self._execution.resume_message()}"
        return (
            f"The run {self.name} continues in another process. Follow it with `modelyard runs show "
            f"{self.name} --wait`, or cancel it with `modelyard runs cancel {self.name}`."
        )

    @property
    def on_this_host(self) -> bool:
        """Whether the run was started on this machine; the folder may be on a shared disk."""
        return self._start.host == socket.gethostname()

    def is_alive(self) -> bool:
        """Return whether the parent process is alive."""
        return lifeline.is_held(self.folder / "lifeline")

    def failure(self) -> RunFailure | None:
        """Return why the run failed, was cancelled or was killed."""
        summary = self._summary()
        return summary.failure if summary else None

    def _summary(self) -> RunSummary | None:
        """Return the summary, also of a killed run; None while the parent process is alive."""
        is_alive = self.is_alive()  # checked before the summary is read
        return read_summary(self.folder) or (None if is_alive else self._summarize_killed_run())

    def _summarize_killed_run(self) -> RunSummary:
        """Return a summary for a run whose parent process was killed before it wrote one."""
        final_states = {"waiting": "skipped", "running": "failed"}
        last_change = max(path.stat().st_mtime for path in self.folder.iterdir())
        steps = [
            step.model_copy(update={"state": final_states.get(step.state, step.state)})
            for step in steps_from_events(self.events(), STEPS, last_change)
        ]
        failed_step = next((step.name for step in steps if step.state == "failed"), None)
        log = self.folder / "logs" / f"{failed_step}.log"
        cancelled = (self.folder / run_folder.CANCELLED).exists()
        cause = "was ended by `modelyard runs cancel`" if cancelled else "was killed, or the machine stopped,"
        error = (CancelledError if cancelled else KilledError)(
            f"The run {cause} before the summary was written. Retry it with `modelyard runs retry "
            f"{self.name}`: finished steps are cached."
        )
        return RunSummary(
            run=self.name,
            model=self._start.config["name"],
            state="cancelled" if cancelled else "failed",
            steps=tuple(steps),
            seconds=self._seconds(last_change),
            store=self._start.config["store"]["url"],
            failure=RunFailure.from_error(error, failed_step, log if log.exists() else None),
        )

    def _seconds(self, until: float) -> float:
        """Return the seconds from the start of the run to a time in epoch seconds."""
        return round(max(0.0, until - datetime.fromisoformat(self._start.started).timestamp()), 3)

    def _execute(self, execution: "LocalExecution", exit_stack: ExitStack) -> RunSummary:
        """Execute the run; Ctrl-C raises KeyboardInterrupt, SIGTERM returns the summary of the run."""
        terminated = threading.Event()

        def interrupt(*_: int | FrameType | None) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            terminated.set()
            raise KeyboardInterrupt

        with on_sigterm(interrupt):
            try:
                with exit_stack:
                    summary = execution.execute()
                    add_facts_to_report(summary, self.info())
                    return summary
            except KeyboardInterrupt:
                with suppress(ModelyardError):  # the next run cleans up
                    execution.clean_up()  # the lifeline is released, so the processes of the run exit
                if terminated.is_set() and (written_summary := self._summary()):
                    return written_summary
                raise

    def _terminate_parent(self) -> None:
        """Send SIGTERM to the parent process, and wait until it has exited.

        First opens the process by its ID, then checks the lifeline: while the lifeline is held, the ID still
        belongs to the parent process. So no other process with this ID gets the signal.
        """
        pid, start_time = self._start.pid, self._start.pid_start_time
        descriptor = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        try:
            if not self.is_alive():
                return
            if process_start_time(pid) != start_time:
                raise ConfigError(
                    f"The run is active, but process {pid} of this machine does not execute it. If "
                    "`modelyard run` is in a container, cancel the run there."
                )
            (self.folder / run_folder.CANCELLED).touch()
            if descriptor is None:
                os.kill(pid, signal.SIGTERM)
            else:
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            deadline = time.monotonic() + TERMINATION_TIMEOUT
            while self.is_alive() or (start_time and process_start_time(pid) == start_time):
                if time.monotonic() > deadline:
                    raise ModelyardError(
                        f"The parent process of the run, {pid}, did not exit within "
                        f"{TERMINATION_TIMEOUT:g} s after SIGTERM. `kill -9 {pid}` kills it and "
                        "its steps; finished steps are cached."
                    )
                time.sleep(PAUSE / 4)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _read_lines(self, path: Path, step: str, follow: bool) -> Iterator[str]:
        with path.open(encoding="utf-8", errors="replace") as file:
            while True:
                states = {status.name: status.state for status in self.steps()} if follow else {}
                is_running = self.is_alive() and states.get(step) == "running"
                yield from (line.rstrip("\n") for line in file)
                if not is_running:
                    return
                time.sleep(PAUSE)


class LocalRunner(Runner):
    """Executes runs with processes of this machine as steps; `home` is the folder of runs and cache."""

    kind: ClassVar[RunnerName] = "local"
    run_class: ClassVar[type[LocalRun]] = LocalRun

    def __init__(self, name: str, environment: Environment, home: Path) -> None:
        self.name, self.environment, self.home = name, environment, home

    def check(self) -> None:
        """Check that a run can start.

        Raises:
            ConfigError: KERAS_BACKEND or keras.json is not usable.
            ClusterError: the cluster does not respond, or denies permission.
        """
        check_keras()

    def start(self, config: "Config", options: Options) -> LocalRun:
        """Create the folder of a run; `result` of the run executes it."""
        exit_stack = ExitStack()
        folder = exit_stack.enter_context(run_folder.create(self.home))
        start = StartRecord(
            runner=self.kind,
            environment=self.name,
            settings=self.environment,
            config=config.model_dump(mode="json"),
            options=dict(options),
            started=records.now(),
            host=socket.gethostname(),
            pid=os.getpid(),
            pid_start_time=process_start_time(os.getpid()),
        )
        try:
            execution = self._create_execution(config, folder, options)
        except BaseException:
            exit_stack.close()
            shutil.rmtree(folder)
            raise
        write(folder / run_folder.START, start)
        return self.run_class(self, folder, start, execution, exit_stack)

    def list(self, model: str | None = None, limit: int = 20) -> Sequence[RunInfo]:
        """Return the latest runs of this machine in this environment, newest first."""
        infos = (
            self.run_class(self, folder, start).info()
            for folder, start in list_start_records(self.home)
            if self._matches(start)
        )
        return list(islice((info for info in infos if model in (None, info.model)), limit))

    def open(self, name: str) -> LocalRun:
        """Return a run of this machine by its name."""
        folder = self.home / "runs" / name
        if run_folder.NAME.fullmatch(name) and (start := read_start_record(folder)) and self._matches(start):
            return self.run_class(self, folder, start)
        raise NotFoundError(
            f"There is no run {name!r} of the environment {self.name} in {self.home / 'runs'}. `modelyard "
            "runs list` shows the runs of this machine; MODELYARD_HOME sets another folder."
        )

    def _matches(self, start: StartRecord) -> bool:
        return (start.runner, start.environment) == (self.kind, self.name)

    def _create_execution(self, config: "Config", folder: Path, options: Options) -> "LocalExecution":
        from modelyard.pipelines.runners.local.execution import LocalExecution  # imports kfp

        return LocalExecution(config, folder, self.environment, options)


def list_start_records(
    home: Path, warn: Callable[[str], None] = lambda _: None
) -> Sequence[tuple[Path, StartRecord]]:
    """Return the folder and the start record of each run of this machine, newest first.

    `warn` receives a message for each run whose `start.json` cannot be read.
    """
    starts = []
    for folder in (home / "runs").glob("*"):
        try:
            if run_folder.NAME.fullmatch(folder.name) and (start := read_start_record(folder)):
                starts.append((folder, start))
        except (DataError, OSError) as error:
            warn(f"the run {folder.name} is not shown: {error}")
    return sorted(starts, key=lambda item: (item[1].started, item[0].name), reverse=True)


def read_start_record(folder: Path) -> StartRecord | None:
    """Return the `start.json` of a folder; None when this machine did not start the run."""
    return read(folder / run_folder.START, StartRecord) if (folder / run_folder.START).is_file() else None


def process_start_time(pid: int) -> str:
    """Return the start of a process in ticks since boot, which distinguishes processes with the same ID.

    Empty when the process has ended, or without /proc.
    """
    with suppress(OSError):
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state == "Z" else rest[18]
    return ""
