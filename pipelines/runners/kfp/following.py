"""A run on Kubeflow Pipelines, followed to its end: its steps as they go, what keeps them, how it ends.

    following = Following(backend, run, environment)
    summary = following()        # meanwhile following.steps() and following.last_line say how it goes

The Workflow of a run says it all. Kubeflow Pipelines itself says no more of a failure than that there was
one, and leaves a run whose pod cannot start running for ever.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from modelyard.components.errors import (
    BackendError,
    CancelledError,
    ClusterError,
    NotFoundError,
    StoreError,
    StuckError,
)
from modelyard.components.explain.failure_reason import MAIN, Evidence, waiting_reason
from modelyard.components.explain.kfp_run import Stuck, stuck
from modelyard.components.explain.log_lines import last_line
from modelyard.components.explain.workflow import PodNode, Workflow
from modelyard.components.store.settings import Store
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners import runs
from modelyard.pipelines.runners.kfp import failures, records
from modelyard.pipelines.runners.kfp.client import Backend
from modelyard.pipelines.runners.kfp.kept import LOG_PAUSE, Kept, cluster_of
from modelyard.pipelines.runners.kfp.results import Aim, results
from modelyard.pipelines.runners.kfp.steps import steps
from modelyard.pipelines.runners.runs import RunSummary, Step

PAUSE = 2.0
REFRESH = 20.0
TAIL = 20  # lines of a log, the last of which are Kubeflow Pipelines' own


class Following:
    """A run that is followed; calling it waits for the end.

    Attributes:
        last_line: what the step at work said last.
    """

    def __init__(
        self, backend: Backend, run: Any, environment: Environment, leave_stuck: bool = False
    ) -> None:
        """Begin to follow a run.

        Args:
            backend: the server.
            run: the run, as the server gives it.
            environment: where it runs.
            leave_stuck: do not cancel it when one of its pods cannot start.
        """
        self.last_line = ""
        self._backend, self._run, self._environment = backend, run, environment
        self._leave_stuck = leave_stuck
        self._kept = Kept(backend, run.run_id, cluster_of(backend.namespace))
        self._workflow = Workflow({"metadata": {"name": ""}})
        self._seen: object = None
        self._waits: dict[str, float] = {}
        self._stuck_in: str | None = None
        self._heard, self._log_due = "", 0.0

    def __call__(self) -> RunSummary:
        """Follow the run to its end and record the summary; how it failed is in the summary, not raised.

        Raises:
            BackendError: the server does not answer any more, or the run is none of modelyard's; it goes on.
            StoreError: the run succeeded, and what came of it cannot be read.
        """
        aim, folder = _aim(self._run, self._environment), runs.of_pipelines(self._run.display_name)
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        result: dict[str, Any]
        try:
            self._await_end()
        except CancelledError as error:
            result = {"state": "cancelled", "failure": failures.told(error, None, None)}
        except StuckError as error:
            result = {"state": "failed", "failure": failures.told(error, self._stuck_in, None)}
        else:
            if records.state(self._run) == "failed":
                failure = failures.of(self._kept, self._workflow, folder / "logs")
                result = {"state": "failed", "failure": failure}
            else:
                result = {"state": "succeeded", **self._results(aim, folder)}
        summary = RunSummary(
            run=self._run.display_name,
            model=aim.name,
            steps=self.steps(),
            seconds=records.record(self._run).seconds,
            store=aim.store.url,
            **result,
        )
        runs.finish(folder, summary)
        return summary

    def steps(self) -> tuple[Step, ...]:
        """Return every step as it is now."""
        over = records.state(self._run) in records.ENDED or (self._stuck_in and not self._leave_stuck)
        return steps(self._workflow, bool(over))

    def look(self) -> str:
        """Look once how it goes, and return the run's state.

        Raises:
            CancelledError: somebody deleted the run.
            BackendError: the server does not answer.
        """
        try:
            run = records.get(self._backend, self._run.run_id)
            if (seen := _seen(run)) != self._seen:  # it is much larger than all the rest
                self._workflow, self._seen = self._kept.workflow(), seen
            self._run = run
        except NotFoundError as error:
            raise CancelledError(
                f"The run {self._run.display_name} was deleted by somebody, and nothing of it goes on. What "
                "it has published stays; `modelyard submit` starts another."
            ) from error
        return records.state(run)

    def _results(self, aim: Aim, folder: Path) -> dict[str, Any]:
        try:
            return results(self._run, self._kept, self._workflow, aim, self._environment, folder)
        except StoreError as error:
            name = self._run.display_name
            raise type(error)(
                f"The run {name} succeeded, and what came of it cannot be read: {error}"
            ) from error

    def _await_end(self) -> None:
        """Return when the run has succeeded or failed.

        Raises:
            CancelledError: somebody ended it.
            StuckError: one of its pods cannot start.
        """
        while (state := self.look()) not in records.ENDED:
            self._raise_if_stuck()
            self._listen(self._workflow.working())
            time.sleep(PAUSE)
        if state == "cancelled":
            raise CancelledError(
                f"The run {self._run.display_name} was cancelled. What is done is cached: `modelyard runs "
                "retry` goes on with it, `modelyard submit` starts another."
            )

    def _listen(self, node: PodNode | None) -> None:
        """Take down what the pod at work said last."""
        pod = node.pod if node and not node.driver else ""
        if pod != self._heard:
            self._heard, self._log_due, self.last_line = pod, 0.0, ""
        if node is None or not pod:
            return
        lines: Sequence[str] = self._kept.cluster.tail(pod, MAIN, TAIL) if self._kept.cluster else ()
        if not lines and time.monotonic() >= self._log_due:
            lines, self._log_due = self._kept.log(node), time.monotonic() + LOG_PAUSE
        self.last_line = last_line(lines).strip() or self.last_line

    def _raise_if_stuck(self) -> None:
        found, now, limit = self._stuck(), time.monotonic(), self._environment.start_timeout
        self._waits = {found.step: self._waits.get(found.step, now)} if found else {}
        if found is None:
            return
        patience = limit if found.patience is None else min(limit, found.patience)
        if now - self._waits[found.step] < patience:
            return
        self._stuck_in = found.step
        if not self._leave_stuck:
            records.cancel(self._backend, self._run)
        left = "With --leave-stuck it was left as it is: `modelyard runs cancel` ends it."
        ending = left if self._leave_stuck else "It was cancelled; what is done is cached."
        raise StuckError(
            f"The run {self._run.display_name} is stuck in the step {found.step}: {found.message} {ending}"
        )

    def _stuck(self) -> Stuck | None:
        """Return the pod that waits, if one does: the cluster, if it is the run's, says most of it."""
        if self._kept.cluster:
            try:
                if found := stuck(self._kept.cluster, self._run.run_id):
                    return found
            except ClusterError:
                self._kept.cluster = None  # it may not be looked at from here
        node = self._workflow.waiting()
        reason = waiting_reason(Evidence(node)) if node else None
        return Stuck(node.step, reason, None) if node and reason else None


def _seen(run: Any) -> object:
    """Return what is different when the run's Workflow is."""
    details = run.run_details.task_details if run.run_details else None
    states = [(one.display_name, one.state) for one in details or ()]
    return run.state, states, time.monotonic() // REFRESH  # why a pod waits is in none of them


def _aim(run: Any, environment: Environment) -> Aim:
    """Return what a run is for, and read no more: another version of modelyard may have started it."""
    parameters = (run.runtime_config.parameters if run.runtime_config else None) or {}
    try:
        return Aim(parameters["name"], environment.outside(Store.of(parameters["store"])))
    except (KeyError, ValidationError) as error:
        raise BackendError(
            f"The run {run.display_name} does not say which model it makes and in which store, as one of "
            "`modelyard submit` does, so it cannot be followed. `modelyard explain` says how it fares."
        ) from error
