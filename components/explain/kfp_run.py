"""How a run on Kubeflow Pipelines ended and what to change, from its Workflow, its pods and their logs.

Causes come from fields of Kubernetes objects and records of steps; messages and logs are only quoted.
"""

import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modelyard.components.errors import ClusterError, DeadlineError, KilledError, ModelyardError, StuckError
from modelyard.components.explain.explanation import Explanation, create_explanation
from modelyard.components.explain.failure import find_start_error, pod_failure
from modelyard.components.explain.workflow import FAILED_PHASES, PodNode, Workflow, parse_pod
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.cluster import Cluster, connect
from modelyard.components.kubernetes.pod_problem import PodProblem, find_problem
from modelyard.components.records import Failure
from modelyard.components.step import RUN_AGAIN

POD_NAME = "KFP_POD_NAME"
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
RUN_LABEL = "pipeline/runid"
MAX_LOG_LINES = 5000
CANCELLED = "by a user, or by `--wait` because a pod could not start. None of its steps is running."
GENERIC_KINDS = tuple(kind.__name__ for kind in (ModelyardError, KilledError, ClusterError))
"""The classes of errors that the deadline of the run may cause."""
MAIN_CONTAINER = "main"  # the container of the step in an Argo pod


@dataclass(frozen=True)
class Evidence:
    """The known facts about a failed or pending pod; `pod` is None if it was deleted."""

    node: PodNode
    log: Sequence[str] = ()
    pod: Json | None = None
    events: Sequence[Json] = ()
    nodes: Sequence[Json] = ()

    @property
    def problem(self) -> PodProblem | None:
        """The problem in the status of the pod, if there is one."""
        return find_problem(self.pod, self.events, self.nodes) if self.pod else None

    @property
    def failure(self) -> Failure:
        """Why the pod failed."""
        return pod_failure(
            self.node.step, self.pod, self.node, log=self.log, events=self.events, cluster_nodes=self.nodes
        )

    @property
    def start_error(self) -> StuckError | None:
        """Why the pod cannot start; None if there is no known problem."""
        return find_start_error(self.node.step, self.problem, self.node)


class RunInspector(Protocol):
    """Reads the Workflow of a run and the evidence for its pods."""

    def workflow(self) -> Workflow:
        """Return the Workflow."""

    def evidence(self, node: PodNode) -> Evidence:
        """Return the evidence for a pod."""


class ClusterInspector:
    """Inspects a run in its cluster."""

    def __init__(self, cluster: Cluster, workflow: Workflow) -> None:
        self._cluster, self._workflow = cluster, workflow

    def workflow(self) -> Workflow:
        """See RunInspector."""
        return self._workflow

    def evidence(self, node: PodNode) -> Evidence:
        """See RunInspector; without permission the log is empty."""
        log: Sequence[str] = ()
        if node.finished_at:
            with suppress(ClusterError):
                log = deque(self._cluster.stream_log(node.pod, MAIN_CONTAINER), maxlen=MAX_LOG_LINES)
        pod = self._cluster.get("Pod", node.pod)
        events = self._cluster.list_events(pod) if pod else []
        nodes = self._cluster.nodes if node.phase == "Pending" else []
        return Evidence(node, log, pod, events, nodes)


def current_run() -> ClusterInspector:
    """Return the inspector of the run of this exit task.

    Raises:
        ClusterError: this process is not in a pod of a Workflow, or may not read it.
    """
    name = os.environ.get(POD_NAME, "")
    if not name or not NAMESPACE.is_file():
        raise ClusterError("explain does not run in a pod of Kubeflow Pipelines, so it cannot read the run.")
    cluster = connect(NAMESPACE.read_text(encoding="utf-8").strip())
    pod = cluster.get("Pod", name)
    if pod is None or WORKFLOW_LABEL not in pod["metadata"].get("labels", {}):
        raise ClusterError(f"The pod {name} does not belong to a Workflow, so there is nothing to explain.")
    if workflow := cluster.get("Workflow", pod["metadata"]["labels"][WORKFLOW_LABEL]):
        return ClusterInspector(cluster, Workflow(workflow))
    raise ClusterError("The Workflow of this run was deleted, so there is nothing to explain.")


def explain(
    run: str, model: str | None, inspector: RunInspector, succeeded: bool | None = None, decision: str = ""
) -> Explanation:
    """Return how a run ended, or that it is running.

    `succeeded` is whether no step failed, which the exit task knows before the Workflow ends; `decision` is
    the decision with its reason.
    """
    workflow = inspector.workflow()
    if workflow.terminated:
        pod_at_end = workflow.failed_pod() or workflow.running_pod()
        return create_explanation(run, model, "cancelled", pod_at_end.step if pod_at_end else None, CANCELLED)
    if succeeded or workflow.phase == "Succeeded":
        return create_explanation(run, model, "succeeded", None, decision)
    failed_pod = workflow.failed_pod()
    if failed_pod or succeeded is False or workflow.phase in FAILED_PHASES:
        failure = find_failure(workflow, inspector.evidence(failed_pod) if failed_pod else None)
        return create_explanation(run, model, "failed", failure.step, failure.message, failure.kind)
    if pending_pod := workflow.pending_pod():
        start_error = inspector.evidence(pending_pod).start_error
        kind = type(start_error).__name__ if start_error else None
        return create_explanation(run, model, "running", pending_pod.step, str(start_error or ""), kind)
    running_pod = workflow.running_pod()
    return create_explanation(run, model, "running", running_pod.step if running_pod else None)


def find_failure(workflow: Workflow, evidence: Evidence | None) -> Failure:
    """Return why a run failed; without evidence, no pod failed."""
    if evidence:
        failure, seconds = evidence.failure, workflow.exceeded_deadline
        if seconds and failure.kind in GENERIC_KINDS:
            deadline = DeadlineError(
                f"The run did not end within {seconds} s. Raise environment.active_deadline, or reduce its "
                "work."
            )
            failure = Failure.from_error(deadline, failure.step)
        prefix = f"{workflow.message}; " if workflow.message else ""
        return failure.model_copy(update={"message": prefix + failure.message})
    error = ClusterError(f"The run failed: {workflow.message or 'no pod has a reason'}. {RUN_AGAIN}")
    return Failure.from_error(error)


@dataclass(frozen=True)
class StuckPod:
    """A pending pod of a step that may never start; see PodProblem for `wait_limit`."""

    step: str
    error: StuckError
    wait_limit: float | None


def find_stuck_pod(cluster: Cluster, run: str) -> StuckPod | None:
    """Return the first pod of the run with this ID that waits for a node or an image, if there is one.

    Raises:
        ClusterError: no permission to read the pods, or the cluster does not respond.
    """
    for pod in cluster.list_objects("Pod", labels=f"{RUN_LABEL}={run}", fields="status.phase=Pending"):
        evidence = Evidence(parse_pod(pod), pod=pod, events=cluster.list_events(pod), nodes=cluster.nodes)
        if (problem := evidence.problem) and (error := evidence.start_error):
            return StuckPod(evidence.node.step, error, problem.wait_limit)
    return None
