"""The ASGI application, without a framework: routes, bodies, the queue, and errors as replies.

A small request is answered on the event loop, which is the fastest on one core; one that would hold the
loop up for long (`Predictor.inline_bytes`) goes to a thread, so that health checks are always answered.
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from modelyard.components.serve import openinference, tfserving
from modelyard.components.serve.metrics import Metrics
from modelyard.components.serve.model import Predictor
from modelyard.components.serve.replies import Refused, Reply, encode
from modelyard.components.serve.settings import Serving
from modelyard.components.server import GOLDEN_HEADER

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

PAGE = Path(__file__).with_name("page.html")
PAGE_POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    b"connect-src 'self'; img-src blob:"
)
GOLDEN = GOLDEN_HEADER.encode()
LATE = "modelyard.late"  # in the scope of a request that its connection answered with 408
CLOSE = (b"connection", b"close")
_GONE, _TOO_LATE = Reply(b"", 499), Reply(b"", 408)  # counted, not sent: nobody is there, or it was sent
_FAILED = Reply(encode({"error": "The server failed; its log says why. Report this as a bug."}), 500)

LONGEST_PATH = 512
_ROUTES = {
    "page": ("GET", r"/"),
    "metrics": ("GET", r"/metrics"),
    "live": ("GET", r"/v2/health/live"),
    "ready": ("GET", r"/v2/health/ready"),
    "server": ("GET", r"/v2/?"),
    "metadata": ("GET", r"/v2/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?"),
    "model_ready": ("GET", r"/v2/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?/ready"),
    "infer": ("POST", r"/v2/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?/infer"),
    "status": ("GET", r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?"),
    "signature": ("GET", r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?/metadata"),
    "predict": ("POST", r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[^/:]+))?:predict"),
}
_PATTERNS = [(route, method, re.compile(pattern)) for route, (method, pattern) in _ROUTES.items()]

log = logging.getLogger(__name__)


class Call(NamedTuple):
    """What a request asks for; `name` and `version` are as they stand in the path."""

    route: str
    name: str | None
    version: str | None


class Disconnected(Exception):  # noqa: N818 - not an error: the client is gone
    """The client went away before its request was whole, or was too slow (408)."""


class App:
    """Answers requests with the version that it was given last (`take`).

    Args:
        predictor: the version to begin with.
        settings: the limits.
    """

    def __init__(self, predictor: Predictor, settings: Serving) -> None:
        self._settings = settings
        self._predictor = predictor
        self._in_progress = 0
        self._metrics = Metrics(predictor.name, lambda: self._in_progress)
        self._metrics.version = predictor.version
        workers = max(1, len(os.sched_getaffinity(0)) // settings.threads)
        self._pool = ThreadPoolExecutor(workers, "predict")
        self._page = PAGE.read_bytes().replace(b"{{ name }}", predictor.name.encode())
        self.draining = False

    def take(self, predictor: Predictor) -> None:
        """Answer with `predictor` from now on; requests in progress finish on the old one."""
        self._predictor = predictor
        self._metrics.version = predictor.version
        log.info("serving version %d of %s", predictor.version, predictor.name)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        started = time.perf_counter()
        predictor = self._predictor
        headers = dict(scope["headers"])
        call = None
        try:
            call = resolve(scope["method"], scope["path"])
            reply = await self._reply(call, predictor, headers, receive)
        except Refused as refused:
            reply = refused.reply
        except Disconnected:
            reply = _TOO_LATE if LATE in scope else _GONE
        except Exception:  # a bug ends one request, with its traceback in the log, and not the server
            log.exception("%s %s failed", scope["method"], scope["path"])
            reply = _FAILED
        if call and call.route in ("predict", "infer"):
            self._metrics.answered(
                predictor.version,
                reply.status,
                headers.get(GOLDEN) == b"1",
                time.perf_counter() - started,
                reply.rows,
            )
        if reply.body:
            await self._send(reply, send)

    async def _send(self, reply: Reply, send: Send) -> None:
        headers = [
            (b"content-type", reply.kind),
            (b"content-length", str(len(reply.body)).encode()),
            *reply.headers,
        ]
        if self.draining and CLOSE not in headers:
            headers.append(CLOSE)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _reply(
        self, call: Call, predictor: Predictor, headers: dict[bytes, bytes], receive: Receive
    ) -> Reply:
        """Return the reply to a call on the version that is served."""
        if call.name is not None:
            _check_model(call, predictor)
        match call.route:
            case "predict" | "infer":
                return await self._predict(call.route, predictor, headers, receive)
            case "ready" | "model_ready":
                return Reply(encode({"ready": not self.draining}), 503 if self.draining else 200)
            case "live":
                return Reply(encode({"live": True}))
            case "status":
                return tfserving.status(predictor)
            case "signature":
                return tfserving.metadata(predictor)
            case "metadata":
                return openinference.metadata(predictor)
            case "server":
                return openinference.server()
            case "metrics":
                return self._metrics.page()
            case _:
                policy = ((b"content-security-policy", PAGE_POLICY), (b"x-content-type-options", b"nosniff"))
                return Reply(self._page, kind=b"text/html; charset=utf-8", headers=policy)

    async def _predict(
        self, route: str, predictor: Predictor, headers: dict[bytes, bytes], receive: Receive
    ) -> Reply:
        if self._in_progress >= self._settings.max_queue:
            raise Refused(
                503,
                f"{self._in_progress} requests are in progress, and at most {self._settings.max_queue} are "
                "taken; try again in a second.",
                ((b"retry-after", b"1"),),
            )
        self._in_progress += 1
        try:
            text = await read_body(headers, receive, self._settings.max_body_bytes)
            if len(text) <= predictor.inline_bytes:
                return self._answer(route, predictor, headers, text)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, self._answer, route, predictor, headers, text)
        finally:
            self._in_progress -= 1

    def _answer(self, route: str, predictor: Predictor, headers: dict[bytes, bytes], text: bytes) -> Reply:
        limit = self._settings.max_batch
        if route == "predict":
            return tfserving.predict(predictor, text, limit)
        return openinference.infer(predictor, text, headers.get(openinference.HEADER_LENGTH), limit)


def _check_model(call: Call, predictor: Predictor) -> None:
    """Refuse another model or version than the one that is served (404)."""
    if call.name != predictor.name:
        raise Refused(
            404, f"There is no model {call.name!r} here; this server serves {predictor.name!r}. Ask for that."
        )
    if call.version is not None and call.version != str(predictor.version):
        raise Refused(
            404,
            f"Version {call.version} of {predictor.name} is not served here, version {predictor.version} is; "
            "leave the version out to get the one that is served.",
        )


@lru_cache(maxsize=256)
def _match(method: str, path: str) -> Call | Refused:
    """Return what a method and a path ask for, or why nothing answers them."""
    allowed = set()
    for route, needed, pattern in _PATTERNS:
        if found := pattern.fullmatch(path):
            if needed == method:
                groups = found.groupdict()
                return Call(route, groups.get("name"), groups.get("version"))
            allowed.add(needed)
    if allowed:
        needed = ", ".join(sorted(allowed))
        return Refused(
            405, f"{method[:20]} {path[:80]} is not possible; use {needed}.", ((b"allow", needed.encode()),)
        )
    return Refused(
        404,
        f"There is nothing at {path[:80]}; predictions are at /v1/models/NAME:predict and "
        "/v2/models/NAME/infer, and the page at / shows an example.",
    )


def resolve(method: str, path: str) -> Call:
    """Return what a request asks for.

    Raises:
        Refused: 404 or 405, nothing answers it.
    """
    found = _match(method, path[:LONGEST_PATH])
    if isinstance(found, Refused):
        raise Refused(found.reply.status, str(found), found.reply.headers)
    return found


async def read_body(headers: dict[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """Return a request's body, of `limit` bytes at most; its time is limited by the connection.

    Raises:
        Refused: 411, 413 or 415.
        Disconnected: the client went away, or was too slow.
    """
    _check_headers(headers)
    length = headers.get(b"content-length")
    if length is None and b"transfer-encoding" not in headers:
        raise Refused(411, "The request has no body; send one, with Content-Length.")
    if length is not None and int(length) > limit:
        raise _too_large(f"{int(length)} bytes", limit)
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.append(message["body"])
        size += len(parts[-1])
        more = message["more_body"]
        if size > limit:
            raise _too_large(f"more than {limit} bytes", limit)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(found: str, limit: int) -> Refused:
    return Refused(413, f"The body has {found}, and at most {limit} are taken; send fewer examples at once.")


def _check_headers(headers: dict[bytes, bytes]) -> None:
    """Refuse bodies that are neither JSON nor tensors (415); forms are what curl -d calls its JSON."""
    kind = headers.get(b"content-type", b"").lower()
    if kind.startswith((b"multipart/", b"image/", b"audio/", b"video/")):
        raise Refused(
            415,
            f"The body is {kind.decode('latin-1')[:60]!r}, and application/json is expected; send a picture "
            'as {"instances": [{"b64": "<the file in base64>"}]}.',
        )
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding != b"identity":
        raise Refused(
            415,
            f"The body is encoded with {encoding.decode('latin-1')[:60]!r}; send it as it is, uncompressed.",
        )
