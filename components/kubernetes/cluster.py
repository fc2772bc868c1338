"""A Kubernetes client for the objects of one namespace as JSON, with server-side apply.

    cluster = connect("modelyard-serving")
    cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", ...}, "modelyard-deploy")

In a pod it uses the pod's service account, elsewhere KUBECONFIG. Requests are retried while the API server is
unavailable, so each may be executed twice. The official client, whose import takes half a second, is imported
at the first use.
"""

import base64
import json
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from logging.handlers import BufferingHandler
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import yaml

from modelyard.components.artifacts import read_small_file
from modelyard.components.errors import ClusterError, ConfigError, describe
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.api_errors import explain_refusal
from modelyard.components.machine import find_proxy
from modelyard.components.server import PORT, TOKEN_HEADER, NoServerError, parse_tokens

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

PATHS = {
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "ReplicaSet": "/apis/apps/v1/namespaces/{namespace}/replicasets",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
    "Secret": "/api/v1/namespaces/{namespace}/secrets",
    "Event": "/api/v1/namespaces/{namespace}/events",
    "Node": "/api/v1/nodes",
    "Workflow": "/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows",
}
JSON_TYPE, APPLY_TYPE = "application/json", "application/apply-patch+yaml"
RAW_TYPE = "application/octet-stream"
RETRIED_STATUSES = (429, 500, 502, 503, 504)
RETRY_SECONDS = 30.0
MAX_MESSAGE = 400  # characters of a credential plugin's message
RETRY_INTERVAL = 0.5
TIMEOUT = (5.0, 60.0)  # seconds to connect, and to wait for data
CONFLICT_RETRIES = 60

T = TypeVar("T")


def connect(namespace: str, retry_connection: bool = False) -> "Cluster":
    """Return a client for a namespace of this pod's cluster, or of the cluster in KUBECONFIG.

    With `retry_connection`, the first connection is retried, too, as the cluster was reached before.

    Raises:
        ClusterError: there is no such cluster, or it does not respond.
        ConfigError: the proxy for it is not supported.
    """
    if not retry_connection:
        _check_reachable()
    from kubernetes.client import ApiClient, Configuration
    from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

    settings = Configuration()
    settings.proxy = settings.no_proxy = None  # some versions of the client read HTTP_PROXY
    in_cluster = True
    try:
        load_incluster_config(client_configuration=settings)
    except ConfigException:
        in_cluster = False
        handler = BufferingHandler(10)  # the client only logs that a credential plugin failed
        logging.getLogger().addHandler(handler)
        try:
            load_kube_config(_kubeconfig(), client_configuration=settings)
        except Exception as error:  # any class, if the file is malformed
            raise _unusable_kubeconfig(_kubeconfig(), describe(error)) from error
        finally:
            logging.getLogger().removeHandler(handler)
        if message := " ".join(
            record.getMessage() for record in handler.buffer if record.levelno >= logging.ERROR
        ):
            reason = shorten(message, MAX_MESSAGE, placeholder=" …").rstrip(".")
            raise ClusterError(
                f"The credential plugin of {_kubeconfig()} failed: {reason}. Log in to the cluster again."
            ) from None
    settings.retries = False
    if not in_cluster:
        settings.proxy = settings.proxy or find_proxy(settings.host)
    return Cluster(ApiClient(settings), namespace, in_cluster, retry_connection or in_cluster)


def _check_reachable() -> None:
    """Check that a cluster exists and is up, before the official client is imported.

    Raises:
        ClusterError: the kubeconfig does not exist, cannot be read or is too large, or the cluster refuses
            connections.
    """
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return
    files = [path for name in _kubeconfig().split(os.pathsep) if (path := Path(name).expanduser()).is_file()]
    if not files:
        raise ClusterError(
            f"There is no cluster: the file {_kubeconfig()} does not exist. Create it, or set KUBECONFIG."
        )
    try:
        contents = [read_small_file(path) for path in files]
    except OSError as error:
        raise _unusable_kubeconfig(str(error.filename), f"{error.strerror}.") from error
    try:
        (content,) = contents
        config = yaml.safe_load(content)
        contexts, clusters = (
            {entry["name"]: entry[kind] for entry in config[f"{kind}s"]} for kind in ("context", "cluster")
        )
        cluster = clusters[contexts[config["current-context"]]["cluster"]]
        url = urlsplit(cluster["server"])
        address = url.hostname, url.port or 443
    except (ValueError, LookupError, TypeError, yaml.YAMLError):
        return  # the official client reports it
    if "proxy-url" not in cluster and not find_proxy(cluster["server"]):
        try:
            socket.create_connection(address, TIMEOUT[0]).close()
        except OSError as error:
            raise _unreachable_error(cluster["server"], error) from error


def _kubeconfig() -> str:
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def _unusable_kubeconfig(path: str, reason: str) -> ClusterError:
    return ClusterError(
        f"The kubeconfig {path} cannot be used: {reason} Correct it, or set KUBECONFIG to another file."
    )


def _unreachable_error(server: str, error: Exception) -> ClusterError:
    reason = " ".join(str(getattr(error, "strerror", None) or error).split()).rstrip(".")
    return ClusterError(
        f"The cluster {server} does not respond: {reason}. Check that it runs, and its URL in the kubeconfig."
    )


def retry_on_conflict(description: str, write: Callable[[], T | None]) -> T:
    """Call `write` until its result is not None, and return the result.

    `write` reads and writes an object; it returns None if another process changed the object in between.

    Raises:
        ClusterError: other processes changed the object each time.
    """
    for _ in range(CONFLICT_RETRIES):
        if (result := write()) is not None:
            return result
        time.sleep(random.uniform(0, RETRY_INTERVAL))  # noqa: S311
    raise ClusterError(
        f"{description} was changed by other clients {CONFLICT_RETRIES} times in a row, so it was not "
        "written. Stop the field managers that `kubectl get -o yaml --show-managed-fields` shows, then try "
        "again."
    )


class Cluster:
    """A client for the objects of one namespace.

    `in_cluster` is whether this process is a pod, which reaches other pods directly. See `connect`.
    """

    def __init__(self, api: Any, namespace: str, in_cluster: bool, retry_connection: bool = False) -> None:
        self._api, self.namespace, self.in_cluster = api, namespace, in_cluster
        self._retry_connection = retry_connection

    def get(self, kind: str, name: str) -> Json | None:
        """Return an object, or None if it does not exist."""
        item: Json | None = self._json("GET", self._path(kind, name), none_statuses=(404,))
        return item

    def list_objects(self, kind: str, labels: str = "", fields: str = "") -> list[Json]:
        """Return the objects that match the selectors, as in `app=digits,track!=stable`."""
        query = [("labelSelector", labels), ("fieldSelector", fields)]
        response = self._json("GET", self._path(kind), query=[pair for pair in query if pair[1]])
        return list(response["items"])

    def apply(self, desired: Json, manager: str) -> Json | None:
        """Apply the fields of `desired` (server-side) and return the object.

        Return None if `desired` has a `resourceVersion` and the object changed since.

        Raises:
            ClusterError: the cluster refuses the request or does not respond.
        """
        path = self._path(desired["kind"], desired["metadata"]["name"])
        query = [("fieldManager", manager), ("force", "true")]
        item: Json | None = self._json("PATCH", path, desired, query, APPLY_TYPE, none_statuses=(409,))
        return item

    def delete(self, kind: str, observed: Json) -> bool:
        """Delete an object and its dependents; return False if it changed since it was observed."""
        preconditions = {key: observed["metadata"][key] for key in ("uid", "resourceVersion")}
        body = {"propagationPolicy": "Background", "preconditions": preconditions}
        path = self._path(kind, observed["metadata"]["name"])
        return self._json("DELETE", path, body, none_statuses=(404, 409)) is not None

    def list_events(self, item: Json) -> list[Json]:
        """Return the events of an object, oldest first; empty without permission."""
        try:
            events = self.list_objects("Event", fields=f"involvedObject.uid={item['metadata']['uid']}")
        except ClusterError:
            return []
        return sorted(events, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")

    @cached_property
    def nodes(self) -> list[Json]:
        """The nodes, read once; empty without permission."""
        try:
            return self.list_objects("Node")
        except ClusterError:
            return []

    def read_memory_usage(self, pod: Json, container: str) -> float | None:
        """Return the bytes of memory that a container uses, from its node; None if it is not reported.

        Raises:
            ClusterError: there is no permission, or the cluster does not respond.
        """
        path = f"{PATHS['Node']}/{pod['spec']['nodeName']}/proxy/stats/summary"
        summary = self._json("GET", path, query=[("only_cpu_and_memory", "true")])
        for stats in summary["pods"]:
            if stats["podRef"]["uid"] == pod["metadata"]["uid"]:
                memory = {item["name"]: item.get("memory", {}) for item in stats.get("containers", [])}
                return float(memory.get(container, {}).get("workingSetBytes", 0)) or None
        return None

    def stream_log(self, pod: str, container: str, skip: int = 0, ended: bool = False) -> Iterator[str]:
        """Follow a container's log: yield its lines after the first `skip`.

        An incomplete last line is yielded only if the container has `ended`. After a lost connection, the log
        continues after the last complete line. The iterator also ends if there is no log, or if it cannot be
        read for RETRY_SECONDS, as on a lost node; the pod's status has the reason.

        Raises:
            ClusterError: there is no permission.
        """
        path, query = f"{self._path('Pod', pod)}/log", [("container", container), ("follow", "true")]
        last_response = time.monotonic()
        while time.monotonic() <= last_response + RETRY_SECONDS:
            try:
                with _client_errors(), self._open("GET", path, query=query) as response:
                    try:
                        for line in islice(_iterate_lines(response, ended), skip, None):
                            skip += 1
                            yield line
                    finally:
                        last_response = time.monotonic()
                    return
            except _ApiError as error:
                if error.status in (400, 404):
                    return
                if error.status is not None and error.status not in RETRIED_STATUSES:
                    raise self._explain_refusal(error) from error
            time.sleep(RETRY_INTERVAL)

    def proxy_request(
        self, server: "ProxiedServer", method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Send a request to a server through the API server; return the status and the body.

        The status is 504 if there is no response in time.

        Raises:
            NoServerError: the API server cannot reach the Pod or Service, or there is none.
            ClusterError: the API server refuses the request or does not respond.
        """
        name = f"https:{server.name}" if server.tls else server.name
        target = f"{self._path(server.kind, name)}:{server.port}/proxy{path}"
        headers = {**headers, TOKEN_HEADER: server.token} if server.token else headers
        deadline = time.monotonic() + server.retry_seconds
        with self.translate_errors():
            while True:
                try:
                    return 200, self._request(method, target, body, (), RAW_TYPE, headers=headers)
                except _ApiError as error:
                    if error.timed_out:
                        return 504, f"no response within {TIMEOUT[1]:g} s".encode()
                    if error.status is None:
                        raise
                    if (message := error.api_server_message) is None:
                        return error.status, error.body
                    if error.status in (401, 403):
                        raise
                    if error.status not in RETRIED_STATUSES or time.monotonic() >= deadline:
                        model = server.name if server.kind == "Service" else "NAME"
                        raise NoServerError(
                            f"{server} in the namespace {self.namespace} does not respond: "
                            f"{message.rstrip('.')}. See `modelyard rollout status {model} -e ENV`."
                        ) from error
                time.sleep(RETRY_INTERVAL)

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Raise a ClusterError with a remedy if the API server refuses a request or does not respond."""
        try:
            yield
        except _ApiError as error:
            if error.status is None:
                raise _unreachable_error(self._api.configuration.host, error) from error
            raise self._explain_refusal(error) from error

    def _path(self, kind: str, name: str = "") -> str:
        folder = PATHS[kind].format(namespace=self.namespace)
        return f"{folder}/{name}" if name else folder

    def _json(self, *request: Any, none_statuses: tuple[int, ...] = (), **options: Any) -> Any:
        """Return the response as JSON, or None if its status is one of `none_statuses`."""
        with self.translate_errors():
            try:
                return json.loads(self._request(*request, retried_statuses=RETRIED_STATUSES, **options))
            except _ApiError as error:
                if error.status in none_statuses:
                    return None
                raise

    def _request(self, *request: Any, retried_statuses: tuple[int, ...] = (), **options: Any) -> bytes:
        """Send a request; retry it if there is no response, or one of `retried_statuses`."""
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            try:
                with _client_errors():
                    content = bytes(self._open(*request, **options).data)
                self._retry_connection = True
                return content
            except _ApiError as error:
                self._retry_connection = self._retry_connection or not error.connection_failed
                retry = self._retry_connection if error.status is None else error.status in retried_statuses
                if not retry or time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_INTERVAL)

    def _open(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Any = (),
        media: str = JSON_TYPE,
        headers: Any = None,
    ) -> "BaseHTTPResponse":
        response: BaseHTTPResponse = self._api.call_api(
            path,
            method,
            query_params=list(query),
            header_params={"Content-Type": media, "Accept": "application/json, */*", **(headers or {})},
            body=body,
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _preload_content=False,
            _request_timeout=TIMEOUT,
        )
        return response

    def _explain_refusal(self, error: "_ApiError") -> ClusterError:
        if error.status == 401:
            return ClusterError(
                f"The cluster does not accept the credentials in the kubeconfig {_kubeconfig()} (401). Renew "
                "them."
            )
        try:
            message = str(json.loads(error.body)["message"])
        except (TypeError, ValueError, KeyError):
            message = f"{error.status} {error}"
        return ClusterError(explain_refusal(message))


@dataclass(frozen=True)
class ProxiedServer:
    """A server in a Pod or behind a Service, reached through the API server; see server.Server.

    Requests are retried for `retry_seconds` while the API server is busy or cannot reach the Pod or Service.
    With TLS, the API server does not verify the certificate.
    """

    cluster: Cluster
    kind: str
    name: str
    port: int = PORT
    retry_seconds: float = 0.0
    token: str | None = field(default=None, repr=False)
    tls: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """See Server."""
        return self.cluster.proxy_request(self, method, path, body, headers)


def read_token(cluster: Cluster, secret: str | None) -> str | None:
    """Return the first token of the key `token` in a Secret; None without a Secret.

    Raises:
        ConfigError: the Secret or its key does not exist.
        ClusterError: there is no permission, or the cluster does not respond.
    """
    if secret is None:
        return None
    data = (cluster.get("Secret", secret) or {}).get("data", {})
    if "token" not in data:
        raise ConfigError(
            f"The namespace {cluster.namespace} has no Secret {secret} with the key token "
            f"(environment.serving.token_secret). Create it: `kubectl create secret generic {secret} "
            f"--namespace {cluster.namespace} --from-file=token=FILE`."
        )
    return parse_tokens(base64.b64decode(data["token"]), f"token of the Secret {secret}")[0]


class _ApiError(Exception):
    """The API server returned an error status, or did not respond (`status` is None)."""

    def __init__(
        self,
        reason: str,
        status: int | None = None,
        body: Any = b"",
        timed_out: bool = False,
        connection_failed: bool = False,
    ) -> None:
        super().__init__(reason)
        self.status, self.timed_out, self.connection_failed = status, timed_out, connection_failed
        self.body: bytes = body if isinstance(body, bytes) else str(body).encode()

    @property
    def api_server_message(self) -> str | None:
        """The message of the API server itself; None if the proxied server responded."""
        try:
            status = json.loads(self.body)
        except ValueError:
            return None
        is_status = isinstance(status, dict) and status.get("kind") == "Status"
        return str(status.get("message", self)) if is_status else None


@contextmanager
def _client_errors() -> Iterator[None]:
    """Translate exceptions of the official client and its HTTP library to _ApiError."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

    try:
        yield
    except ApiException as error:  # has no status for TLS errors
        status = error.status or None
        raise _ApiError(str(error.reason), status, error.body, connection_failed=status is None) from error
    except ProtocolError as error:
        raise _ApiError(str(error)) from error
    except HTTPError as error:
        timed_out = isinstance(error, ReadTimeoutError)
        raise _ApiError(str(error), timed_out=timed_out, connection_failed=True) from error


def _iterate_lines(response: "BaseHTTPResponse", ended: bool) -> Iterator[str]:
    rest = b""
    for part in response.stream():
        *lines, rest = (rest + part).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
    if rest and ended:
        yield rest.decode(errors="replace")
