"""Follows a run on Kubeflow Pipelines to its end.

    follower = RunFollower(backend, run, environment)
    summary = follower.follow()  # follower.steps(), .events and .last_line show the progress

Steps and failures come from the Workflow of the run, because Kubeflow Pipelines has only the state of the
run. It never ends a run with a pod that cannot start; the follower cancels such a run.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

from modelyard.components import records
from modelyard.components.artifacts import UNCHANGED, History
from modelyard.components.errors import (
    CancelledError,
    ClusterError,
    NotFoundError,
    StoreError,
    StuckError,
)
from modelyard.components.events import Event, StepChange, Waiting, parse_all
from modelyard.components.explain.exit_task import record_end
from modelyard.components.explain.explanation import EXIT_TASK, create_explanation, last_line
from modelyard.components.explain.kfp_run import Evidence, StuckPod, find_failure, find_stuck_pod
from modelyard.components.explain.workflow import PodNode, Workflow
from modelyard.components.store import staging
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import open_objects
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import ENDED, Failure, RunSummary, State, Step
from modelyard.pipelines.runners.kfp import runs
from modelyard.pipelines.runners.kfp.client import Backend
from modelyard.pipelines.runners.kfp.runs import LOG_PAUSE, RunArchive
from modelyard.pipelines.serving.smoke_test import predict_on_cluster
from modelyard.pipelines.steps import STEPS

HISTORY = "history.json"
PHASES: dict[str, State] = {
    "Pending": "running",
    "Running": "running",
    "Succeeded": "succeeded",
    "Failed": "failed",
    "Error": "failed",
}


class RunFollower:
    """Follows one run.

    Attributes:
        run: the run, as the server last returned it.
        events: the events so far, in order.
        last_line: the last log line of the running step.
        leave_stuck: do not cancel the run when one of its pods cannot start.
    """

    def __init__(
        self, backend: Backend, run: Any, environment: Environment, leave_stuck: bool = False
    ) -> None:
        self.run, self.leave_stuck, self.last_line = run, leave_stuck, ""
        self.events: list[Event] = []
        self._backend, self._environment = backend, environment
        self._steps: dict[str, Step] = {}
        self._event_counts: dict[str, int] = {}  # events read from the log of each pod
        self._archive = RunArchive(backend, run.run_id)
        self._workflow = Workflow({"metadata": {"name": ""}})
        self._pending: tuple[str, float] = ("", 0.0)  # the step whose pod cannot start, and since when
        self._stuck_step: str | None = None
        self._next_log_time = 0.0

    def follow(self) -> RunSummary:
        """Wait for the end of the run; write its summary and return it. The summary includes the failure.

        Raises:
            BackendError: the server does not answer, or modelyard did not start the run.
            StoreError: the run succeeded, but its results cannot be read.
        """
        model, store = runs.model_and_store(self.run, self._environment)
        folder = run_folder.kfp_run_folder(self.run.display_name)
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        result: dict[str, Any]
        try:
            self._wait_for_end()
            if runs.state(self.run) == "failed":
                result = {"state": "failed", "failure": self._failure(folder / "logs")}
            else:
                result = {"state": "succeeded", **self._results(model, store, folder)}
        except CancelledError as error:
            result = {"state": "cancelled", "failure": Failure.from_error(error)}
        except StuckError as error:
            result = {"state": "failed", "failure": Failure.from_error(error, self._stuck_step)}
            if not self.leave_stuck:
                self._record_stuck_run(error, model, store)
        summary = RunSummary(
            run=self.run.display_name,
            model=model,
            steps=self.steps(),
            seconds=runs.duration(self.run),
            store=store.url,
            **result,
        )
        run_folder.write_summary(folder, summary)
        return summary

    def steps(self) -> tuple[Step, ...]:
        """Return the current state of every step."""
        ended = runs.state(self.run) in ENDED or bool(self._stuck_step and not self.leave_stuck)
        ending = ended or any(pod.step == EXIT_TASK for pod in self._workflow.pods())
        return tuple(_step(name, self._workflow, ended if name == EXIT_TASK else ending) for name in STEPS)

    def refresh(self) -> str:
        """Fetch the run and its Workflow, and return the state of the run.

        Raises:
            CancelledError: the run was deleted.
            BackendError: the server does not answer.
        """
        try:
            run = self._backend.runs.run_service_get_run(self.run.run_id)
            self._workflow, self.run = self._archive.workflow(), run
            self._add_step_changes()
        except NotFoundError as error:
            raise CancelledError(
                f"The run {self.run.display_name} was deleted from the server. Its published versions are "
                "kept; `modelyard submit` starts a new run."
            ) from error
        return runs.state(run)

    def _wait_for_end(self) -> None:
        """Return when the run has succeeded or failed.

        Raises:
            CancelledError: it was cancelled or deleted.
            StuckError: one of its pods cannot start.
        """
        while (state := self.refresh()) not in ENDED:
            self._raise_if_stuck()
            if time.monotonic() >= self._next_log_time:
                node, self._next_log_time = self._workflow.running_pod(), time.monotonic() + LOG_PAUSE
                self.last_line = last_line(self._read_log(node)).strip() if node else ""
            time.sleep(runs.PAUSE)
        if state == "cancelled":
            raise CancelledError(
                f"The run {self.run.display_name} was cancelled. `modelyard runs retry` resumes it: finished "
                "steps are cached."
            )

    def _add_step_changes(self) -> None:
        """Add an event for each step with a new state, after the events in the log of a step that ended."""
        for step in self.steps():
            previous = self._steps.get(step.name)
            if previous is None and step.state == "waiting":
                continue
            if previous is None or (previous.state, previous.cached) != (step.state, step.cached):
                node = self._workflow.step_pod(step.name)
                if previous and node and step.state == "succeeded":
                    self._read_log(node)
                change = step.model_dump(exclude={"name"})
                self.events.append(StepChange(step=step.name, at=time.time(), **change))
            self._steps[step.name] = step

    def _read_log(self, node: PodNode) -> Sequence[str]:
        """Return the log of a pod, and add its new events; the log of a driver is empty."""
        lines = () if node.driver else self._archive.log(node)
        events = list(parse_all(lines))
        self.events += events[self._event_counts.get(node.pod, 0) :]
        self._event_counts[node.pod] = len(events)
        return lines

    def _raise_if_stuck(self) -> None:
        """Cancel the run and raise StuckError when a pod has not started in time."""
        stuck, now = self._find_stuck_pod(), time.monotonic()
        if stuck is None:
            self._pending = ("", now)
            return
        if stuck.step != self._pending[0]:
            self._pending = (stuck.step, now)
            self.events.append(Waiting(step=stuck.step, reason=str(stuck.error)))
        wait_limit = inf if stuck.wait_limit is None else stuck.wait_limit
        if now - self._pending[1] < min(self._environment.start_timeout, wait_limit):
            return
        self._stuck_step = stuck.step
        consequence = "It was cancelled; finished steps are cached."
        if self.leave_stuck:
            consequence = "It still runs because of --leave-stuck; `modelyard runs cancel` cancels it."
        else:
            runs.cancel(self._backend, self.run)
        raise type(stuck.error)(
            f"The run {self.run.display_name} is stuck in the step {stuck.step}: {stuck.error} {consequence}"
        )

    def _record_stuck_run(self, error: StuckError, model: str, store: Store) -> None:
        """Record in the store why the run was cancelled: no exit task runs, and the pod is deleted."""
        explanation = create_explanation(
            self.run.display_name, model, "cancelled", self._stuck_step, str(error), type(error).__name__
        )
        with suppress(StoreError):  # this machine may not have write access
            record_end(open_objects(store), model, self.run.run_id, explanation)

    def _find_stuck_pod(self) -> StuckPod | None:
        """Return the pending pod that cannot start, from the cluster or else from the Workflow."""
        if self._archive.cluster:
            try:
                if stuck := find_stuck_pod(self._archive.cluster, self.run.run_id):
                    return stuck
            except ClusterError:
                self._archive.cluster = None
        node = self._workflow.pending_pod()
        error = Evidence(node).start_error if node else None
        return StuckPod(node.step, error, None) if node and error else None

    def _failure(self, logs: Path) -> Failure:
        """Return why the run failed, and write the log of the failed step to a folder."""
        node = self._workflow.failed_pod()
        evidence = self._archive.evidence(node) if node else None
        failure = find_failure(self._workflow, evidence)
        step = failure.step if failure.step in STEPS else None  # otherwise a group of tasks
        log = None
        if evidence and evidence.log:
            log = logs / f"{evidence.node.step}.log"
            log.write_text("".join(f"{line}\n" for line in evidence.log), encoding="utf-8")
        return Failure.from_error(failure, step, log)

    def _results(self, model: str, store: Store, folder: Path) -> dict[str, Any]:
        """Return the fields of the summary of a successful run; download its report."""
        try:
            models = open_store(store)
            results = self._read_results(model, models, store, folder)
            if (version := results.get("version")) and not self._workflow.cached("train"):
                results["resumed_after"] = _resumed_after(models, model, version)
            return results
        except StoreError as error:
            raise type(error)(
                f"The run {self.run.display_name} succeeded, but its results cannot be read. {error}"
            ) from error

    def _read_results(self, model: str, models: ModelStore, store: Store, folder: Path) -> dict[str, Any]:
        champion = models.champion(model)
        run_records = records.read_run(open_objects(store), model, self.run.run_id)
        if not (start := run_records.start):
            raise _missing_record(store, records.run_key(model, self.run.run_id))
        results: dict[str, Any] = {
            "fingerprint": start.fingerprint,
            "champion": champion.version if champion else None,
        }
        if start.unchanged is not None:
            return {**results, "decision": UNCHANGED, "reason": start.unchanged}
        if not (decision := run_records.decision):
            raise _missing_record(store, records.decision_key(model, start.fingerprint, start.champion))
        report = folder / "artifacts" / "evaluate" / "report"
        staging.fetch(decision.report, report, self._environment.artifact_store().endpoint)
        outcome = run_records.outcome.outcome if run_records.outcome else None
        results |= run_folder.evaluation_fields(decision.decision, decision.metrics, report, outcome, folder)
        return run_folder.add_prediction(results, lambda: predict_on_cluster(model, store, self._environment))


def _missing_record(store: Store, key: str) -> NotFoundError:
    return NotFoundError(f"The record {store.url}/{key} was removed. `modelyard submit` starts a new run.")


def _resumed_after(models: ModelStore, model: str, version: int) -> int | None:
    """Return the epoch of the checkpoint from which the training of a version resumed, if it did."""
    try:
        _, history = models.read_record(model, version, HISTORY, History)
    except NotFoundError:  # the version was removed
        return None
    return history.resumed_after or None


def _step(name: str, workflow: Workflow, ended: bool) -> Step:
    """Return the state of a step; without a pod it is skipped if the run has ended."""
    pods = [pod for pod in workflow.pods() if pod.step == name]
    if not pods:
        return Step(name=name, state="skipped" if ended else "waiting", seconds=0.0, cached=False)
    cached = workflow.cached(name)
    last = ([pod for pod in pods if not pod.driver] or pods)[-1]
    state = PHASES.get(last.phase, "skipped")
    if state == "succeeded" and last.driver and not cached:  # the pod of the step starts next
        state = "skipped" if ended else "running"
    if state == "running" and ended:
        state = "failed"
    return Step(name=name, state=state, seconds=_duration(pods, state == "running"), cached=cached)


def _duration(pods: list[PodNode], running: bool) -> float:
    """Return the seconds from the start of a step's first pod, its driver, to the end of the last."""
    started = [datetime.fromisoformat(pod.started) for pod in pods if pod.started]
    if not started:
        return 0.0
    finished = [datetime.fromisoformat(pod.finished) for pod in pods if pod.finished]
    end = datetime.now(UTC) if running or not pods[-1].finished else max(finished)
    return round(max(0.0, (end - min(started)).total_seconds()), 3)
