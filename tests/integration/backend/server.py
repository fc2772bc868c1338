"""An API server of Kubeflow Pipelines: real HTTP, the v2beta1 description's own models, and ways to fail.

    server = BackendServer()
    server.start()
    server.faults.append(Fault(status=500, path="/runs"))

Requests are read into the models of kfp-server-api and answers written from them, so that neither side has a
word that the description lacks. A service is a class with `routes`; `mount` adds one.
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


class RefusalError(Exception):
    """What the server refuses, as it does: a status of HTTP, a code of gRPC, a message."""

    def __init__(self, kind: tuple[int, int], message: str) -> None:
        super().__init__(message)
        self.status, self.code = kind
        self.body = {"error": message, "code": self.code, "message": message, "details": []}


@dataclass
class Request:
    """A request, as a service sees it."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    headers: Mapping[str, str]

    def read(self, kind: str) -> Any:
        """Return the body as a model, or refuse a key that it lacks."""
        model = getattr(kfp, kind)
        sent = json.loads(self.body)
        if unknown := sent.keys() - set(model.attribute_map.values()):
            raise RefusalError(INVALID, f"unknown field {sorted(unknown)} in {kind}")
        return CODEC.deserialize(SimpleNamespace(data=self.body), kind)


@dataclass
class Fault:
    """How the next requests go wrong.

    Attributes:
        status: answer with this.
        body: and with this text.
        content_type: of the text.
        location: where a redirect sends.
        delay: seconds before the answer.
        cut: hang up instead, before the request is handled or `after` it was.
        path: a part of the paths that it hits, and `method` their method.
        times: how many requests.
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
    """Some of the API: method and path (a regular expression, whose groups are arguments) to what answers."""

    routes: Routes


@dataclass
class BackendServer:
    """The server: what it holds, what it was asked, and how it fails.

    Attributes:
        token: what a request must carry, if anything; so `cookie`.
        multi_user: whether several users share it.
        page_limit: the largest page that it gives.
        prefix: of all paths, where it is reached through the API server of Kubernetes.
        faults: what goes wrong next.
        asked: each request, as "GET /apis/v2beta1/healthz".
    """

    token: str | None = None
    cookie: str | None = None
    multi_user: bool = False
    page_limit: int = 100
    prefix: str = ""
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    _services: list[Service] = field(default_factory=list)
    _http: ThreadingHTTPServer | None = None
    _held: socket.socket = field(default_factory=socket.socket)

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
        """Listen, on the same port as before."""
        if not self.port:  # held by a socket that does not listen: no other process gets it meanwhile
            self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._held.bind(("127.0.0.1", 0))
            self.port = self._held.getsockname()[1]
        handler = type("Handler", (_Handler,), {"server_of": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Listen no longer; what it holds stays, as in a database."""
        assert self._http
        self._http.shutdown()
        self._http.server_close()
        self._http = None

    def answer(self, request: Request) -> Any:
        """Return what a service answers."""
        wanted = {"authorization": self.token and f"Bearer {self.token}", "cookie": self.cookie}
        if any(value and request.headers.get(name) != value for name, value in wanted.items()):
            raise RefusalError(UNAUTHENTICATED, "Request header error: there is no valid identity")
        if (request.method, request.path) == ("GET", "/apis/v2beta1/healthz"):
            return kfp.V2beta1GetHealthzResponse(multi_user=self.multi_user)
        for service in self._services:
            for (method, path), handler in service.routes.items():
                if method == request.method and (found := re.fullmatch(path, request.path)):
                    return handler(request, **found.groupdict())
        raise RefusalError(NOT_FOUND, "Not Found")

    def page(self, request: Request, found: Sequence[Any], name: str, kind: str) -> Any:
        """Return the page of a list that a request asks for: filtered, sorted, cut."""
        query = request.query
        if "filter" in query:
            found = [one for one in found if _matches(one, json.loads(query["filter"]))]
        if "sort_by" in query:
            key, _, order = query["sort_by"].partition(" ")
            found = sorted(found, key=lambda one: getattr(one, key), reverse=order == "desc")
        first = int(query.get("page_token") or 0)
        last = first + min(int(query.get("page_size") or 10), self.page_limit)
        following = str(last) if last < len(found) else None
        sized = {"total_size": len(found)} if "total_size" in getattr(kfp, kind).openapi_types else {}
        return getattr(kfp, kind)(**{name: list(found[first:last]), "next_page_token": following, **sized})

    def strike(self, request: Request) -> Fault | None:
        """Return what goes wrong with a request, if anything, and count it."""
        for fault in self.faults:
            if fault.path in request.path and fault.method in request.method:
                fault.times -= 1
                if not fault.times:
                    self.faults.remove(fault)
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes
    server_of: ClassVar[BackendServer]

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that gave up
            super().handle()

    def handle_any(self) -> None:
        server, parts = self.server_of, urlsplit(self.path)
        if not server.listens:  # a connection that was kept
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {key.lower(): value for key, value in self.headers.items()}
        path = parts.path.removeprefix(server.prefix) if parts.path.startswith(server.prefix) else ""
        request = Request(self.command, path, dict(parse_qsl(parts.query)), body, headers)
        server.asked.append(f"{request.method} {request.path}")
        fault = server.strike(request)
        if fault:
            time.sleep(fault.delay)
            if fault.cut:
                if fault.cut == "after":
                    server.answer(request)
                self.close_connection = True
                return
            if fault.status:
                place = {"Location": fault.location} if fault.location else {}
                self._send(fault.status, fault.body.encode(), fault.content_type, place)
                return
        try:
            with server.lock:  # as in a database
                answer = server.answer(request)
        except RefusalError as refusal:
            told = refusal.body
            if "/upload" in request.path:  # which does not go through gRPC
                told = {"error_message": str(refusal), "error_details": f"{refusal}\ngithub.com/kubeflow/..."}
            self._send(refusal.status, json.dumps(told).encode())
            return
        if isinstance(answer, str):
            self._send(200, answer.encode(), "text/plain")
        else:
            self._send(200, json.dumps(CODEC.sanitize_for_serialization(answer)).encode())

    do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def _send(self, status: int, body: bytes, kind: str = "application/json", head: Any = ()) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **dict(head)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _matches(one: Any, wanted: Mapping[str, Any]) -> bool:
    for predicate in wanted["predicates"]:
        assert predicate["operation"] in ("EQUALS", 1, "NOT_EQUALS"), predicate
        wanted_value = predicate.get("string_value") or predicate.get("stringValue")  # protobuf takes both
        is_so = str(getattr(one, predicate["key"])) == wanted_value
        if is_so == (predicate["operation"] == "NOT_EQUALS"):
            return False
    return True
