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
    """Submits runs to a server of Kubeflow Pipelines, and finds those that are there.

    Attributes:
        name: the environment's name.
        environment: where the steps run.
        endpoint: the URL of the server on the command line.
        namespace: where it is installed, on the command line.
    """

    name: str
    environment: Environment
    endpoint: str | None = None
    namespace: str | None = None

    @cached_property
    def backend(self) -> Backend:
        """The server, after it has answered one request.

        Raises:
            BackendError: it does not answer.
        """
        return connect(self.environment, self.endpoint)

    def start(self, config: "Config", options: Options) -> "KfpRun":
        """Upload what the server does not have, and start a run."""
        return self.submit(submission.prepare(config, self.environment, options))

    def submit(
        self, prepared: submission.Submission, found: submission.ExistingObjects | None = None
    ) -> "KfpRun":
        """Do the same with what `submission.prepare` returned, and with what the server had a moment ago."""
        return KfpRun(self, submission.submit(self.backend, prepared, found))

    def list(self, model: str | None = None, limit: int = 20) -> Sequence[RunInfo]:
        """Return the latest runs, newest first."""
        found = [KfpRun(self, run) for run in runs.list_runs(self.backend, model, limit)]
        with ThreadPoolExecutor(CONNECTIONS) as readers:  # of what the store has of each
            return tuple(readers.map(KfpRun.info, found))

    def open(self, name: str) -> "KfpRun":
        """Return a run by its id, or the latest of its name."""
        return KfpRun(self, runs.find_run(self.backend, name))


class KfpRun(Run):
    """A run on Kubeflow Pipelines; `id` is the server's."""

    def __init__(self, runner: KfpRunner, run: Any) -> None:
        self.name, self.folder = run.display_name, run_folder.kfp_run_folder(run.display_name)
        self.environment = runner.environment
        self.id = str(run.run_id)
        self._runner, self._run = runner, run
        self._seen = False

    @cached_property
    def _follower(self) -> RunFollower:
        return RunFollower(self._runner.backend, self._run, self._runner.environment)

    @property
    def last_line(self) -> str:
        """The last line of the running step."""
        return self._follower.last_line

    def info(self) -> RunInfo:
        """Return the run in short, with what its steps recorded in the model store, if that can be read."""
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
        found = self._recorded()[1] if info.state == "succeeded" else RunRecords()
        decision, _ = found.final_decision() or (None, None)
        version = found.outcome.outcome.version if found.outcome else None
        return info.with_result(decision, version, found.decision.metrics if found.decision else None)

    def steps(self) -> tuple[Step, ...]:
        """Return the state of every step; the first call asks the server."""
        if not self._seen:
            self._refresh()
        return self._follower.steps()

    def events(self) -> Sequence[Event]:
        """Return what was seen to happen since `result` was called."""
        return self._follower.events

    def result(self, leave_stuck: bool = False) -> RunSummary:
        """Follow the run to its end.

        Raises:
            BackendError: the server does not answer any more; the run goes on.
        """
        self._seen, self._follower.leave_stuck = True, leave_stuck
        try:
            return run_folder.add_facts(self._follower(), self.info())
        except BackendError as error:
            raise BackendError(
                f"{error} The run {self.name} goes on. Follow it: {self.follow_command()}"
            ) from error

    def logs(self, steps: Sequence[str], follow: bool = False) -> LogLines:
        """Yield every attempt of the steps that has begun, with its lines."""
        return runs.RunArchive(self._runner.backend, self.id).logs(steps, follow)

    def cancel(self) -> None:
        """End the run; its exit task does not run then."""
        runs.cancel(self._runner.backend, self._run)

    def retry(self) -> "KfpRun":
        """Start the failed steps of the run again; it stays the same run."""
        check_has_failed(self.name, runs.state(self._run), "submit")
        self._runner.backend.runs.run_service_retry_run(self.id)
        return self._runner.open(self.id)

    def explain(self) -> Explanation:
        """Return how it ended, also when its pods are gone, or that it is running."""
        model, found = self._recorded()
        end, state = found.end, runs.state(self._run)
        if end and end.state == state and end.ended >= runs.last_start_time(self._run):
            return Explanation(self.name, model, end.state, end.step, end.kind, end.text)
        archive, decided = runs.RunArchive(self._runner.backend, self.id), found.final_decision()
        return kfp_run.explain(self.name, model, archive, decision=": ".join(decided or ()))

    def config(self) -> dict[str, Any]:
        """Return its configuration; empty when another program started it."""
        parameters = (self._run.runtime_config.parameters if self._run.runtime_config else None) or {}
        return dict(deploy_spec(parameters).get("config", {}))

    def interrupt_message(self) -> str:
        """Return what Ctrl-C does to the run, and the command that follows it on the same server."""
        return f"Ctrl-C does not end the run {self.name}. Follow it: {self.follow_command()}"

    def follow_command(self) -> str:
        """Return the command that follows the run."""
        runner = self._runner
        given = {"--endpoint": runner.endpoint, "--namespace": runner.namespace}
        options = (word for option, value in given.items() if value for word in (option, value))
        return shlex.join(["modelyard", "runs", "show", self.name, "-e", runner.name, "--wait", *options])

    def _recorded(self) -> tuple[str | None, RunRecords]:
        """Return the model's name, and what the steps recorded in the store, as far as it can be read."""
        model, found = None, RunRecords()
        with suppress(BackendError, StoreError):  # it is no run of modelyard's, or its store does not answer
            model, store = runs.model_and_store(self._run, self.environment)
            found = records.read_run(open_objects(store), model, self.id)
        return model, found

    def _refresh(self) -> None:
        self._follower.refresh()
        self._run, self._seen = self._follower.run, True
