"""What Kubeflow Pipelines keeps of a run: its Workflow and its logs, also when the pods are gone.

The API's description has neither: the Workflow is in v1beta1's run, a log at an address of its own. While
there is a cluster to ask, its pods say more.
"""

import json
from collections.abc import Sequence

from modelyard.components.errors import ClusterError, NotFoundError
from modelyard.components.explain.failure_reason import Evidence
from modelyard.components.explain.workflow import PodNode, Workflow
from modelyard.components.kubernetes.cluster import Cluster, connect
from modelyard.pipelines.runners.kfp.client import Backend

REFUSAL = '{"error_message":'
LOG_PAUSE = 10.0  # seconds between two looks at a log, which comes as a whole each time


class Kept:
    """The records of a run, as `modelyard.components.explain` reads them.

    Args:
        backend: the server.
        run_id: the run's id.
        cluster: with the namespace of the run's pods, if it can be asked; who finds out that it cannot
            sets it to None.
    """

    def __init__(self, backend: Backend, run_id: str, cluster: Cluster | None = None) -> None:
        self.cluster = cluster
        self._backend, self._run_id = backend, run_id

    def workflow(self) -> Workflow:
        """Return its Workflow as it was last reported; one without nodes when it was not yet.

        Raises:
            NotFoundError: there is no such run any more.
            BackendError: the server does not answer.
        """
        found = json.loads(self._backend.text(f"/apis/v1beta1/runs/{self._run_id}"))
        manifest = found.get("pipeline_runtime", {}).get("workflow_manifest")
        return Workflow(json.loads(manifest) if manifest else {"metadata": {"name": ""}})

    def log(self, node: PodNode) -> Sequence[str]:
        """Return what a pod wrote; nothing when nobody has it any more."""
        try:
            text = self._backend.text(f"/apis/v1alpha1/runs/{self._run_id}/nodes/{node.pod}/log")
        except NotFoundError:
            return []
        # the server says that all is well before it looks, and what was not after that
        return text.partition(REFUSAL)[0].splitlines()

    def evidence(self, node: PodNode) -> Evidence:
        """Return what is known of a pod."""
        waits, pod = node.phase == "Pending", None
        try:
            pod = self.cluster.get("Pod", node.pod) if self.cluster else None
        except ClusterError:
            self.cluster = None
        if self.cluster is None or pod is None:
            return Evidence(node, self.log(node))
        return Evidence(
            node,
            [] if waits else self.log(node),
            pod,
            self.cluster.events(pod),
            self.cluster.nodes if waits else [],
        )


def cluster_of(namespace: str) -> Cluster | None:
    """Return the cluster with a namespace, if there is one to ask from here."""
    try:
        return connect(namespace)
    except ClusterError:
        return None
