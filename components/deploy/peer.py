"""Who answers HTTP requests: a server at an address, or a pod or Service behind the API server.

Requests are marked as golden: the server's metrics keep them apart from clients'.
"""

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from modelyard.components.deploy.objects import PORT
from modelyard.components.errors import DeployError

if TYPE_CHECKING:  # a laptop needs no client of Kubernetes
    from modelyard.components.kubernetes.cluster import Cluster

MARK = {"x-modelyard-golden": "1"}
TIMEOUT = 30.0
SAID = 300  # bytes of an error that are told

logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs each request, and a watch sends thousands


class Peer(Protocol):
    """A server of a model; both methods raise DeployError when it does not answer with success."""

    def get(self, path: str) -> bytes:
        """Return what is at a path."""

    def post(self, path: str, body: Any) -> Any:
        """Send JSON, and return the JSON that comes back."""


@dataclass(frozen=True)
class Direct:
    """A server at an address; each request has a connection of its own, which a Service sends anywhere."""

    url: str

    def get(self, path: str) -> bytes:
        """See Peer."""
        return self._ask("GET", path)

    def post(self, path: str, body: Any) -> Any:
        """See Peer."""
        return _parsed(self._ask("POST", path, json=body))

    def _ask(self, method: str, path: str, **more: Any) -> bytes:
        try:
            answer = httpx.request(method, f"{self.url}{path}", headers=MARK, timeout=TIMEOUT, **more)
        except httpx.HTTPError as error:
            raise DeployError(f"{self.url} did not answer: {error}") from error
        return _successful(self.url, answer.status_code, answer.content)


@dataclass(frozen=True)
class Proxied:
    """A Pod or a Service, asked through the API server, from outside the cluster."""

    cluster: "Cluster"
    kind: str
    name: str

    def get(self, path: str) -> bytes:
        """See Peer."""
        return self._ask("GET", path)

    def post(self, path: str, body: Any) -> Any:
        """See Peer."""
        return _parsed(self._ask("POST", path, body))

    def _ask(self, method: str, path: str, body: Any = None) -> bytes:
        status, answer = self.cluster.proxy_request(self.kind, self.name, PORT, method, path, body, MARK)
        return _successful(f"{self.kind} {self.name}", status, answer)


def _successful(who: str, status: int, answer: bytes) -> bytes:
    if status >= 400:
        said = " ".join(answer[:SAID].decode(errors="replace").split())
        raise DeployError(f"{who} answered {status}: {said}")
    return answer


def _parsed(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError as error:
        raise DeployError(f"the answer is not JSON: {answer[:100]!r}") from error
