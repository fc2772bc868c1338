"""Whether a pod of a run on Kubeflow Pipelines waits for what may never come: a node, an image."""

from dataclasses import dataclass

from modelyard.components.explain.cause import Evidence, waiting
from modelyard.components.explain.there import RUN
from modelyard.components.explain.workflow import PodNode, task_of
from modelyard.components.kubernetes.cluster import Cluster
from modelyard.components.kubernetes.pod_problem import Json

NODE_NAME = "workflows.argoproj.io/node-name"


@dataclass(frozen=True)
class Stuck:
    """A pod that waits.

    `step` is the task that it works for, `message` a paragraph that says why it waits and what to change.
    `patience` is how long waiting may help, in seconds: 0 when it does not, None when only the caller says.
    """

    step: str
    message: str
    patience: float | None


def stuck(cluster: Cluster, run: str) -> Stuck | None:
    """Return the first pod of a run that waits for what may never come; None when none does.

    Args:
        cluster: with the namespace of the run.
        run: the run's id.

    Raises:
        ClusterError: the pods may not be read, or the cluster does not answer.
    """
    for pod in cluster.list("Pod", labels=f"{RUN}={run}", fields="status.phase=Pending"):
        found = Evidence(node_of(pod), pod=pod, events=cluster.events(pod), nodes=cluster.nodes)
        if (trouble := found.trouble) and (message := waiting(found)):
            return Stuck(found.node.step, message, trouble.patience)
    return None


def node_of(pod: Json) -> PodNode:
    """Return a pod as the node of its Workflow, whose path is in its annotations: `….train.executor`."""
    meta = pod["metadata"]
    *_, parent, name = ("", *str(meta.get("annotations", {}).get(NODE_NAME, meta["name"])).split("."))
    step, driver = task_of(name, parent or name)
    return PodNode(step, driver, meta["name"], pod["status"].get("phase", "Pending"), "", "", "")
