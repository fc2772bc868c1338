"""A run on Kubeflow Pipelines: how it ended and what to change, from its Workflow, its pods and their logs.

What Kubernetes says in fields is read: reasons, conditions, exit codes. Messages and logs are quoted.
"""

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from modelyard.components.errors import ClusterError, from_log
from modelyard.components.explain.explanation import Explanation, decision, explanation, quote_end
from modelyard.components.explain.workflow import PodNode, Workflow, node_of
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.cluster import Cluster, connect
from modelyard.components.kubernetes.pod_problem import OUT_OF_MEMORY, PULLING, PodProblem, find_problem

POD_NAME = "KFP_POD_NAME"
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
WORKFLOW = "workflows.argoproj.io/workflow"
RUN = "pipeline/runid"
LINES = 5000
CANCELLED = (
    "a user cancelled it, or `--wait` did because a pod could not start. None of its steps is running."
)
MAIN = "main"  # the container of a step in a pod of Argo
TIMEOUT = "DeadlineExceeded"
SETTINGS = {
    "Unschedulable": " Its resources are in environment.steps.{step} and environment.defaults.",
    **dict.fromkeys(("ImagePull", *PULLING), " Its image is environment.images.{step}."),
    OUT_OF_MEMORY: " Its memory is environment.steps.{step}.memory.",
}


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
        events = self._cluster.events(pod) if pod else []
        nodes = self._cluster.nodes if node.phase == "Pending" else []
        return Evidence(node, self.log(node) if node.finished else [], pod, events, nodes)

    def log(self, node: PodNode) -> Sequence[str]:
        """See Records; empty when it may not be read."""
        try:
            return deque(self._cluster.log(node.pod, MAIN), maxlen=LINES)
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


def explain(run: str, model: str | None, records: Records, succeeded: bool | None = None) -> Explanation:
    """Return how a run ended, or that it is running.

    Args:
        run: the run's name.
        model: the model's name.
        records: what there is to read of it.
        succeeded: whether no step failed, which the exit task knows before the Workflow has ended.
    """
    workflow = records.workflow()
    if workflow.terminated:
        at = workflow.failed() or workflow.working()
        return explanation(run, model, "cancelled", at.step if at else None, CANCELLED)
    if succeeded or workflow.phase == "Succeeded":
        return explanation(run, model, "succeeded", None, _decision(records, workflow))
    if bad := workflow.failed():
        whole = f"{workflow.message}; " if workflow.message else ""
        return explanation(run, model, "failed", bad.step, whole + failure_reason(records.evidence(bad)))
    if succeeded is False or workflow.phase in ("Failed", "Error"):
        return explanation(run, model, "failed", None, workflow.message or "no pod of it says why.")
    if late := workflow.waiting():
        return explanation(run, model, "running", late.step, waiting_reason(records.evidence(late)) or "")
    at = workflow.working()
    return explanation(run, model, "running", at.step if at else None)


def _decision(records: Records, workflow: Workflow) -> str:
    """Return what was decided, and why: the last line of the last step that decides."""
    unchanged = not (workflow.own("ingest") or workflow.cached("ingest"))

    def log_of(step: str) -> Sequence[str]:
        node = workflow.own(step)
        return records.log(node) if node and node.phase == "Succeeded" else ()

    return decision(log_of, unchanged)


@dataclass(frozen=True)
class Stuck:
    """A pod that waits.

    `step` is the task that it works for, `message` says why it waits and what to change. `patience` is how
    long waiting may help, in seconds: 0 when it does not, None when only the caller knows.
    """

    step: str
    message: str
    patience: float | None


def stuck(cluster: Cluster, run: str) -> Stuck | None:
    """Return the first pod of a run that waits for a node or an image that may never come, if one does.

    Args:
        cluster: with the namespace of the run.
        run: the run's id.

    Raises:
        ClusterError: the pods may not be read, or the cluster does not answer.
    """
    for pod in cluster.list_objects("Pod", labels=f"{RUN}={run}", fields="status.phase=Pending"):
        found = Evidence(node_of(pod), pod=pod, events=cluster.events(pod), nodes=cluster.nodes)
        if (problem := found.problem) and (message := waiting_reason(found)):
            return Stuck(found.node.step, message, problem.patience)
    return None


def failure_reason(found: Evidence) -> str:
    """Return why a pod failed, and what to change."""
    step, status = found.node.step, (found.pod or {}).get("status", {})
    if found.node.driver:
        driver = "It is the driver of Kubeflow Pipelines, which runs before the step: ask who operates it. "
        return _ended(found, driver)
    if status.get("reason") == TIMEOUT:
        return _ended(found, f"It took too long: raise environment.steps.{step}.timeout, or do less. ")
    if (seen := found.problem) and seen.reason == OUT_OF_MEMORY:
        return seen.message + _settings(seen.reason, found.node)
    if known := from_log(list(found.log)):
        return str(known)
    if reason := status.get("reason"):  # such as Evicted
        return (
            f"its node stopped its pod ({reason}: {status.get('message', '')}). Run it again: what is "
            f"done is cached. environment.steps.{step}.retries does that by itself."
        )
    return _ended(found)


def waiting_reason(found: Evidence) -> str | None:
    """Return what keeps a pod from starting, and what to change; None when nothing is known to."""
    if seen := found.problem:
        return seen.message + _settings(seen.reason, found.node)
    if reason := found.node.blocked_by:
        return f"{found.node.message.rstrip('.')}.{_settings(reason, found.node)}"
    return None


def _settings(reason: str, node: PodNode) -> str:
    """Return which keys of the configuration say what a pod asks for; none say it of a driver."""
    return "" if node.driver else SETTINGS.get(reason, "").format(step=node.step)


def _ended(found: Evidence, hint: str = "") -> str:
    """Return how a container ended, with the message of its node and the last lines of its log."""
    code = _exit_code((found.pod or {}).get("status", {}))
    ended = "it ended" if code is None else f"it ended with exit code {code}"
    said = f" ({found.node.message})" if found.node.message else ""
    end = (
        quote_end(found.log) if found.log else "Its log cannot be read from here; try `modelyard runs logs`."
    )
    return f"{ended}{said}. {hint}{end}"


def _exit_code(status: dict[str, Any]) -> int | None:
    states = [one["state"] for one in status.get("containerStatuses", ()) if one["name"] == MAIN]
    return states[0].get("terminated", {}).get("exitCode") if states else None
