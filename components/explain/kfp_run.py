"""A run on Kubeflow Pipelines: how it ended and what to change, from its Workflow, its pods and their logs.

What Kubernetes says in fields is read, and the records that steps left there; messages and logs are quoted.
"""

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from modelyard.components.errors import ClusterError, DeadlineError, KilledError, ModelyardError, StuckError
from modelyard.components.explain.explanation import Explanation, explanation
from modelyard.components.explain.failure import of_pod, of_waiting
from modelyard.components.explain.workflow import ENDED_BADLY, PodNode, Workflow, node_of
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.cluster import Cluster, connect
from modelyard.components.kubernetes.pod_problem import PodProblem, find_problem
from modelyard.components.records import Failure
from modelyard.components.step import RUN_AGAIN

POD_NAME = "KFP_POD_NAME"
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
WORKFLOW = "workflows.argoproj.io/workflow"
RUN = "pipeline/runid"
LINES = 5000
CANCELLED = (
    "a user cancelled it, or `--wait` did because a pod could not start. None of its steps is running."
)
VAGUE = tuple(kind.__name__ for kind in (ModelyardError, KilledError, ClusterError))
"""Classes of failures that a deadline of the whole run may have caused."""
MAIN = "main"  # the container of a step in a pod of Argo


@dataclass(frozen=True)
class Evidence:
    """What is known of a pod that failed or waits; `pod` is None when it is gone."""

    node: PodNode
    log: Sequence[str] = ()
    pod: Json | None = None
    events: Sequence[Json] = ()
    nodes: Sequence[Json] = field(default=())

    @property
    def problem(self) -> PodProblem | None:
        """What keeps, or kept, the pod from running, according to its status."""
        return find_problem(self.pod, self.events, self.nodes) if self.pod else None

    @property
    def failure(self) -> Failure:
        """Why the pod failed."""
        return of_pod(self.node.step, self.pod, self.node, log=self.log, events=self.events, nodes=self.nodes)

    @property
    def stuck(self) -> StuckError | None:
        """What keeps the pod from starting; None when nothing is known to."""
        return of_waiting(self.node.step, self.problem, self.node)


class Records(Protocol):
    """What there is to read of a run."""

    def workflow(self) -> Workflow:
        """Return its Workflow."""

    def evidence(self, node: PodNode) -> Evidence:
        """Return what is known of a pod."""

    def log(self, node: PodNode) -> Sequence[str]:
        """Return the log of a pod that has ended."""


class ClusterRecords:
    """A run whose Workflow and pods are on the cluster."""

    def __init__(self, cluster: Cluster, workflow: Workflow) -> None:
        self._cluster, self._workflow = cluster, workflow

    def workflow(self) -> Workflow:
        """See Records."""
        return self._workflow

    def evidence(self, node: PodNode) -> Evidence:
        """See Records."""
        pod = self._cluster.get("Pod", node.pod)
        events = self._cluster.list_events(pod) if pod else []
        nodes = self._cluster.nodes if node.phase == "Pending" else []
        return Evidence(node, self.log(node) if node.finished else [], pod, events, nodes)

    def log(self, node: PodNode) -> Sequence[str]:
        """See Records; empty when it may not be read."""
        try:
            return deque(self._cluster.stream_log(node.pod, MAIN), maxlen=LINES)
        except ClusterError:
            return ()


def own_run() -> ClusterRecords:
    """Return the run that this process is the exit task of.

    Raises:
        ClusterError: it is in no pod of a Workflow, or may not see it.
    """
    name = os.environ.get(POD_NAME, "")
    if not name or not NAMESPACE.is_file():
        raise ClusterError("explain is in no pod of Kubeflow Pipelines, so it cannot see what ran before it.")
    cluster = connect(NAMESPACE.read_text(encoding="utf-8").strip())
    pod = cluster.get("Pod", name)
    if pod is None or WORKFLOW not in pod["metadata"].get("labels", {}):
        raise ClusterError(f"The pod {name} belongs to no Workflow, so there is nothing to explain.")
    if workflow := cluster.get("Workflow", pod["metadata"]["labels"][WORKFLOW]):
        return ClusterRecords(cluster, Workflow(workflow))
    raise ClusterError("The Workflow of this run was deleted, so there is nothing to explain.")


def explain(
    run: str, model: str | None, records: Records, succeeded: bool | None = None, decided: str = ""
) -> Explanation:
    """Return how a run ended, or that it is running.

    Args:
        run: the run's name.
        model: the model's name.
        records: what there is to read of it.
        succeeded: whether no step failed, which the exit task knows before the Workflow has ended.
        decided: what it decided, and why.
    """
    workflow = records.workflow()
    if workflow.terminated:
        at = workflow.failed() or workflow.working()
        return explanation(run, model, "cancelled", at.step if at else None, CANCELLED)
    if succeeded or workflow.phase == "Succeeded":
        return explanation(run, model, "succeeded", None, decided)
    bad = workflow.failed()
    if bad or succeeded is False or workflow.phase in ENDED_BADLY:
        found = failure(workflow, records.evidence(bad) if bad else None)
        return explanation(run, model, "failed", found.step, found.message, found.kind)
    if late := workflow.waiting():
        stuck = records.evidence(late).stuck
        kind = type(stuck).__name__ if stuck else None
        return explanation(run, model, "running", late.step, str(stuck or ""), kind)
    at = workflow.working()
    return explanation(run, model, "running", at.step if at else None)


def failure(workflow: Workflow, evidence: Evidence | None) -> Failure:
    """Return why a run failed.

    Args:
        workflow: the run's.
        evidence: what is known of the pod that failed; None when none did.
    """
    if evidence:
        found, seconds = evidence.failure, workflow.overran
        if seconds and found.kind in VAGUE:
            late = DeadlineError(
                f"The run did not end within {seconds} s. Give it more time (environment.active_deadline), "
                "or less to do."
            )
            found = Failure.of(late, found.step)
        whole = f"{workflow.message}; " if workflow.message else ""
        return found.model_copy(update={"message": whole + found.message})
    error = ClusterError(f"The run failed: {workflow.message or 'no pod of it says why'}. {RUN_AGAIN}")
    return Failure.of(error)


@dataclass(frozen=True)
class Stuck:
    """A pod that waits.

    `step` is the task that it works for, `error` says why it waits and what to change. `wait_limit` is the
    number of seconds that waiting may help: 0 when it does not, None when only the caller knows.
    """

    step: str
    error: StuckError
    wait_limit: float | None


def stuck(cluster: Cluster, run: str) -> Stuck | None:
    """Return the first pod of a run that waits for a node or an image that may never come, if one does.

    Args:
        cluster: with the namespace of the run.
        run: the run's id.

    Raises:
        ClusterError: the pods may not be read, or the cluster does not answer.
    """
    for pod in cluster.list_objects("Pod", labels=f"{RUN}={run}", fields="status.phase=Pending"):
        found = Evidence(node_of(pod), pod=pod, events=cluster.list_events(pod), nodes=cluster.nodes)
        if (problem := found.problem) and (error := found.stuck):
            return Stuck(found.node.step, error, problem.wait_limit)
    return None
