"""Where a model's server is asked from here: at its address, or through the API server where it has none."""

import json
from typing import NamedTuple

import httpx

from modelyard.components.deploy.objects import PORT
from modelyard.components.errors import ClusterError
from modelyard.components.kubernetes.cluster import Cluster, connect
from modelyard.pipelines.environments.environment import Environment

OURS = ("accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent")
AS_IT_IS = {"Content-Type": "application/octet-stream"}  # else Kubernetes' client writes JSON around it


class Address(NamedTuple):
    """Where a server answers; `transport` takes the requests there, httpx's own when None."""

    url: str
    transport: httpx.BaseTransport | None = None


def address_of(name: str, environment: Environment) -> Address:
    """Return where the server of a model is asked.

    Args:
        name: the model's name.
        environment: a cluster.

    Raises:
        ClusterError: there is no address for it, and no cluster either.
    """
    if url := environment.serving.urls.get(name):
        return Address(url.rstrip("/"))
    namespace = environment.serving.namespace
    return Address(f"http://{name}.{namespace}:{PORT}", ThroughService(connect(namespace), name))


class ThroughService(httpx.BaseTransport):
    """Takes requests to a Service through the API server; nothing of it has to be open outside the cluster.

    Args:
        cluster: the Service's namespace.
        name: of the Service.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster, self._name = cluster, name

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx.

        Raises:
            ClusterError: the cluster does not answer, does not allow it, or has no server of the model.
        """
        head = {name: value for name, value in request.headers.items() if name not in OURS}
        path, body = request.url.raw_path.decode(), request.read()
        status, answer = self._cluster.proxy_request(
            "Service", self._name, PORT, request.method, path, body, {**head, **AS_IT_IS}
        )
        if why := _of_kubernetes(status, answer):
            raise ClusterError(
                f"The cluster leads to no server of {self._name} in {self._cluster.namespace}: {why}. "
                f"`modelyard rollout status {self._name} -e ENV` says what serves it."
            )
        return httpx.Response(status, content=answer)


def _of_kubernetes(status: int, answer: bytes) -> str:
    """Return what the API server itself says in place of a server; empty when the server answered."""
    try:
        said = json.loads(answer) if status >= 400 else None
    except ValueError:
        return ""
    if not isinstance(said, dict) or said.get("kind") != "Status":
        return ""
    return str(said.get("message", status)).rstrip(".")
