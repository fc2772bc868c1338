"""The way to Kubeflow Pipelines through the cluster: a port-forward that opens no port of this machine."""

import socket

import urllib3
from urllib3.connection import HTTPConnection

from modelyard.components.errors import BackendError, ClusterError
from modelyard.components.kubernetes.cluster import Cluster, connect
from modelyard.components.kubernetes.pod_problem import is_ready
from modelyard.pipelines.runners.kfp.endpoint import PORT, SERVICE, VARIABLE

INSTEAD = f"Or name an address: --endpoint, {VARIABLE} or environment.kfp.endpoint."


def tunnelled(namespace: str) -> urllib3.PoolManager:
    """Return a pool whose connections lead to the API server of Kubeflow Pipelines, whatever their address.

    Args:
        namespace: where it is installed.

    Raises:
        BackendError: there is no cluster.
    """
    try:
        cluster = connect(namespace)
    except ClusterError as error:
        raise BackendError(f"Kubeflow Pipelines has no address here. {error} {INSTEAD}") from error

    class Connection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _socket(cluster)

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Connection

    manager = urllib3.PoolManager(retries=False)
    manager.pool_classes_by_scheme = {"http": Pool}
    return manager


def _socket(cluster: Cluster) -> socket.socket:
    try:
        service = cluster.get("Service", SERVICE)
        if service is None:
            raise BackendError(
                f"There is no Service {SERVICE} in the namespace {cluster.namespace} of the cluster that "
                "KUBECONFIG names, so Kubeflow Pipelines is not installed there. Correct "
                f"environment.kfp.namespace or KUBECONFIG. {INSTEAD}"
            )
        labels = ",".join(f"{key}={value}" for key, value in service["spec"].get("selector", {}).items())
        pods = [pod for pod in cluster.list("Pod", labels=labels) if is_ready(pod)]
        if not pods:
            raise BackendError(
                f"Kubeflow Pipelines is installed in the namespace {cluster.namespace}, but no pod of its "
                f"API server is ready. `kubectl describe pods -n {cluster.namespace} -l {labels}` shows why."
            )
        return cluster.forward(pods[0]["metadata"]["name"], PORT)
    except ClusterError as error:
        raise BackendError(
            f"The way to Kubeflow Pipelines through the cluster is closed. {error} {INSTEAD}"
        ) from error
