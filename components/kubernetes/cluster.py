"""A thin client for Kubernetes: the objects of one namespace as plain JSON, written by server-side apply.

    cluster = connect("modelyard-serving")
    cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", ...}, "modelyard-deploy")

Inside a pod it uses the pod's service account, elsewhere KUBECONFIG. Reads, applies, deletions and proxied
requests are repeated while the API server is unavailable for a moment: each may be done twice.

The official client takes half a second to import, so it is loaded by the first use of a cluster.
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

from modelyard.components.errors import ClusterError, ConfigError, describe
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.api_errors import explain_refusal
from modelyard.components.machine import proxy_for
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
LONGEST = 400  # characters of what a login program says
RETRY_INTERVAL = 0.5
TIMEOUT = (5.0, 60.0)
CONFLICT_RETRIES = 60

T = TypeVar("T")


def connect(namespace: str, retry_connection: bool = False) -> "Cluster":
    """Return the namespace of the cluster that this process belongs to, or that KUBECONFIG names.

    Args:
        namespace: the namespace.
        retry_connection: whether the first connection is retried, as when the cluster was reached before.

    Raises:
        ClusterError: there is no such cluster.
        ConfigError: it cannot be reached through the proxy for it.
    """
    if not retry_connection:
        _check_reachable()
    from kubernetes.client import ApiClient, Configuration
    from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

    settings = Configuration()
    settings.proxy = settings.no_proxy = None  # what HTTP_PROXY names, in some versions
    in_cluster = True
    try:
        load_incluster_config(client_configuration=settings)
    except ConfigException:
        in_cluster = False
        logged = BufferingHandler(10)  # a login program that fails is logged, and the client goes on without
        logging.getLogger().addHandler(logged)
        try:
            load_kube_config(_kubeconfig(), client_configuration=settings)
        except Exception as error:  # of whatever a malformed file makes it raise
            raise _no_cluster(describe(error)) from error
        finally:
            logging.getLogger().removeHandler(logged)
        if message := " ".join(one.getMessage() for one in logged.buffer if one.levelno >= logging.ERROR):
            why = shorten(message, LONGEST, placeholder=" …").rstrip(".")
            raise ClusterError(
                f"The login to the cluster that KUBECONFIG names fails: {why}. Log in again."
            ) from None
    settings.retries = False
    if not in_cluster:
        settings.proxy = settings.proxy or proxy_for(settings.host)
    return Cluster(ApiClient(settings), namespace, in_cluster, retry_connection or in_cluster)


def _check_reachable() -> None:
    """Find that there is no cluster, or that it is down, before the official client is imported.

    Raises:
        ClusterError: KUBECONFIG names no file that is there, or nothing listens at the cluster's address.
    """
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return
    files = [path for name in _kubeconfig().split(os.pathsep) if (path := Path(name).expanduser()).is_file()]
    if not files:
        raise _no_cluster(f"there is no file {_kubeconfig()}.")
    try:
        (file,) = files
        config = yaml.safe_load(file.read_bytes())
        contexts, clusters = (
            {one["name"]: one[kind] for one in config[f"{kind}s"]} for kind in ("context", "cluster")
        )
        cluster = clusters[contexts[config["current-context"]]["cluster"]]
        url = urlsplit(cluster["server"])
        address = url.hostname, url.port or 443
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return  # the official client says what is wrong
    if "proxy-url" not in cluster and not proxy_for(cluster["server"]):
        try:
            socket.create_connection(address, TIMEOUT[0]).close()
        except OSError as error:
            raise _unreachable(cluster["server"], error) from error


def _kubeconfig() -> str:
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def _no_cluster(why: str) -> ClusterError:
    return ClusterError(
        f"There is no cluster to connect to: {why} Name one in KUBECONFIG, or in ~/.kube/config."
    )


def _unreachable(server: str, error: Exception) -> ClusterError:
    why = " ".join(str(error).split()).rstrip(".")
    return ClusterError(
        f"The cluster {server} does not answer: {why}. Check that it runs and that KUBECONFIG names the "
        "right one."
    )


def retry_on_conflict(what: str, write: Callable[[], T | None]) -> T:
    """Return what `write` returns as soon as it is not None: no other process wrote meanwhile.

    Args:
        what: the object, for the error.
        write: reads the object, and writes it over what it read.

    Raises:
        ClusterError: others changed it each time.
    """
    for _ in range(CONFLICT_RETRIES):
        if (written := write()) is not None:
            return written
        time.sleep(random.uniform(0, RETRY_INTERVAL))  # noqa: S311 - so that two that race do not stay in step
    raise ClusterError(
        f"{what} was changed by others {CONFLICT_RETRIES} times in a row, so it was not written. Stop the "
        "field managers that `kubectl get -o yaml --show-managed-fields` shows, then try again."
    )


class Cluster:
    """The objects of one namespace.

    Args:
        api: the official client.
        namespace: where the objects are.
        inside: whether this process is a pod, which reaches other pods directly.
        retry_connection: whether the first connection is retried, as when the cluster was reached before.
    """

    def __init__(self, api: Any, namespace: str, in_cluster: bool, retry_connection: bool = False) -> None:
        self._api, self.namespace, self.in_cluster = api, namespace, in_cluster
        self._retry_connection = retry_connection

    def get(self, kind: str, name: str) -> Json | None:
        """Return an object, or None when there is none of that name."""
        found: Json | None = self._json("GET", self._path(kind, name), none_statuses=(404,))
        return found

    def apply(self, desired: Json, manager: str) -> Json | None:
        """Give an object the fields of `desired`; those that others set beside them stay.

        With a `resourceVersion` in its metadata, the object must not have changed since; None if it did.

        Raises:
            ClusterError: the cluster refuses it, or does not answer.
        """
        path = self._path(desired["kind"], desired["metadata"]["name"])
        query = [("fieldManager", manager), ("force", "true")]
        written: Json | None = self._json("PATCH", path, desired, query, APPLY_TYPE, none_statuses=(409,))
        return written

    def delete(self, kind: str, observed: Json) -> bool:
        """Delete an object, and soon what it owns, if it is still as observed; return whether it was."""
        preconditions = {key: observed["metadata"][key] for key in ("uid", "resourceVersion")}
        body = {"propagationPolicy": "Background", "preconditions": preconditions}
        path = self._path(kind, observed["metadata"]["name"])
        return self._json("DELETE", path, body, none_statuses=(404, 409)) is not None

    def list_events(self, of: Json) -> list[Json]:
        """Return the events of an object, oldest first; none when they may not be read."""
        try:
            found = self.list_objects("Event", fields=f"involvedObject.uid={of['metadata']['uid']}")
        except ClusterError:
            return []
        return sorted(found, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")

    @cached_property
    def nodes(self) -> list[Json]:
        """The nodes, as they were when they were first read; none when they may not be read."""
        try:
            return self.list_objects("Node")
        except ClusterError:
            return []

    def read_memory_usage(self, pod: Json, container: str) -> float | None:
        """Return the bytes of memory that a pod's container uses, as its node reports; None if it does not.

        Raises:
            ClusterError: it may not be read, or the cluster does not answer.
        """
        path = f"{PATHS['Node']}/{pod['spec']['nodeName']}/proxy/stats/summary"
        summary = self._json("GET", path, query=[("only_cpu_and_memory", "true")])
        for one in summary["pods"]:
            if one["podRef"]["uid"] == pod["metadata"]["uid"]:
                used = {each["name"]: each.get("memory", {}) for each in one.get("containers", [])}
                return float(used.get(container, {}).get("workingSetBytes", 0)) or None
        return None

    def stream_log(self, pod: str, container: str, skip: int = 0, ended: bool = False) -> Iterator[str]:
        """Yield the lines of a container's log after the first `skip`, as they come, until it ends.

        A last line without an end may go on in another stream, unless the container has `ended` already.

        A stream that is cut continues after its last complete line. It also ends when there is no log (yet),
        or when it cannot be read for a while, as when the node is lost: the pod's state says more then.

        Raises:
            ClusterError: it may not be read.
        """
        path, query = f"{self._path('Pod', pod)}/log", [("container", container), ("follow", "true")]
        answered = time.monotonic()
        while time.monotonic() <= answered + RETRY_SECONDS:
            try:
                with _client_errors(), self._open("GET", path, query=query) as response:
                    try:
                        for line in islice(_lines(response, ended), skip, None):
                            skip += 1
                            yield line
                    finally:
                        answered = time.monotonic()
                    return
            except _ApiError as error:
                if error.status in (400, 404):
                    return
                if error.status is not None and error.status not in RETRIED_STATUSES:
                    raise self._explain_refusal(error) from error
            time.sleep(RETRY_INTERVAL)

    def proxy_request(
        self,
        kind: str,
        name: str,
        port: int,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        retry_seconds: float = 0.0,
    ) -> tuple[int, bytes]:
        """Send a request to a Pod or a Service through the API server; return its status and its answer.

        The status is 504 when it does not answer in time. A request that may be sent twice is sent again for
        `patience` seconds while the API server itself answers that it is busy or cannot reach it.

        Raises:
            NoServerError: the API server cannot reach it, or there is none.
            ClusterError: the API server does not answer, or does not allow it.
        """
        target, deadline = f"{self._path(kind, name)}:{port}/proxy{path}", time.monotonic() + retry_seconds
        with self.translate_errors():
            while True:
                try:
                    return 200, self._request(method, target, body, (), RAW_TYPE, headers=headers)
                except _ApiError as error:
                    if error.timed_out:
                        return 504, f"no answer within {TIMEOUT[1]:g} s".encode()
                    if error.status is None:
                        raise
                    if (why := error.from_api_server) is None:
                        return error.status, error.body
                    if error.status in (401, 403):
                        raise
                    if error.status not in RETRIED_STATUSES or time.monotonic() >= deadline:
                        where = f"no server of {name} in {self.namespace}"
                        raise NoServerError(
                            f"The cluster leads to {where}: {why.rstrip('.')}. "
                            f"`modelyard rollout status {name} -e ENV` says what serves it."
                        ) from error
                time.sleep(RETRY_INTERVAL)

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Raise a ClusterError with a remedy for what the API server refuses, and when it does not answer."""
        try:
            yield
        except _ApiError as error:
            if error.status is None:
                raise _unreachable(self._api.configuration.host, error) from error
            raise self._explain_refusal(error) from error

    def list_objects(self, kind: str, labels: str = "", fields: str = "") -> list[Json]:
        """Return the objects that have the labels and fields, as in `app=digits,track!=stable`."""
        query = [("labelSelector", labels), ("fieldSelector", fields)]
        answer = self._json("GET", self._path(kind), query=[pair for pair in query if pair[1]])
        return list(answer["items"])

    def _path(self, kind: str, name: str = "") -> str:
        folder = PATHS[kind].format(namespace=self.namespace)
        return f"{folder}/{name}" if name else folder

    def _json(self, *request: Any, none_statuses: tuple[int, ...] = (), **options: Any) -> Any:
        """Return what the API server answers, or None where its status is one of `none_on`."""
        with self.translate_errors():
            try:
                return json.loads(self._request(*request, retried_statuses=RETRIED_STATUSES, **options))
            except _ApiError as error:
                if error.status in none_statuses:
                    return None
                raise

    def _request(self, *request: Any, retried_statuses: tuple[int, ...] = (), **options: Any) -> bytes:
        """Send a request; again while there is no answer, or one with a status of `retried`."""
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            try:
                with _client_errors():
                    answer = bytes(self._open(*request, **options).data)
                self._retry_connection = True
                return answer
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
                "The cluster does not accept the credentials (401). Renew those that KUBECONFIG names."
            )
        try:
            message = str(json.loads(error.body)["message"])
        except (TypeError, ValueError, KeyError):
            message = f"{error.status} {error}"
        return ClusterError(explain_refusal(message))


@dataclass(frozen=True)
class ProxiedServer:
    """A model's server that is a Pod or a Service, reached from outside the cluster; see server.Server.

    So no port is opened outside the cluster. A request is sent again for `patience` seconds while the API
    server itself fails; a prediction may be. Over TLS, the API server does not verify the certificate.
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
        name = f"https:{self.name}" if self.tls else self.name
        token = {TOKEN_HEADER: self.token} if self.token else {}
        return self.cluster.proxy_request(
            self.kind, name, self.port, method, path, body, {**headers, **token}, self.retry_seconds
        )


def read_token(cluster: Cluster, secret: str | None) -> str | None:
    """Return the token that clients of the servers send: the first of `token` in a Secret; None without one.

    Raises:
        ConfigError: there is no such Secret, or it has no token.
        ClusterError: it may not be read, or the cluster does not answer.
    """
    if secret is None:
        return None
    data = (cluster.get("Secret", secret) or {}).get("data", {})
    if "token" not in data:
        raise ConfigError(
            f"There is no Secret {secret} with the key token in the namespace {cluster.namespace}, which "
            f"environment.serving.token_secret names. Create it: `kubectl create secret generic {secret} "
            f"--namespace {cluster.namespace} --from-file=token=FILE`."
        )
    return parse_tokens(base64.b64decode(data["token"]), f"token of the Secret {secret}")[0]


class _ApiError(Exception):
    """The API server answered with an error status, or not at all: then `status` is None."""

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
    def from_api_server(self) -> str | None:
        """What the API server itself says; None where what it leads to answered."""
        try:
            status = json.loads(self.body)
        except ValueError:
            return None
        is_status = isinstance(status, dict) and status.get("kind") == "Status"
        return str(status.get("message", self)) if is_status else None


@contextmanager
def _client_errors() -> Iterator[None]:
    """Raise _ApiError for what the official client and its HTTP library raise."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

    try:
        yield
    except ApiException as error:  # without a status: TLS
        status = error.status or None
        raise _ApiError(str(error.reason), status, error.body, connection_failed=status is None) from error
    except ProtocolError as error:
        raise _ApiError(str(error)) from error
    except HTTPError as error:
        timed_out = isinstance(error, ReadTimeoutError)
        raise _ApiError(str(error), timed_out=timed_out, connection_failed=True) from error


def _lines(response: "BaseHTTPResponse", ended: bool) -> Iterator[str]:
    rest = b""
    for part in response.stream():
        *lines, rest = (rest + part).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
    if rest and ended:
        yield rest.decode(errors="replace")
