"""Runs on Kubeflow Pipelines: the server executes them, with or without this machine."""

import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from modelyard.components import records
from modelyard.components.errors import BackendError, StoreError
from modelyard.components.events import Event
from modelyard.components.explain import kfp_run
from modelyard.components.explain.explanation import Explanation
from modelyard.components.records import RunRecords
from modelyard.components.store.objects import CONNECTIONS
from modelyard.components.store.storage import open_objects
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import (
    LogLines,
    Options,
    Run,
    RunInfo,
    Runner,
    RunSummary,
    Step,
    check_has_failed,
)
from modelyard.pipelines.runners.kfp import runs, submission
from modelyard.pipelines.runners.kfp.client import Backend, connect
from modelyard.pipelines.runners.kfp.follower import RunFollower
from modelyard.pipelines.steps import deploy_spec

if TYPE_CHECKING:
    from modelyard.pipelines.config.config import Config


@dataclass(frozen=True)
class KfpRunner(Runner):
    """Submits runs to a server of Kubeflow Pipelines, and lists its runs.

    Attributes:
        name: the name of the environment.
        environment: the environment of the steps.
        endpoint: the URL of the server on the command line.
        namespace: the namespace of the server on the command line.
    """

    name: str
    environment: Environment
    endpoint: str | None = None
    namespace: str | None = None

    @cached_property
    def backend(self) -> Backend:
        """The server, after a health check.

        Raises:
            BackendError: the server does not answer.
        """
        return connect(self.environment, self.endpoint)

    def start(self, config: "Config", options: Options) -> "KfpRun":
        """Upload the missing pipeline, version and experiment, and start a run."""
        return self.submit(submission.prepare(config, self.environment, options))

    def submit(
        self, prepared: submission.Submission, existing: submission.ExistingObjects | None = None
    ) -> "KfpRun":
        """Start a run of a submission; see `submission.submit`."""
        return KfpRun(self, submission.submit(self.backend, prepared, existing))

    def list(self, model: str | None = None, limit: int = 20) -> Sequence[RunInfo]:
        """Return the latest runs, newest first."""
        listed = [KfpRun(self, run) for run in runs.list_runs(self.backend, model, limit)]
        with ThreadPoolExecutor(CONNECTIONS) as threads:  # each reads the records of a run in the store
            return tuple(threads.map(KfpRun.info, listed))

    def open(self, name: str) -> "KfpRun":
        """Return a run by its ID, or the latest run with its name."""
        return KfpRun(self, runs.find_run(self.backend, name))


class KfpRun(Run):
    """A run on Kubeflow Pipelines; `id` is its ID on the server."""

    def __init__(self, runner: KfpRunner, run: Any) -> None:
        self.name, self.folder = run.display_name, run_folder.kfp_run_folder(run.display_name)
        self.environment = runner.environment
        self.id = str(run.run_id)
        self._runner, self._run = runner, run
        self._refreshed = False

    @cached_property
    def _follower(self) -> RunFollower:
        return RunFollower(self._runner.backend, self._run, self._runner.environment)

    @property
    def last_line(self) -> str:
        """The last log line of the running step."""
        return self._follower.last_line

    def info(self) -> RunInfo:
        """Return the summary for `runs list`, with the records in the model store if it can be read."""
        run, config = self._run, self.config()
        data = config.get("data", {})
        info = RunInfo(
            name=run.display_name,
            id=self.id,
            runner="kfp",
            environment=self._runner.name,
            model=config.get("name"),
            state=runs.state(run),
            started=run.created_at.isoformat(timespec="seconds"),
            seconds=runs.duration(run),
            data=data.get("source") or data.get("kind"),
            schedule=run.recurring_run_id or None,
        )
        run_records = self._read_records()[1] if info.state == "succeeded" else RunRecords()
        decision, _ = run_records.final_decision() or (None, None)
        version = run_records.outcome.outcome.version if run_records.outcome else None
        metrics = run_records.decision.metrics if run_records.decision else None
        return info.with_result(decision, version, metrics)

    def steps(self) -> tuple[Step, ...]:
        """Return the last known state of every step; the first call requests it from the server."""
        if not self._refreshed:
            self._follower.refresh()
            self._run, self._refreshed = self._follower.run, True
        return self._follower.steps()

    def events(self) -> Sequence[Event]:
        """Return the events since `result` was called."""
        return self._follower.events

    def result(self, leave_stuck: bool = False) -> RunSummary:
        """Follow the run to its end.

        Raises:
            BackendError: the server does not answer; the run continues.
        """
        self._refreshed, self._follower.leave_stuck = True, leave_stuck
        try:
            return run_folder.add_facts(self._follower.follow(), self.info())
        except BackendError as error:
            raise BackendError(
                f"{error} The run {self.name} continues. Follow it: {self.follow_command()}"
            ) from error

    def logs(self, steps: Sequence[str], follow: bool = False) -> LogLines:
        """Yield the started attempts of the steps with their log lines."""
        return runs.RunArchive(self._runner.backend, self.id).logs(steps, follow)

    def cancel(self) -> None:
        """Cancel the run; its exit task does not run."""
        runs.cancel(self._runner.backend, self._run)

    def retry(self) -> "KfpRun":
        """Retry the failed steps in the same run."""
        check_has_failed(self.name, runs.state(self._run), "submit")
        self._runner.backend.runs.run_service_retry_run(self.id)
        return self._runner.open(self.id)

    def explain(self) -> Explanation:
        """Return how the run ended and why, or that it is running; pods may be deleted."""
        model, run_records = self._read_records()
        end, state = run_records.end, runs.state(self._run)
        if end and end.state == state and end.ended >= runs.last_start_time(self._run):
            return Explanation(self.name, model, end.state, end.step, end.kind, end.text)
        archive = runs.RunArchive(self._runner.backend, self.id)
        return kfp_run.explain(
            self.name, model, archive, decision=": ".join(run_records.final_decision() or ())
        )

    def config(self) -> dict[str, Any]:
        """Return the configuration; empty when modelyard did not start the run."""
        return dict(deploy_spec(runs.run_parameters(self._run)).get("config", {}))

    def interrupt_message(self) -> str:
        """Return the effect of Ctrl-C on the run, and the command that follows it."""
        return f"Ctrl-C does not end the run {self.name}. Follow it: {self.follow_command()}"

    def follow_command(self) -> str:
        """Return the command that follows the run."""
        runner = self._runner
        values = {"--endpoint": runner.endpoint, "--namespace": runner.namespace}
        options = (word for option, value in values.items() if value for word in (option, value))
        return shlex.join(["modelyard", "runs", "show", self.name, "-e", runner.name, "--wait", *options])

    def _read_records(self) -> tuple[str | None, RunRecords]:
        """Return the model and the records in its store, as far as they can be read."""
        model, run_records = None, RunRecords()
        with suppress(BackendError, StoreError):  # modelyard did not start it, or the store does not answer
            model, store = runs.model_and_store(self._run, self.environment)
            run_records = records.read_run(open_objects(store), model, self.id)
        return model, run_records
