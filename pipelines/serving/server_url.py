"""The URL of a model's server, and how it is reached: directly, or through the API server of its cluster."""

import json
from typing import NamedTuple

import httpx

from modelyard.components.deploy.platforms import find_platform_class
from modelyard.components.errors import ClusterError
from modelyard.components.kubernetes.cluster import Cluster, connect
from modelyard.pipelines.environments.environment import Environment

REPLACED = ("accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent")
RAW = {"Content-Type": "application/octet-stream"}  # else the Kubernetes client writes JSON around it


class ServerUrl(NamedTuple):
    """Where a server answers; `transport` carries the requests there, httpx's own when None."""

    url: str
    transport: httpx.BaseTransport | None = None


def find_server(name: str, environment: Environment) -> ServerUrl:
    """Return the URL of a model's server.

    Args:
        name: the model's name.
        environment: a cluster.

    Raises:
        ClusterError: it names no URL for the model, and there is no cluster either.
    """
    if url := environment.serving.urls.get(name):
        return ServerUrl(url.rstrip("/"))
    target = environment.target(needs_image=False)
    url = find_platform_class(target).url(name, target)
    return ServerUrl(str(url), ServiceTransport(connect(target.namespace), name))


class ServiceTransport(httpx.BaseTransport):
    """Carries requests to a Service, as http://NAME.NAMESPACE:PORT, through the cluster's API server.

    So no port is opened outside the cluster.

    Args:
        cluster: the Service's namespace.
        name: the model's.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster, self._name = cluster, name

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx.

        Raises:
            ClusterError: the cluster does not answer, does not allow it, or has no server of the model.
        """
        head = {name: value for name, value in request.headers.items() if name not in REPLACED}
        path, body = request.url.raw_path.decode(), request.read()
        host, port = request.url.host.partition(".")[0], request.url.port or 80
        status, answer = self._cluster.proxy_request(
            "Service", host, port, request.method, path, body, {**head, **RAW}
        )
        if why := _api_server_error(status, answer):
            raise ClusterError(
                f"The cluster leads to no server of {self._name} in {self._cluster.namespace}: {why}. "
                f"`modelyard rollout status {self._name} -e ENV` says what serves it."
            )
        return httpx.Response(status, content=answer)


def _api_server_error(status: int, answer: bytes) -> str:
    """Return the error of the API server itself; empty when a server answered."""
    try:
        said = json.loads(answer) if status >= 400 else None
    except ValueError:
        return ""
    if not isinstance(said, dict) or said.get("kind") != "Status":
        return ""
    return str(said.get("message", status)).rstrip(".")
