"""A thin client: the objects of one namespace as plain JSON, written by server-side apply.

    cluster = connect("modelyard-serving")
    cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", ...}, "modelyard-deploy")

Inside a pod it speaks as the pod's service account, elsewhere as KUBECONFIG says. Reads, applies, deletions
and what is asked of a server are repeated while the API server is away for a moment: each may be done twice.
"""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from itertools import islice
from typing import Any

import urllib3
from kubernetes.client import ApiClient, ApiException, Configuration, CoreV1Api
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from modelyard.components.errors import ClusterError
from modelyard.components.kubernetes.refusals import refusal
from modelyard.components.kubernetes.trouble import Json

PATHS = {
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "ReplicaSet": "/apis/apps/v1/namespaces/{namespace}/replicasets",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
    "Event": "/api/v1/namespaces/{namespace}/events",
    "Node": "/api/v1/nodes",
    "Workflow": "/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows",
}
JSON, APPLY = "application/json", "application/apply-patch+yaml"
BUSY = (429, 500, 502, 503, 504)
PATIENCE = 30.0
PAUSE = 0.5
TIMEOUT = (5.0, 60.0)


def connect(namespace: str) -> "Cluster":
    """Return the namespace of the cluster that this process belongs to, or that KUBECONFIG names.

    Raises:
        ClusterError: there is no such cluster.
    """
    settings = Configuration()
    inside = True
    try:
        load_incluster_config(client_configuration=settings)
    except ConfigException:
        inside = False
        try:
            load_kube_config(client_configuration=settings)
        except (ConfigException, OSError) as error:
            raise ClusterError(
                f"There is no cluster to talk to: {str(error).rstrip('.')}. Name one in KUBECONFIG, or in "
                "~/.kube/config."
            ) from error
    settings.retries = False
    return Cluster(ApiClient(settings), namespace, inside)


class Cluster:
    """The objects of one namespace.

    Args:
        api: the official client.
        namespace: where the objects are.
        inside: whether this process is a pod, which reaches other pods directly.
    """

    def __init__(self, api: Any, namespace: str, inside: bool) -> None:
        self._api, self.namespace, self.inside = api, namespace, inside

    def get(self, kind: str, name: str) -> Json | None:
        """Return an object, or None when there is none of that name."""
        try:
            return dict(self._json("GET", self._path(kind, name)))
        except ApiException as error:
            if error.status == 404:
                return None
            raise self._plainly(error) from error

    def find(self, kind: str, labels: str = "", fields: str = "") -> list[Json]:
        """Return the objects that have the labels and fields, as in `app=digits,track!=stable`."""
        query = [("labelSelector", labels), ("fieldSelector", fields)]
        try:
            answer = self._json("GET", self._path(kind), query=[pair for pair in query if pair[1]])
        except ApiException as error:
            raise self._plainly(error) from error
        return list(answer["items"])

    def apply(self, wanted: Json, manager: str) -> Json | None:
        """Make an object as wanted, as far as `wanted` says; what others set beside it stays.

        With a `resourceVersion` in its metadata, the object must not have changed since; None if it did.

        Raises:
            ClusterError: the cluster refuses it, or does not answer.
        """
        path = self._path(wanted["kind"], wanted["metadata"]["name"])
        query = [("fieldManager", manager), ("force", "true")]
        try:
            return dict(self._json("PATCH", path, wanted, query, APPLY))
        except ApiException as error:
            if error.status == 409:
                return None
            raise self._plainly(error) from error

    def delete(self, kind: str, seen: Json) -> bool:
        """Delete an object, and soon what it owns, if it is still as it was seen; say whether it was."""
        facts = {key: seen["metadata"][key] for key in ("uid", "resourceVersion")}
        body = {"propagationPolicy": "Background", "preconditions": facts}
        try:
            self._json("DELETE", self._path(kind, seen["metadata"]["name"]), body)
        except ApiException as error:
            if error.status in (404, 409):
                return False
            raise self._plainly(error) from error
        return True

    def events(self, of: Json) -> list[Json]:
        """Return the events of an object, oldest first; none when they may not be read."""
        try:
            found = self.find("Event", fields=f"involvedObject.uid={of['metadata']['uid']}")
        except ClusterError:
            return []
        return sorted(found, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")

    @cached_property
    def nodes(self) -> list[Json]:
        """The nodes, as they were when they were first asked for; none when they may not be read."""
        try:
            return self.find("Node")
        except ClusterError:
            return []

    def memory(self, pod: Json, container: str) -> float | None:
        """Return the bytes of memory that a pod's container uses, as its node says; None when it does not.

        Raises:
            ClusterError: it may not be read, or the cluster does not answer.
        """
        path = f"{PATHS['Node']}/{pod['spec']['nodeName']}/proxy/stats/summary"
        try:
            summary = self._json("GET", path, query=[("only_cpu_and_memory", "true")])
        except ApiException as error:
            raise self._plainly(error) from error
        for one in summary["pods"]:
            if one["podRef"]["uid"] == pod["metadata"]["uid"]:
                used = {each["name"]: each.get("memory", {}) for each in one.get("containers", [])}
                return float(used.get(container, {}).get("workingSetBytes", 0)) or None
        return None

    def log(self, pod: str, container: str, skip: int = 0) -> Iterator[str]:
        """Yield the lines of a container's log after the first `skip`, as they come, until it ends.

        A stream that is cut goes on after its last whole line. It also ends when there is no log (yet), or
        when it cannot be read for a while, as when the node is away: the pod's state says more then.

        Raises:
            ClusterError: it may not be read.
        """
        path, query = f"{self._path('Pod', pod)}/log", [("container", container), ("follow", "true")]
        answered = time.monotonic()
        while time.monotonic() <= answered + PATIENCE:
            try:
                with suppress(urllib3.exceptions.HTTPError), self._open("GET", path, query=query) as answer:
                    try:
                        for line in islice(_lines(answer), skip, None):
                            skip += 1
                            yield line
                    finally:
                        answered = time.monotonic()
                    return
            except ApiException as error:
                if error.status in (400, 404):
                    return
                if error.status not in BUSY:
                    raise self._plainly(error) from error
            time.sleep(PAUSE)

    def tail(self, pod: str, container: str, lines: int) -> list[str]:
        """Return the last lines of a container's log so far; none when it cannot be read."""
        path, query = f"{self._path('Pod', pod)}/log", [("container", container), ("tailLines", str(lines))]
        with suppress(ApiException, urllib3.exceptions.HTTPError):
            return self._open("GET", path, query=query).data.decode(errors="replace").splitlines()
        return []

    def proxied(
        self, kind: str, name: str, port: int, method: str, path: str, body: Any, head: dict[str, str]
    ) -> tuple[int, bytes]:
        """Ask a Pod or a Service through the API server; return its status (504: silence) and its answer.

        Raises:
            ClusterError: the API server does not answer, or does not allow it.
        """
        try:
            return 200, self._ask(method, f"{self._path(kind, name)}:{port}/proxy{path}", body, (), head=head)
        except ApiException as error:
            said = error.body if isinstance(error.body, bytes) else str(error.body).encode()
            if error.status == 403:
                raise self._plainly(error) from error
            return error.status, said
        except urllib3.exceptions.ReadTimeoutError:
            return 504, f"no answer within {TIMEOUT[1]:g} s".encode()
        except urllib3.exceptions.HTTPError as error:
            raise self._away(error) from error

    def forward(self, pod: str, port: int) -> socket.socket:
        """Return a socket that leads to a port of a pod; this machine opens no port for it.

        Raises:
            ClusterError: it is not allowed, or the pod is away.
        """
        from kubernetes.stream import portforward

        ask = CoreV1Api(self._api).connect_get_namespaced_pod_portforward
        try:
            opened: socket.socket = portforward(ask, pod, self.namespace, ports=str(port)).socket(port)
        except ApiException as error:
            said = str(error.reason).splitlines()[0].split(" -+-+- ")[0]
            raise ClusterError(
                f"The cluster opens no way to port {port} of the pod {pod} in {self.namespace}: {said}. It "
                'takes the verb "create" on pods/portforward there, and a pod that listens.'
            ) from error
        return opened

    def _path(self, kind: str, name: str = "") -> str:
        folder = PATHS[kind].format(namespace=self.namespace)
        return f"{folder}/{name}" if name else folder

    def _json(self, *request: Any, **options: Any) -> Any:
        try:
            return json.loads(self._ask(*request, busy=BUSY, **options))
        except urllib3.exceptions.HTTPError as error:
            raise self._away(error) from error

    def _ask(self, *request: Any, busy: tuple[int, ...] = (), **options: Any) -> bytes:
        """Ask the API server, again while it is away or answers with a status of `busy`."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return bytes(self._open(*request, **options).data)
            except ApiException as error:
                if error.status not in busy or time.monotonic() > deadline:
                    raise
            except urllib3.exceptions.HTTPError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE)

    def _open(
        self, method: str, path: str, body: Any = None, query: Any = (), content: str = JSON, head: Any = None
    ) -> urllib3.HTTPResponse:
        answer: urllib3.HTTPResponse = self._api.call_api(
            path,
            method,
            query_params=list(query),
            header_params={"Content-Type": content, "Accept": "application/json, */*", **(head or {})},
            body=body,
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _preload_content=False,
            _request_timeout=TIMEOUT,
        )
        return answer

    def _away(self, error: Exception) -> ClusterError:
        return ClusterError(
            f"The cluster {self._api.configuration.host} does not answer: {error}. Does it run, and is it "
            "what KUBECONFIG should name?"
        )

    def _plainly(self, error: ApiException) -> ClusterError:
        try:
            said = str(json.loads(error.body)["message"])
        except (TypeError, ValueError, KeyError):
            said = f"{error.status} {error.reason}"
        if error.status == 401:
            said = "The cluster does not know who asks (401). Renew the credentials that KUBECONFIG names."
            return ClusterError(said)
        return ClusterError(refusal(said).message)


def _lines(answer: urllib3.HTTPResponse) -> Iterator[str]:
    rest = b""
    for part in answer.stream():
        *lines, rest = (rest + part).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
    if rest:
        yield rest.decode(errors="replace")
