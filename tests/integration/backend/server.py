"""A fake API server of Kubeflow Pipelines: HTTP, the models of v2beta1, and faults.

    server = BackendServer()
    server.start()
    server.faults.append(Fault(status=500, path="/runs"))

Requests and responses use the models of kfp-server-api, so they have only fields of the API.
A service is a class with `routes`; `mount` adds one.
"""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, ClassVar, Protocol
from urllib.parse import parse_qsl, urlsplit

import kfp_server_api as kfp

CODEC = kfp.ApiClient()
UNAUTHENTICATED, NOT_FOUND, EXISTS, INVALID = (401, 16), (404, 5), (409, 6), (400, 3)


class ApiError(Exception):
    """An error response: HTTP status, gRPC code, message."""

    def __init__(self, kind: tuple[int, int], message: str) -> None:
        super().__init__(message)
        self.status, self.code = kind
        self.body = {"error": message, "code": self.code, "message": message, "details": []}


@dataclass
class Request:
    """A request to a service."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    headers: Mapping[str, str]

    def read(self, kind: str) -> Any:
        """Return the body as a model; refuse unknown keys."""
        model = getattr(kfp, kind)
        sent = json.loads(self.body)
        if unknown := sent.keys() - set(model.attribute_map.values()):
            raise ApiError(INVALID, f"unknown field {sorted(unknown)} in {kind}")
        return CODEC.deserialize(SimpleNamespace(data=self.body), kind)


@dataclass
class Fault:
    """A fault of the next requests.

    Attributes:
        status: HTTP status.
        body: text of the response.
        content_type: type of the text.
        location: target of a redirect.
        delay: seconds before the response.
        cut: close the connection instead, `before` or `after` the request is handled.
        path: part of the path of affected requests.
        method: method of affected requests; default: all.
        times: number of requests.
    """

    status: int = 0
    body: str = ""
    content_type: str = "application/json"
    location: str | None = None
    delay: float = 0.0
    cut: str = ""
    path: str = ""
    method: str = ""
    times: int = 1


Handler = Callable[..., Any]
Routes = Mapping[tuple[str, str], Handler]


class Service(Protocol):
    """Part of the API: handlers by method and path.

    The path is a regular expression; its groups are arguments of the handler.
    """

    routes: Routes


@dataclass
class BackendServer:
    """The server.

    Attributes:
        token: required token, if any; also `cookie`.
        multi_user: whether the server is in multi-user mode.
        page_limit: maximum page size.
        prefix: prefix of all paths, as behind the API server of Kubernetes.
        faults: the faults of the next requests.
        requests: received requests, as "GET /apis/v2beta1/healthz".
    """

    token: str | None = None
    cookie: str | None = None
    multi_user: bool = False
    page_limit: int = 100
    prefix: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    _services: list[Service] = field(default_factory=list)
    _http: ThreadingHTTPServer | None = None
    _reserved: socket.socket = field(default_factory=socket.socket)

    @property
    def listens(self) -> bool:
        return self._http is not None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def mount(self, service: Service) -> None:
        """Add a service."""
        self._services.append(service)

    def start(self) -> None:
        """Start listening, on the same port as before."""
        if not self.port:  # reserved by a bound socket that does not listen
            self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._reserved.bind(("127.0.0.1", 0))
            self.port = self._reserved.getsockname()[1]
        handler = type("Handler", (_Handler,), {"server_of": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening; the data remain."""
        assert self._http
        self._http.shutdown()
        self._http.server_close()
        self._http = None

    def respond(self, request: Request) -> Any:
        """Return the response of a service."""
        expected = {"authorization": self.token and f"Bearer {self.token}", "cookie": self.cookie}
        if any(value and request.headers.get(name) != value for name, value in expected.items()):
            raise ApiError(UNAUTHENTICATED, "Request header error: there is no valid identity")
        if (request.method, request.path) == ("GET", "/apis/v2beta1/healthz"):
            return kfp.V2beta1GetHealthzResponse(multi_user=self.multi_user)
        for service in self._services:
            for (method, path), handler in service.routes.items():
                if method == request.method and (match := re.fullmatch(path, request.path)):
                    return handler(request, **match.groupdict())
        raise ApiError(NOT_FOUND, "Not Found")

    def page(self, request: Request, items: Sequence[Any], name: str, kind: str) -> Any:
        """Return the requested page of a list, filtered and sorted."""
        query = request.query
        if "filter" in query:
            items = [item for item in items if _matches(item, json.loads(query["filter"]))]
        if "sort_by" in query:
            key, _, order = query["sort_by"].partition(" ")
            items = sorted(items, key=lambda item: getattr(item, key), reverse=order == "desc")
        first = int(query.get("page_token") or 0)
        last = first + min(int(query.get("page_size") or 10), self.page_limit)
        following = str(last) if last < len(items) else None
        sized = {"total_size": len(items)} if "total_size" in getattr(kfp, kind).openapi_types else {}
        return getattr(kfp, kind)(**{name: list(items[first:last]), "next_page_token": following, **sized})

    def next_fault(self, request: Request) -> Fault | None:
        """Return the fault of a request, if any, and count it."""
        for fault in self.faults:
            if fault.path in request.path and fault.method in request.method:
                fault.times -= 1
                if not fault.times:
                    self.faults.remove(fault)
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are written separately
    server_of: ClassVar[BackendServer]

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client closed the connection
            super().handle()

    def handle_any(self) -> None:
        server, parts = self.server_of, urlsplit(self.path)
        if not server.listens:  # a keep-alive connection
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {key.lower(): value for key, value in self.headers.items()}
        path = parts.path.removeprefix(server.prefix) if parts.path.startswith(server.prefix) else ""
        request = Request(self.command, path, dict(parse_qsl(parts.query)), body, headers)
        server.requests.append(f"{request.method} {request.path}")
        fault = server.next_fault(request)
        if fault:
            time.sleep(fault.delay)
            if fault.cut:
                if fault.cut == "after":
                    server.respond(request)
                self.close_connection = True
                return
            if fault.status:
                location = {"Location": fault.location} if fault.location else {}
                self._send(fault.status, fault.body.encode(), fault.content_type, location)
                return
        try:
            with server.lock:  # requests are serialized, as by a database
                response = server.respond(request)
        except ApiError as error:
            body = error.body
            if "/upload" in request.path:  # uploads do not use gRPC
                body = {"error_message": str(error), "error_details": f"{error}\ngithub.com/kubeflow/..."}
            self._send(error.status, json.dumps(body).encode())
            return
        if isinstance(response, str):
            self._send(200, response.encode(), "text/plain")
        else:
            self._send(200, json.dumps(CODEC.sanitize_for_serialization(response)).encode())

    do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def _send(
        self, status: int, body: bytes, kind: str = "application/json", extra_headers: Any = ()
    ) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            **dict(extra_headers),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _matches(item: Any, expected: Mapping[str, Any]) -> bool:
    for predicate in expected["predicates"]:
        assert predicate["operation"] in ("EQUALS", 1, "NOT_EQUALS"), predicate
        expected_value = predicate.get("string_value") or predicate.get("stringValue")
        is_equal = str(getattr(item, predicate["key"])) == expected_value
        if is_equal == (predicate["operation"] == "NOT_EQUALS"):
            return False
    return True
