"""A run on Kubeflow Pipelines, followed to its end: its steps, what keeps them waiting, how it ends.

    follower = RunFollower(backend, run, environment)
    summary = follower()        # meanwhile follower.steps() and follower.last_line show the progress

All of it comes from the run's Workflow: Kubeflow Pipelines itself only says that a run failed, and leaves a
run whose pod cannot start running for ever.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
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
    """A run that is followed; calling it waits for the end.

    Attributes:
        last_line: the last line that the running step wrote.
        events: what was seen to happen, in order.
        leave_stuck: do not cancel it when one of its pods cannot start.
    """

    def __init__(
        self, backend: Backend, run: Any, environment: Environment, leave_stuck: bool = False
    ) -> None:
        """Begin to follow a run.

        Args:
            backend: the server.
            run: the run, as the server gives it.
            environment: where it runs.
            leave_stuck: see the attribute.
        """
        self.last_line, self.leave_stuck = "", leave_stuck
        self.events: list[Event] = []
        self._backend, self.run, self._environment = backend, run, environment
        self._steps: dict[str, Step] = {}
        self._logged: dict[str, int] = {}  # events that were seen in the log of each pod
        self._archive = RunArchive(backend, run.run_id)
        self._workflow = Workflow({"metadata": {"name": ""}})
        self._waiting: tuple[str, float] = ("", 0.0)  # the step that waits, and since when
        self._stuck_step: str | None = None
        self._log_due = 0.0

    def __call__(self) -> RunSummary:
        """Follow the run to its end and record the summary; how it failed is in the summary, not raised.

        Raises:
            BackendError: the server does not answer any more, or the run is not one of modelyard's; it goes
            on. StoreError: the run succeeded, and its results cannot be read.
        """
        name, store = runs.model_and_store(self.run, self._environment)
        folder = run_folder.kfp_run_folder(self.run.display_name)
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        result: dict[str, Any]
        try:
            self._wait_for_end()
            if runs.state(self.run) == "failed":
                result = {"state": "failed", "failure": self._failure(folder / "logs")}
            else:
                result = {"state": "succeeded", **self._results(name, store, folder)}
        except CancelledError as error:
            result = {"state": "cancelled", "failure": Failure.of(error)}
        except StuckError as error:
            result = {"state": "failed", "failure": Failure.of(error, self._stuck_step)}
            if not self.leave_stuck:
                self._record_stuck(error, name, store)
        summary = RunSummary(
            run=self.run.display_name,
            model=name,
            steps=self.steps(),
            seconds=runs.duration(self.run),
            store=store.url,
            **result,
        )
        run_folder.write_summary(folder, summary)
        return summary

    def steps(self) -> tuple[Step, ...]:
        """Return the current state of every step."""
        over = runs.state(self.run) in ENDED or bool(self._stuck_step and not self.leave_stuck)
        ending = over or any(pod.step == EXIT_TASK for pod in self._workflow.pods())
        return tuple(_step(name, self._workflow, over if name == EXIT_TASK else ending) for name in STEPS)

    def refresh(self) -> str:
        """Fetch the run and its Workflow, and return the run's state.

        Raises:
            CancelledError: the run was deleted.
            BackendError: the server does not answer.
        """
        try:
            run = self._backend.runs.run_service_get_run(self.run.run_id)
            self._workflow, self.run = self._archive.workflow(), run
            self._record_step_changes()
        except NotFoundError as error:
            raise CancelledError(
                f"The run {self.run.display_name} was deleted, and nothing of it goes on. What it has "
                "published stays; `modelyard submit` starts another."
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
            if time.monotonic() >= self._log_due:
                node, self._log_due = self._workflow.running_pod(), time.monotonic() + LOG_PAUSE
                self.last_line = last_line(self._read_log(node)).strip() if node else ""
            time.sleep(runs.PAUSE)
        if state == "cancelled":
            raise CancelledError(
                f"The run {self.run.display_name} was cancelled. What is done is cached: `modelyard runs "
                "retry` goes on with it, `modelyard submit` starts another."
            )

    def _record_step_changes(self) -> None:
        """Add the steps whose state has changed to the events; first, what the log of an ended one says."""
        for step in self.steps():
            before = self._steps.get(step.name)
            if before is None and step.state == "waiting":
                continue
            if before is None or (before.state, before.cached) != (step.state, step.cached):
                node = self._workflow.step_pod(step.name)
                if before and node and step.state == "succeeded":
                    self._read_log(node)
                change = step.model_dump(exclude={"name"})
                self.events.append(StepChange(step=step.name, at=time.time(), **change))
            self._steps[step.name] = step

    def _read_log(self, node: PodNode) -> Sequence[str]:
        """Return the log of a step's own pod, and add what it says as data to the events."""
        lines = () if node.driver else self._archive.log(node)
        found = list(parse_all(lines))
        self.events += found[self._logged.get(node.pod, 0) :]
        self._logged[node.pod] = len(found)
        return lines

    def _raise_if_stuck(self) -> None:
        found, now = self._find_stuck_pod(), time.monotonic()
        if found is None:
            self._waiting = ("", now)
            return
        if found.step != self._waiting[0]:
            self._waiting = (found.step, now)
            self.events.append(Waiting(step=found.step, reason=str(found.error)))
        limit = self._environment.start_timeout
        if now - self._waiting[1] < (limit if found.wait_limit is None else min(limit, found.wait_limit)):
            return
        self._stuck_step = found.step
        if not self.leave_stuck:
            runs.cancel(self._backend, self.run)
        left = "With --leave-stuck it was not cancelled: `modelyard runs cancel` ends it."
        ending = left if self.leave_stuck else "It was cancelled; what is done is cached."
        raise type(found.error)(
            f"The run {self.run.display_name} is stuck in the step {found.step}: {found.error} {ending}"
        )

    def _record_stuck(self, error: StuckError, name: str, store: Store) -> None:
        """Record why the run was cancelled, which no pod says any more; no exit task runs then."""
        paragraph = create_explanation(
            self.run.display_name, name, "cancelled", self._stuck_step, str(error), type(error).__name__
        )
        with suppress(StoreError):  # it may not be written from here
            record_end(open_objects(store), name, self.run.run_id, paragraph)

    def _find_stuck_pod(self) -> StuckPod | None:
        """Return the pod that waits, if one does: the cluster, if it is the run's, says most of it."""
        if self._archive.cluster:
            try:
                if found := find_stuck_pod(self._archive.cluster, self.run.run_id):
                    return found
            except ClusterError:
                self._archive.cluster = None  # it may not be read from here
        node = self._workflow.pending_pod()
        error = Evidence(node).start_error if node else None
        return StuckPod(node.step, error, None) if node and error else None

    def _failure(self, logs: Path) -> Failure:
        """Return why the run failed, and put the log of the step into a folder."""
        node = self._workflow.failed_pod()
        evidence = self._archive.evidence(node) if node else None
        found = find_failure(self._workflow, evidence)
        step = found.step if found.step in STEPS else None  # else a group of them, such as the whole run
        log = None
        if evidence and evidence.log:
            log = logs / f"{evidence.node.step}.log"
            log.write_text("".join(f"{line}\n" for line in evidence.log), encoding="utf-8")
        return Failure.of(found, step, log)

    def _results(self, name: str, store: Store, folder: Path) -> dict[str, Any]:
        try:
            found = read_results(self.run, name, store, self._environment, folder)
            if (version := found.get("version")) and not self._workflow.cached("train"):
                found["resumed_after"] = _resumed_after(open_store(store), name, version)
            return found
        except StoreError as error:
            raise type(error)(
                f"The run {self.run.display_name} succeeded, and its results cannot be read: {error}"
            ) from error


def read_results(run: Any, name: str, store: Store, environment: Environment, folder: Path) -> dict[str, Any]:
    """Return the part of a run's summary with its results: what its steps recorded, report, prediction.

    Args:
        run: the run, as the server gives it; it has succeeded.
        name: of the model.
        store: of its versions, as it is reached from here.
        environment: where it ran.
        folder: where the report goes.

    Raises:
        NotFoundError: the records of the run are gone.
        StoreError: the bucket cannot be read.
    """
    champion = open_store(store).champion(name)
    found = records.read_run(open_objects(store), name, run.run_id)
    if not found.start:
        raise _missing_record(run, store, records.run_key(name, run.run_id))
    result: dict[str, Any] = {
        "fingerprint": found.start.fingerprint,
        "champion": champion.version if champion else None,
    }
    if found.start.unchanged is not None:
        return {**result, "decision": UNCHANGED, "reason": found.start.unchanged}
    if not (decision := found.decision):
        raise _missing_record(
            run, store, records.decision_key(name, found.start.fingerprint, found.start.champion)
        )
    report = folder / "artifacts" / "evaluate" / "report"
    staging.fetch(decision.report, report, environment.artifact_store().endpoint)
    outcome = found.outcome.outcome if found.outcome else None
    result |= run_folder.evaluation_fields(decision.decision, decision.metrics, report, outcome, folder)
    return run_folder.add_prediction(result, lambda: predict_on_cluster(name, store, environment))


def _resumed_after(models: ModelStore, name: str, version: int) -> int | None:
    """Return the epoch of the checkpoint from which the training of a version went on."""
    try:
        _, history = models.read_record(name, version, HISTORY, History)
    except NotFoundError:  # it was removed since
        return None
    return history.resumed_after or None


def _missing_record(run: Any, store: Store, key: str) -> NotFoundError:
    return NotFoundError(
        f"The record {store.url}/{key} of the run {run.display_name} was removed. `modelyard submit` starts "
        "another."
    )


def _step(name: str, workflow: Workflow, ended: bool) -> Step:
    """Return a step as it is; what has not begun is skipped when the run has ended."""
    pods = [one for one in workflow.pods() if one.step == name]
    if not pods:
        return Step(name=name, state="skipped" if ended else "waiting", seconds=0.0, cached=False)
    cached = workflow.cached(name)
    last = ([one for one in pods if not one.driver] or pods)[-1]
    state = PHASES.get(last.phase, "skipped")
    if state == "succeeded" and last.driver and not cached:  # its own pod comes next
        state = "skipped" if ended else "running"
    if state == "running" and ended:
        state = "failed"
    return Step(name=name, state=state, seconds=_duration(pods, state == "running"), cached=cached)


def _duration(pods: list[PodNode], running: bool) -> float:
    """Return the time from a step's first pod to the end of its last, its driver's included."""
    begun = [datetime.fromisoformat(one.started) for one in pods if one.started]
    if not begun:
        return 0.0
    ended = [datetime.fromisoformat(one.finished) for one in pods if one.finished]
    last = datetime.now(UTC) if running or not pods[-1].finished else max(ended)
    return round(max(0.0, (last - min(begun)).total_seconds()), 3)
