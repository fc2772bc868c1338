"""Runs on Kubeflow Pipelines: the server executes them, with or without this machine.

Steps and failures of a run come from its Workflow, because the API v2beta1 has only the state of the run.
Kubeflow Pipelines never ends a run with a pod that cannot start; `KfpRun.result` cancels such a run.
"""

import shlex
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any

from modelyard.components import records
from modelyard.components.artifacts import UNCHANGED, History
from modelyard.components.errors import (
    BackendError,
    CancelledError,
    ClusterError,
    NotFoundError,
    StoreError,
    StuckError,
)
from modelyard.components.events import Event, StepChange, Waiting, parse_all
from modelyard.components.explain import explanation, kfp_run
from modelyard.components.explain.exit_task import record_end
from modelyard.components.explain.explanation import EXIT_TASK, Explanation, describe_decision
from modelyard.components.explain.kfp_run import Evidence, StuckPod
from modelyard.components.explain.workflow import PodNode, Workflow
from modelyard.components.records import RunRecords
from modelyard.components.store import staging
from modelyard.components.store.models import open_store
from modelyard.components.store.objects import CONNECTIONS
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import open_objects
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import (
    END_STATES,
    LogLines,
    Options,
    Run,
    RunFailure,
    RunInfo,
    Runner,
    RunSummary,
    State,
    StepStatus,
    check_has_failed,
    check_steps,
)
from modelyard.pipelines.runners.kfp import runs, submission
from modelyard.pipelines.runners.kfp.client import Backend, connect
from modelyard.pipelines.runners.results import (
    add_facts_to_report,
    add_prediction,
    summarize_evaluation,
)
from modelyard.pipelines.serving.smoke_test import predict_on_cluster
from modelyard.pipelines.steps import STEPS, deploy_spec

if TYPE_CHECKING:
    from modelyard.pipelines.config.config import Config

HISTORY = "history.json"
PHASES: dict[str, State] = {
    "Pending": "running",
    "Running": "running",
    "Succeeded": "succeeded",
    "Failed": "failed",
    "Error": "failed",
}


@dataclass(frozen=True)
class KfpRunner(Runner):
    """Submits runs to a server of Kubeflow Pipelines, and lists its runs.

    `name` is the name of the environment; `endpoint` and `namespace` are options of the command line.
    """

    name: str
    environment: Environment
    endpoint: str | None = None
    namespace: str | None = None

    @cached_property
    def backend(self) -> Backend:
        """The server, after a health check."""
        return connect(self.environment, self.endpoint)

    def start(self, config: "Config", options: Options) -> "KfpRun":
        """Upload the missing pipeline, version and experiment, and start a run."""
        return self.submit(submission.prepare(config, self.environment, options))

    def submit(
        self, new_submission: submission.Submission, existing: submission.ExistingObjects | None = None
    ) -> "KfpRun":
        """Start a run of a submission; see `submission.submit`."""
        return KfpRun(self, submission.submit(self.backend, new_submission, existing))

    def list(self, model: str | None = None, limit: int = 20) -> Sequence[RunInfo]:
        """Return the latest runs, newest first."""
        kfp_runs = [KfpRun(self, run) for run in runs.list_runs(self.backend, model, limit)]
        with ThreadPoolExecutor(CONNECTIONS) as threads:  # each reads the records of a run in the store
            return tuple(threads.map(KfpRun.info, kfp_runs))

    def open(self, name: str) -> "KfpRun":
        """Return a run by its ID, or the latest run with its name."""
        return KfpRun(self, runs.find_run(self.backend, name))


class KfpRun(Run):
    """A run on Kubeflow Pipelines; `id` is its ID on the server."""

    last_line = ""

    def __init__(self, runner: KfpRunner, run: Any) -> None:
        self.name, self.folder = run.display_name, run_folder.kfp_run_folder(run.display_name)
        self.environment, self.id = runner.environment, str(run.run_id)
        self._runner, self._run = runner, run
        self._workflow = Workflow({"metadata": {"name": ""}})
        self._refreshed, self._leave_stuck = False, False
        self._steps: dict[str, StepStatus] = {}  # at the last event of each step
        self._events: list[Event] = []
        self._event_counts: dict[str, int] = {}  # events read from the log of each pod
        self._pending_step = ""  # whose pod cannot start
        self._pending_since = 0.0
        self._stuck_step: str | None = None
        self._next_log_time = 0.0

    @cached_property
    def _archive(self) -> runs.RunArchive:
        return runs.RunArchive(self._runner.backend, self.id)

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

    def steps(self) -> tuple[StepStatus, ...]:
        """Return the last known state of every step; the first call requests it from the server."""
        if not self._refreshed:
            self._refresh()
            self._refreshed = True
        return self._current_steps()

    def events(self) -> Sequence[Event]:
        """Return the events since `result` was called."""
        return self._events

    def result(self, leave_stuck: bool = False) -> RunSummary:
        """Wait for the end of the run; write its summary and return it. The summary includes the failure.

        Raises:
            BackendError: the server does not respond, or modelyard did not start the run.
            StoreError: the run succeeded, but its results cannot be read.
        """
        self._refreshed, self._leave_stuck = True, leave_stuck
        try:
            summary = self._follow()
            add_facts_to_report(summary, self.info())
        except BackendError as error:
            raise BackendError(
                f"{error} The run {self.name} continues. Follow it: {self.follow_command()}"
            ) from error
        return summary

    def logs(self, steps: Sequence[str], follow: bool = False) -> LogLines:
        """Return the started attempts of the steps with their log lines."""
        check_steps(steps)
        return self._archive.logs(steps, follow)

    def cancel(self) -> None:
        """Cancel the run; its exit task does not run."""
        runs.cancel(self._runner.backend, self._run)

    def retry(self) -> "KfpRun":
        """Retry the failed steps in the same run."""
        check_has_failed(self.name, runs.state(self._run), "submit")
        self._runner.backend.runs.run_service_retry_run(self.id)
        return self._runner.open(self.id)

    def explain(self) -> Explanation:
        """Return how the run ended and why, or that it is running; works without its pods."""
        model, run_records = self._read_records()
        end, state = run_records.end, runs.state(self._run)
        if end and end.state == state and end.ended >= runs.last_start_time(self._run):
            return Explanation(self.name, model, end.state, end.step, end.kind, end.text)
        decision = describe_decision(*record) if (record := run_records.final_decision()) else ""
        return kfp_run.explain(self.name, model, self._archive, decision=decision)

    def config(self) -> dict[str, Any]:
        """Return the configuration; empty when modelyard did not start the run."""
        return dict(deploy_spec(runs.run_parameters(self._run)).get("config", {}))

    def interrupt_message(self) -> str:
        """Return the effect of Ctrl-C on the run, and the command that follows it."""
        return f"Ctrl-C does not end the run {self.name}. Follow it: {self.follow_command()}"

    def follow_command(self) -> str:
        """Return the command that follows the run."""
        runner = self._runner
        command = ["modelyard", "runs", "show", self.name, "-e", runner.name, "--wait"]
        for option, value in (("--endpoint", runner.endpoint), ("--namespace", runner.namespace)):
            command += [option, value] if value else []
        return shlex.join(command)

    def _read_records(self) -> tuple[str | None, RunRecords]:
        """Return the model and the records in its store, as far as they can be read."""
        model, run_records = None, RunRecords()
        with suppress(BackendError, StoreError):  # modelyard did not start it, or the store does not respond
            model, store = runs.model_and_store(self._run, self.environment)
            run_records = records.read_run(open_objects(store), model, self.id)
        return model, run_records

    def _follow(self) -> RunSummary:
        model, store = runs.model_and_store(self._run, self.environment)
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        result: dict[str, Any]
        try:
            self._wait_for_end()
            if runs.state(self._run) == "failed":
                result = {"state": "failed", "failure": self._read_failure()}
            else:
                result = {"state": "succeeded", **self._create_result(model, store)}
        except CancelledError as error:
            result = {"state": "cancelled", "failure": RunFailure.from_error(error)}
        except StuckError as error:
            result = {"state": "failed", "failure": RunFailure.from_error(error, self._stuck_step)}
            if not self._leave_stuck:
                self._record_stuck_run(error, model, store)
        except StoreError as error:
            raise type(error)(
                f"The run {self.name} succeeded, but its results cannot be read. {error}"
            ) from error
        summary = RunSummary(
            run=self.name,
            model=model,
            steps=self._current_steps(),
            seconds=runs.duration(self._run),
            store=store.url,
            **result,
        )
        run_folder.write_summary(self.folder, summary)
        return summary

    def _current_steps(self) -> tuple[StepStatus, ...]:
        ended = runs.state(self._run) in END_STATES or bool(self._stuck_step and not self._leave_stuck)
        steps_ended = ended or any(pod.step == EXIT_TASK for pod in self._workflow.pods())
        return tuple(
            _create_step(name, self._workflow, ended if name == EXIT_TASK else steps_ended) for name in STEPS
        )

    def _refresh(self) -> str:
        """Fetch the run and its Workflow, and return the state; raise CancelledError for a deleted run."""
        try:
            run = self._runner.backend.runs.run_service_get_run(self.id)
            self._workflow, self._run = self._archive.workflow(), run
            self._add_step_changes()
        except NotFoundError as error:
            raise CancelledError(
                f"The run {self.name} was deleted from the server. Its published versions are "
                "kept; `modelyard submit` starts a new run."
            ) from error
        return runs.state(run)

    def _wait_for_end(self) -> None:
        """Wait until the run has succeeded or failed; raise CancelledError or StuckError otherwise."""
        while (state := self._refresh()) not in END_STATES:
            self._raise_if_stuck()
            if time.monotonic() >= self._next_log_time:
                self._next_log_time = time.monotonic() + runs.LOG_PAUSE
                node = self._workflow.running_pod()
                self.last_line = explanation.last_line(self._read_log(node)).strip() if node else ""
            time.sleep(runs.PAUSE)
        if state == "cancelled":
            raise CancelledError(
                f"The run {self.name} was cancelled. `modelyard runs retry` resumes it: finished "
                "steps are cached."
            )

    def _add_step_changes(self) -> None:
        """Add an event for each step with a new state, after the events in the log of a step that ended."""
        for step in self._current_steps():
            previous = self._steps.get(step.name)
            if previous is None and step.state == "waiting":
                continue
            if previous is None or (previous.state, previous.cached) != (step.state, step.cached):
                node = self._workflow.step_pod(step.name)
                if previous and node and step.state == "succeeded":
                    self._read_log(node)
                change = step.model_dump(exclude={"name"})
                self._events.append(StepChange(step=step.name, at=time.time(), **change))
            self._steps[step.name] = step

    def _read_log(self, node: PodNode) -> Sequence[str]:
        """Return the log of a pod, and add its new events; the log of a driver is empty."""
        lines = () if node.driver else self._archive.log(node)
        events = list(parse_all(lines))
        self._events += events[self._event_counts.get(node.pod, 0) :]
        self._event_counts[node.pod] = len(events)
        return lines

    def _raise_if_stuck(self) -> None:
        """Cancel the run and raise StuckError when a pod has not started in time."""
        stuck_pod, now = self._find_stuck_pod(), time.monotonic()
        if stuck_pod is None:
            self._pending_step = ""
            return
        if stuck_pod.step != self._pending_step:
            self._pending_step, self._pending_since = stuck_pod.step, now
            self._events.append(Waiting(step=stuck_pod.step, reason=str(stuck_pod.error)))
        wait_limit = inf if stuck_pod.wait_limit is None else stuck_pod.wait_limit
        if now - self._pending_since < min(self.environment.start_timeout, wait_limit):
            return
        self._stuck_step = stuck_pod.step
        consequence = "It was cancelled; finished steps are cached."
        if self._leave_stuck:
            consequence = "It still runs because of --leave-stuck; `modelyard runs cancel` cancels it."
        else:
            runs.cancel(self._runner.backend, self._run)
        raise type(stuck_pod.error)(
            f"The run {self.name} is stuck in the step {stuck_pod.step}: {stuck_pod.error} {consequence}"
        )

    def _record_stuck_run(self, error: StuckError, model: str, store: Store) -> None:
        """Record in the store why the run was cancelled: no exit task runs, and the pod is deleted."""
        end_explanation = explanation.create_explanation(
            self.name, model, "cancelled", self._stuck_step, str(error), type(error).__name__
        )
        with suppress(StoreError):  # this machine may not have write access
            record_end(open_objects(store), model, self.id, end_explanation)

    def _find_stuck_pod(self) -> StuckPod | None:
        """Return the pending pod that cannot start, from the cluster or else from the Workflow."""
        if self._archive.cluster:
            try:
                if stuck_pod := kfp_run.find_stuck_pod(self._archive.cluster, self.id):
                    return stuck_pod
            except ClusterError:
                self._archive.cluster = None
        node = self._workflow.pending_pod()
        error = Evidence(node).start_error if node else None
        return StuckPod(node.step, error, None) if node and error else None

    def _read_failure(self) -> RunFailure:
        """Return why the run failed, and write the log of the failed step to the folder of the run."""
        node = self._workflow.failed_pod()
        evidence = self._archive.evidence(node) if node else None
        failure = kfp_run.find_failure(self._workflow, evidence)
        step = failure.step if failure.step in STEPS else None  # otherwise a group of tasks
        log = None
        if evidence and evidence.log:
            log = self.folder / "logs" / f"{evidence.node.step}.log"
            log.write_text("".join(f"{line}\n" for line in evidence.log), encoding="utf-8")
        return RunFailure.from_error(failure, step, log)

    def _create_result(self, model: str, store: Store) -> dict[str, Any]:
        """Return the fields of the summary of a successful run; download its report."""
        models = open_store(store)
        champion, run_records = models.champion(model), records.read_run(open_objects(store), model, self.id)
        if not (start := run_records.start):
            raise _create_missing_error(store, records.run_key(model, self.id))
        results: dict[str, Any] = {
            "fingerprint": start.fingerprint,
            "champion": champion.version if champion else None,
        }
        if start.unchanged is not None:
            return {**results, "decision": UNCHANGED, "reason": start.unchanged}
        if not (decision := run_records.decision):
            raise _create_missing_error(store, records.decision_key(model, start.fingerprint, start.champion))
        report = self.folder / "artifacts" / "evaluate" / "report"
        staging.fetch(decision.report, report, self.environment.artifact_store().endpoint)
        outcome = run_records.outcome.outcome if run_records.outcome else None
        results |= summarize_evaluation(decision.decision, decision.metrics, report, outcome, self.folder)
        if (version := results["version"]) and not self._workflow.cached("train"):
            with suppress(NotFoundError):  # the version was removed
                _, history = models.read_record(model, version, HISTORY, History)
                results["resumed_after"] = history.resumed_after or None
        return add_prediction(results, lambda: predict_on_cluster(model, store, self.environment))


def _create_missing_error(store: Store, key: str) -> NotFoundError:
    return NotFoundError(f"The record {store.url}/{key} was removed. `modelyard submit` starts a new run.")


def _create_step(name: str, workflow: Workflow, ended: bool) -> StepStatus:
    """Return the state of a step; with `ended`, a step without a pod is skipped, because it cannot start."""
    pods = [pod for pod in workflow.pods() if pod.step == name]
    if not pods:
        return StepStatus(name=name, state="skipped" if ended else "waiting")
    cached = workflow.cached(name)
    last_pod = ([pod for pod in pods if not pod.driver] or pods)[-1]
    state = PHASES.get(last_pod.phase, "skipped")
    if state == "succeeded" and last_pod.driver and not cached:  # the pod of the step starts next
        state = "skipped" if ended else "running"
    if state == "running" and ended:
        state = "failed"
    return StepStatus(name=name, state=state, seconds=_duration(pods, state == "running"), cached=cached)


def _duration(pods: list[PodNode], running: bool) -> float:
    """Return the seconds from the start of a step's first pod, its driver, to the end of the last."""
    start_times = [datetime.fromisoformat(pod.started_at) for pod in pods if pod.started_at]
    if not start_times:
        return 0.0
    end_times = [datetime.fromisoformat(pod.finished_at) for pod in pods if pod.finished_at]
    end = datetime.now(UTC) if running or not pods[-1].finished_at else max(end_times)
    return round(max(0.0, (end - min(start_times)).total_seconds()), 3)
