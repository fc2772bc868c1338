"""A run on Kubeflow Pipelines: its Workflow, its pods and their logs say how it ended."""

import os
from collections import deque
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from modelyard.components.errors import ClusterError, NotFoundError
from modelyard.components.explain import words
from modelyard.components.explain.cause import Evidence, cause, waiting
from modelyard.components.explain.explanation import Explanation, cancelled, failed, running, succeeded
from modelyard.components.explain.workflow import PodNode, Workflow
from modelyard.components.kubernetes.cluster import Cluster, connect

ME = "KFP_POD_NAME"
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
WORKFLOW = "workflows.argoproj.io/workflow"
RUN = "pipeline/runid"
MAIN = "main"
LINES = 5000
ENDED = (
    "somebody ended it, or a `--wait` did, as it does when a pod cannot start, and said so. Nothing of it "
    "goes on."
)


class Records(Protocol):
    """What there is to read of a run."""

    def workflow(self) -> Workflow:
        """Return its Workflow."""

    def evidence(self, node: PodNode) -> Evidence:
        """Return what is known of a pod."""

    def log(self, node: PodNode) -> Sequence[str]:
        """Return what a pod that has ended wrote."""


class Living:
    """A run whose Workflow and pods are on the cluster.

    Args:
        cluster: with the namespace of the run.
        workflow: the Workflow's name.
    """

    def __init__(self, cluster: Cluster, workflow: str) -> None:
        self._cluster, self._name = cluster, workflow

    @cached_property
    def _workflow(self) -> Workflow:
        found = self._cluster.get("Workflow", self._name)
        if found is None:
            raise NotFoundError(f"There is no Workflow {self._name} in {self._cluster.namespace} any more.")
        return Workflow(found)

    def workflow(self) -> Workflow:
        """Return its Workflow, as it was first seen."""
        return self._workflow

    def evidence(self, node: PodNode) -> Evidence:
        """Return what is known of a pod."""
        pod = self._cluster.get("Pod", node.pod)
        events = self._cluster.events(pod) if pod else []
        nodes = self._cluster.nodes if node.phase == "Pending" else []
        return Evidence(node, self.log(node) if node.finished else [], pod, events, nodes)

    def log(self, node: PodNode) -> Sequence[str]:
        """Return the last lines that a pod wrote; none when they may not be read."""
        try:
            return deque(self._cluster.log(node.pod, MAIN), maxlen=LINES)
        except ClusterError:
            return ()


def own(environ: os._Environ[str] = os.environ) -> Living:
    """Return the run that this process is the exit task of.

    Raises:
        ClusterError: it is in no pod of a Workflow, or may not see it.
    """
    name = environ.get(ME, "")
    if not name or not NAMESPACE.is_file():
        raise ClusterError("explain is in no pod of Kubeflow Pipelines, so it cannot see what ran before it.")
    cluster = connect(NAMESPACE.read_text(encoding="utf-8").strip())
    pod = cluster.get("Pod", name)
    if pod is None or WORKFLOW not in pod["metadata"].get("labels", {}):
        raise ClusterError(f"The pod {name} belongs to no Workflow, so there is nothing to explain.")
    return Living(cluster, pod["metadata"]["labels"][WORKFLOW])


def explain(run: str, model: str | None, records: Records, ended_well: bool | None = None) -> Explanation:
    """Return how a run ended, or how it fares.

    Args:
        run: the run's name.
        model: the model's name.
        records: what there is to read of it.
        ended_well: what is known of its end before its Workflow knows it, by its exit task.
    """
    workflow = records.workflow()
    if workflow.terminated:
        at_work = workflow.failed() or workflow.working()
        return cancelled(run, model, at_work.step if at_work else None, ENDED)
    if ended_well or workflow.phase == "Succeeded":
        return succeeded(run, model, words.decision(lambda step: _log_of(records, workflow.own(step))))
    if bad := workflow.failed():
        return failed(run, model, bad.step, cause(records.evidence(bad)))
    if ended_well is False or workflow.phase in ("Failed", "Error"):
        return failed(run, model, None, workflow.message or "no pod of it says why.")
    if late := workflow.waiting():
        return running(run, model, late.step, waiting(records.evidence(late)))
    at_work = workflow.working()
    return running(run, model, at_work.step if at_work else None, None)


def _log_of(records: Records, node: PodNode | None) -> Sequence[str]:
    return records.log(node) if node and node.phase == "Succeeded" else ()
