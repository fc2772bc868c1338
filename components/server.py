"""A model's server, for its clients and those who deploy it: its port, its headers, requests to it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from modelyard.components.errors import ClusterError, ServeError
from modelyard.components.source.checks import is_loopback

PORT = 8501
"""Of a server's container, and the default of `serving.port`."""
GOLDEN_HEADER = "x-modelyard-golden"
"""Marks a golden request: the server's metrics count it apart from those of clients."""
MARK = {GOLDEN_HEADER: "1"}
NO_HEADERS: Mapping[str, str] = {}
TIMEOUT = 60.0
QUOTED = 500  # bytes of an error that are shown


class NoServerError(ClusterError, ServeError):
    """The API server of a cluster cannot pass a request on to a server."""


class Server(Protocol):
    """Where a model's server answers; as a string, its name for people."""

    def request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Send a request; return the status and the body of the answer.

        Raises:
            ServeError: there is no answer.
            ClusterError: the API server in between does not answer, or does not allow it.
        """


@dataclass(frozen=True)
class HttpServer:
    """A server at a URL; each request has its own connection, which a Service sends to any pod.

    Args:
        url: of the server, without a slash at its end.
        proxies: whether the proxies of the environment (HTTP_PROXY) are used; never on this machine.
    """

    url: str
    proxies: bool = False

    def __str__(self) -> str:
        return self.url

    def request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """See Server; a redirect is not followed."""
        from http.client import HTTPException  # the import of httpx takes longer than a request
        from urllib import request

        proxies: dict[str, str] | None = None if self.proxies and not is_loopback(self.url) else {}
        opener = request.OpenerDirector()
        handlers = request.HTTPHandler(), request.HTTPSHandler(), request.UnknownHandler()
        for handler in (request.ProxyHandler(proxies), *handlers):
            opener.add_handler(handler)
        try:
            headers = {"Content-Type": "application/json", **headers}
            one = request.Request(f"{self.url}{path}", body, headers, method=method)  # noqa: S310
            with opener.open(one, timeout=TIMEOUT) as answer:
                return answer.status, answer.read()
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise ServeError(
                f"No answer from {self}: {reason}. Is a model server running there (`modelyard serve`), and "
                "is the address right?"
            ) from error


def send(
    server: Server,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] = NO_HEADERS,
) -> bytes:
    """Send a request to a server and return the body of its answer.

    Raises:
        ServeError: there is none, or its status is not one of success.
        ClusterError: see Server.
    """
    status, answer = server.request(method, path, body, headers)
    if not 200 <= status < 300:
        quoted = " ".join(answer[:QUOTED].decode(errors="replace").split())
        raise ServeError(f"{server} answered {status}: {quoted}")
    return answer


def predict_one(server: Server, model: str, instance: Any, headers: Mapping[str, str] = NO_HEADERS) -> Any:
    """Return a server's prediction for one example.

    Args:
        server: the server.
        model: the model's name, or NAME/versions/NUMBER.
        instance: the example, as JSON.
        headers: of the request.

    Raises:
        ServeError: there is none.
        ClusterError: see Server.
    """
    body = json.dumps({"instances": [instance]}).encode()
    answer = send(server, "POST", f"/v1/models/{model}:predict", body, headers)
    try:
        (prediction,) = json.loads(answer)["predictions"]
    except (ValueError, LookupError, TypeError) as error:
        raise ServeError(f"{server} did not answer a prediction: {error!r}") from error
    return prediction
