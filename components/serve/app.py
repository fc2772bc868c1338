"""The ASGI application, without a framework: routes, queue, threads.

Small requests run on the event loop, which is fastest on one core. Requests that would block the loop for
too long (`Predictor.inline_bytes`) run in a thread, so that health checks always get a response.
"""

import asyncio
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from modelyard.components.serve import openinference, tfserving
from modelyard.components.serve.access import TRACEPARENT, Access, Headers, trace_headers, trace_id
from modelyard.components.serve.body import Body, Disconnected, Receive, decompress, too_large
from modelyard.components.serve.connection import REFUSED_STATUS
from modelyard.components.serve.limits import LARGE_BODY, LARGE_INPUT_LOCK, compute_limits
from modelyard.components.serve.metrics import Metrics
from modelyard.components.serve.model import Predictor
from modelyard.components.serve.replies import HttpError, Reply, encode, shorten
from modelyard.components.serve.settings import Serving
from modelyard.components.server import GOLDEN_HEADER, TOKEN_HEADER

Send = Callable[[dict[str, Any]], Awaitable[None]]

PAGE = Path(__file__).with_name("page.html")
PAGE_POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    b"connect-src 'self'; img-src blob:"
)
GOLDEN = GOLDEN_HEADER.encode()
TIMEOUT_HEADER = b"x-request-timeout"
CLOSE = (b"connection", b"close")
RETRY_AFTER = ((b"retry-after", b"1"),)
CLIENT_CLOSED_REQUEST = 499  # nginx's status of a client that disconnected before its response
_SHUTTING_DOWN = HttpError(503, "The server is shutting down; send the request again.").reply
_INTERNAL_ERROR = HttpError(500, "The server failed; the reason is in its log. Report this as a bug.").reply

MAX_PATH = 512
_ROUTES = {
    "page": ("GET", r"/"),
    "metrics": ("GET", r"/metrics"),
    "live": ("GET", r"/v2/health/live"),
    "ready": ("GET", r"/v2/health/ready"),
    "server": ("GET", r"/v2/?"),
    "metadata": ("GET", r"/v2/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?"),
    "model_ready": ("GET", r"/v2/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?/ready"),
    "infer": ("POST", r"/v2/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?/infer"),
    "models": ("GET", r"/v[12]/models"),
    "status": ("GET", r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?"),
    "signature": ("GET", r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?/metadata"),
    "predict": ("POST", r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?:predict"),
}
_PATTERNS = [(route, method, re.compile(pattern)) for route, (method, pattern) in _ROUTES.items()]

log = logging.getLogger(__name__)


class RequestTarget(NamedTuple):
    """Route of a request; `name` and `version` are the strings in the path."""

    route: str
    name: str | None
    version: str | None


class App:
    """Responds to requests with a predictor, which `set_predictor` replaces."""

    def __init__(self, predictor: Predictor, settings: Serving, access: Access) -> None:
        self._settings, self._access = settings, access
        self.limits = compute_limits(settings)
        self._predictor = predictor
        self._in_progress = 0
        self._metrics = Metrics(predictor.name, lambda: self._in_progress)
        self._metrics.version = predictor.version
        self._pool = ThreadPoolExecutor(self.limits.workers, "predict")
        self._large_pool = ThreadPoolExecutor(1, "predict-large")  # one at a time, to limit memory
        self._page = PAGE.read_bytes().replace(b"{{ name }}", predictor.name.encode())
        self._page = self._page.replace(b"{{ token header }}", TOKEN_HEADER.encode())
        self._work: set[Future[Reply]] = set()
        self._champion: int | None = None
        self._champion_error = ""
        self.draining = False

    @property
    def executing(self) -> bool:
        """Whether threads execute requests, which cannot be stopped."""
        return any(not work.done() for work in list(self._work))

    def set_predictor(self, predictor: Predictor) -> None:
        """Serve a new version; requests in progress finish on the old one."""
        self._predictor = predictor
        self._metrics.version = predictor.version
        log.info("serving version %d of %s", predictor.version, predictor.name)

    def set_champion_status(self, champion: int | None, error: str) -> None:
        """Set the champion, None if it is unknown, and why it is not served; see ChampionFollower."""
        self._champion, self._champion_error = champion, error
        self._metrics.count_poll(champion, failed=bool(error))

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Respond to one request (ASGI)."""
        start = time.perf_counter()
        predictor = self._predictor
        headers = dict(scope["headers"])
        trace = trace_headers(scope["headers"]) if TRACEPARENT in headers else ()
        body = Body(headers, receive, self.limits.body)
        target, cancelled = None, False
        try:
            if b"host" not in headers and scope["http_version"] == "1.1":  # RFC 9112, 3.2
                raise HttpError(400, "The request has no Host header; add one.")
            target = resolve(scope["method"], scope["path"][:MAX_PATH])
            self._access.check(target.route, headers)
            reply = await self._reply(target, predictor, headers, body)
        except HttpError as error:
            reply = error.reply
        except Disconnected:  # counted, not sent: the client is gone, or the connection has responded
            reply = Reply(b"", scope.get(REFUSED_STATUS, CLIENT_CLOSED_REQUEST))
        except asyncio.CancelledError:  # by uvicorn, at the drain timeout
            reply, cancelled = _SHUTTING_DOWN, True
        except Exception:  # a bug fails one request, not the server
            log.exception("%s %r failed%s", scope["method"], scope["path"], _trace_suffix(trace))
            reply = _INTERNAL_ERROR
        if target and target.route in ("predict", "infer"):
            self._metrics.count_request(predictor.version, reply, headers.get(GOLDEN) == b"1")
        if reply.body:
            close = cancelled or not await body.discard()
            await self._send(reply, send, close, trace)
        if self._access.log:
            size = 0 if scope["method"] == "HEAD" else len(reply.body)
            self._access.log.write(scope, reply.status, size, start, predictor.version, trace)

    async def _send(self, reply: Reply, send: Send, close: bool, trace: Headers) -> None:
        headers = [
            (b"content-type", reply.content_type),
            (b"content-length", str(len(reply.body)).encode()),
            *reply.headers,
            *trace,
        ]
        if self.draining or close:
            headers.append(CLOSE)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _reply(
        self, target: RequestTarget, predictor: Predictor, headers: dict[bytes, bytes], body: Body
    ) -> Reply:
        if target.name is not None:
            _check_model(target, predictor)
        match target.route:
            case "predict" | "infer":
                return await self._predict(target.route, predictor, headers, body)
            case "ready" | "model_ready":
                ready: dict[str, Any] = {"name": target.name} if target.name else {}
                ready["ready"] = not self.draining
                if self._champion_error:  # the reason is left out, because the route `ready` needs no token
                    ready |= {"version": predictor.version, "champion": self._champion}
                return Reply(encode(ready), 503 if self.draining else 200)
            case "live":
                return Reply(encode({"live": True}))
            case "models":  # a route of KServe
                return Reply(encode({"models": [predictor.name]}))
            case "status":
                return tfserving.status(predictor, self._champion, self._champion_error)
            case "signature":
                return tfserving.metadata(predictor)
            case "metadata":
                return openinference.metadata(predictor, self.limits)
            case "server":
                return openinference.server_metadata()
            case "metrics":
                return self._metrics.render()
            case _ if b"text/html" not in headers.get(b"accept", b""):  # the liveness probe of KServe v1
                return Reply(encode({"status": "alive"}))
            case _:
                policy = ((b"content-security-policy", PAGE_POLICY), (b"x-content-type-options", b"nosniff"))
                return Reply(self._page, content_type=b"text/html; charset=utf-8", headers=policy)

    async def _predict(
        self, route: str, predictor: Predictor, headers: dict[bytes, bytes], body: Body
    ) -> Reply:
        """Return the reply to a prediction request; it counts towards the queue when its body has arrived."""
        seconds = _parse_timeout(headers, self._settings.request_timeout)
        text = await body.read()
        if self._in_progress >= self._settings.max_queue:
            raise HttpError(
                503,
                f"{self._in_progress} requests are in progress, and the maximum is "
                f"{self._settings.max_queue}; try again in a second.",
                RETRY_AFTER,
            )
        self._in_progress += 1
        try:
            small = len(text) <= predictor.inline_bytes and not body.compressed
            if small and not _may_contain_image(predictor, text):
                return self._execute(route, predictor, headers, text)
            execute = partial(self._execute, route, predictor, headers)
            return await self._execute_in_thread(body, seconds, text, execute)
        finally:
            self._in_progress -= 1

    async def _execute_in_thread(
        self, body: Body, seconds: float, data: bytes, execute: Callable[[bytes], Reply]
    ) -> Reply:
        """Execute a request in a thread, unless it times out or its client disconnects first."""
        deadline = time.monotonic() + seconds

        def execute_in_time() -> Reply:
            try:
                if time.monotonic() > deadline:
                    reason = f"The request could not be executed within {seconds:g} s; try again."
                    raise HttpError(504, reason, RETRY_AFTER)
                text = decompress(data, LARGE_BODY) if body.compressed else data
                large = max(len(data), len(text)) > LARGE_BODY
                with LARGE_INPUT_LOCK if large else nullcontext():
                    if body.compressed and len(text) > LARGE_BODY:
                        text = decompress(data, self.limits.body)
                    if len(text) > self.limits.body:
                        raise too_large(f"more than {self.limits.body} bytes", self.limits.body)
                    return execute(text)
            except HttpError as error:  # not raised: its traceback would keep the body in memory
                return error.reply

        pool = self._large_pool if len(data) > LARGE_BODY else self._pool
        work = pool.submit(execute_in_time)
        self._work.add(work)
        work.add_done_callback(self._work.discard)
        result = asyncio.wrap_future(work)
        disconnect: asyncio.Future[Any] = asyncio.ensure_future(body.wait_for_disconnect())
        try:
            await asyncio.wait([result, disconnect], return_when=asyncio.FIRST_COMPLETED)
            if not result.done() and work.cancel():
                raise Disconnected
            return await result
        finally:
            disconnect.cancel()

    def _execute(self, route: str, predictor: Predictor, headers: dict[bytes, bytes], text: bytes) -> Reply:
        """Return the reply to a request, with its duration; a failure of the model is a reply."""
        start = time.perf_counter()
        try:
            if route == "predict":
                reply = tfserving.predict(predictor, text, self._settings.max_batch, self.limits)
            else:
                length = headers.get(openinference.HEADER_LENGTH)
                reply = openinference.infer(predictor, text, length, self._settings.max_batch)
        except HttpError as error:  # not raised: see `_execute_in_thread`
            return error.reply
        except Exception:  # a failure of one prediction
            trace = trace_headers([*headers.items()])
            log.exception("a prediction of version %d failed%s", predictor.version, _trace_suffix(trace))
            reply = _INTERNAL_ERROR
        return reply._replace(seconds=time.perf_counter() - start)


def _trace_suffix(trace: Headers) -> str:
    return f" in trace {trace_id(trace)}" if trace else ""


def _may_contain_image(predictor: Predictor, text: bytes) -> bool:
    """Return whether a body may contain an image; images are not decoded on the event loop.

    An image is a string, and its key may be written with escapes, which numbers never have.
    """
    if predictor.signature.input.image is None or text.count(b'"') <= 2:  # only one key, and no string
        return False
    return b"b64" in text or b"\\" in text


def _parse_timeout(headers: dict[bytes, bytes], default: float) -> float:
    """Return the timeout of a request in seconds: that of the header, but at most the default."""
    try:
        seconds = float(headers.get(TIMEOUT_HEADER, default))
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise HttpError(
            400,
            f"X-Request-Timeout is {shorten(headers[TIMEOUT_HEADER].decode('latin-1'))}; use a number of "
            "seconds above 0.",
        )
    return min(seconds, default)


def _check_model(target: RequestTarget, predictor: Predictor) -> None:
    """Refuse a model or version that is not served (404)."""
    if target.name != predictor.name:
        raise HttpError(
            404, f"There is no model {target.name!r}; this server has the model {predictor.name!r}."
        )
    if target.version is not None and target.version != str(predictor.version):
        raise HttpError(
            404,
            f"Version {target.version} of {predictor.name} is not served; the server has version "
            f"{predictor.version}. Omit the version to use it.",
        )


@lru_cache(maxsize=256)
def resolve(method: str, path: str) -> RequestTarget:
    """Return the target of a request.

    Raises:
        HttpError: 404 or 405, there is no such route.
    """
    allowed_methods = set()
    for route, allowed_method, pattern in _PATTERNS:
        if match := pattern.fullmatch(path):
            if allowed_method == method or (allowed_method, method) == ("GET", "HEAD"):
                groups = match.groupdict()
                return RequestTarget(route, groups.get("name"), groups.get("version"))
            allowed_methods.add(allowed_method)
    if allowed_methods:
        methods = ", ".join(sorted(allowed_methods))
        raise HttpError(
            405,
            f"{method[:20]} {path[:80]} is not allowed; use {methods}.",
            ((b"allow", methods.encode()),),
        )
    raise HttpError(
        404,
        f"{path[:80]} does not exist; predictions are at /v1/models/NAME:predict and "
        "/v2/models/NAME/infer, /v2 lists the supported extensions, and the page at / shows an example.",
    )
