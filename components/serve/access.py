"""Who may send requests, over what, and what is noted of them.

A token, if the server has a file of them, for all but health and the page; a certificate for TLS; no
predictions for pages of other sites; a line of JSON per request; W3C trace context. Files are read again
when they change, as Kubernetes and cert-manager do with a Secret: what cannot be read changes nothing.
"""

import hmac
import json
import logging
import os
import re
import select
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from modelyard.components.errors import ConfigError, ModelyardError
from modelyard.components.serve.replies import HttpError
from modelyard.components.serve.settings import Serving
from modelyard.components.server import TOKEN_HEADER, check_private, read_tokens

PUBLIC_ROUTES = frozenset(("live", "ready", "page"))
"""Routes that need no token: the probes of Kubernetes have none, and the page asks for it."""
ALTERNATIVE_HEADER = TOKEN_HEADER.encode()
CHALLENGE = b"www-authenticate"
FETCH_SITE, ORIGIN = b"sec-fetch-site", b"origin"
MAX_PATH = 256  # characters of a path in the access log

TRACEPARENT, TRACESTATE = b"traceparent", b"tracestate"
_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_MEMBER = re.compile(rb"[a-z0-9][a-z0-9_\-*/@]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
MAX_TRACESTATE_MEMBERS = 32

T = TypeVar("T")
Headers = tuple[tuple[bytes, bytes], ...]

log = logging.getLogger(__name__)


class WatchedFiles(Generic[T]):
    """What was read from files; `refresh` reads it again when one of them changed.

    Args:
        paths: the files.
        read: reads them; raises ModelyardError if they are not what they should be.
    """

    def __init__(self, paths: Sequence[str], read: Callable[[], T]) -> None:
        self._paths, self._read = paths, read
        self._last_identities = self._identities()
        self.value = read()

    def refresh(self) -> None:
        """Read the files again if they changed; keep what was read before if they cannot be used."""
        if (identities := self._identities()) == self._last_identities:
            return
        self._last_identities = identities
        try:
            self.value = self._read()
        except ModelyardError as error:
            log.error("What was read before stays in use: %s", error)
        else:
            log.info("read %s again", " and ".join(self._paths))

    def _identities(self) -> list[tuple[int, ...] | None]:
        return [_file_identity(path) for path in self._paths]


class AccessLog:
    """Lines of JSON about requests; one that does not fit into a full pipe is dropped, and the next says so.

    Args:
        output: a file descriptor.
    """

    def __init__(self, output: int = 1) -> None:
        self._output, self._dropped = output, 0
        self._poll = select.poll()
        self._poll.register(output, select.POLLOUT)

    def write(
        self,
        scope: dict[str, Any],
        status: int,
        size: int,
        started: float,
        version: int | None,
        trace: Headers,
    ) -> None:
        """Write a line about a request.

        Args:
            scope: ASGI's; of a request that was refused before its head was read, only `client`.
            status: of the answer; 499 if the client went away before.
            size: bytes of its body.
            started: `time.perf_counter` when it began.
            version: of the model that was served.
            trace: its trace context.
        """
        if not self._poll.poll(0):  # a pipe with room takes 4 KiB at once
            self._dropped += 1
            return
        client = scope.get("client")
        line = {
            "event": "request",
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": client[0] if client else None,
            "method": scope.get("method"),
            "path": path[:MAX_PATH] if (path := scope.get("path")) else None,  # without the query
            "status": status,
            "bytes": size,
            "seconds": round(time.perf_counter() - started, 6),
            "version": version,
            "trace_id": trace_id(trace),
        }
        if self._dropped:
            line["dropped"], self._dropped = self._dropped, 0
        with suppress(OSError):  # nobody reads it
            os.write(self._output, json.dumps(line).encode() + b"\n")


class Access:
    """Who may send requests to one server.

    Attributes:
        log: what is noted of requests; None if nothing is.

    Args:
        serving: its settings.

    Raises:
        ConfigError: the files of tokens, certificate or key cannot be used.
    """

    def __init__(self, serving: Serving) -> None:
        self.log = AccessLog() if serving.access_log else None
        self._tokens: WatchedFiles[list[bytes]] | None = None
        self._certificate: WatchedFiles[ssl.SSLContext] | None = None
        if path := serving.token_file:
            self._tokens = WatchedFiles((path,), lambda: [token.encode() for token in read_tokens(path)])
        if serving.tls_cert and serving.tls_key:
            files = serving.tls_cert, serving.tls_key
            self._certificate = WatchedFiles(files, partial(_tls_context, *files))

    def refresh(self) -> None:
        """Read again what changed."""
        for files in (self._tokens, self._certificate):
            if files:
                files.refresh()

    def tls_context(self) -> ssl.SSLContext | None:
        """Return the context for TLS, in which each handshake takes the present certificate; None without."""
        if (certificate := self._certificate) is None:
            return None

        def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = certificate.value

        context = certificate.value
        context.sni_callback = choose
        return context

    def check(self, route: str, headers: dict[bytes, bytes]) -> None:
        """Refuse a request without a valid token, and a prediction for a page of another site.

        Raises:
            HttpError: 401 or 403.
        """
        if self._tokens and route not in PUBLIC_ROUTES:
            _check_token(self._tokens.value, headers)
        if (FETCH_SITE in headers or ORIGIN in headers) and route in ("predict", "infer"):
            _check_site(headers)

    def log_refusal(self, status: int, size: int, client: tuple[str, int] | None) -> None:
        """Note an answer of the connection itself, to what is not HTTP or did not arrive."""
        if self.log:
            self.log.write({"client": client}, status, size, time.perf_counter(), None, ())


def _check_token(tokens: list[bytes], headers: dict[bytes, bytes]) -> None:
    scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
    candidates = [bearer.strip()] if scheme.lower() == b"bearer" else []
    candidates += [headers[ALTERNATIVE_HEADER]] if ALTERNATIVE_HEADER in headers else []
    # no short cut: the time says nothing about which token it is
    if sum(hmac.compare_digest(candidate, token) for candidate in candidates for token in tokens):
        return
    if candidates:
        challenge = b'Bearer error="invalid_token"'
        raise HttpError(401, "The token is not valid; ask for a new one.", ((CHALLENGE, challenge),))
    raise HttpError(
        401, "This server needs a token; send it as Authorization: Bearer TOKEN.", ((CHALLENGE, b"Bearer"),)
    )


def _check_site(headers: dict[bytes, bytes]) -> None:
    """Refuse what a page of another site lets a browser send, which needs no permission for it (CORS).

    Programs send neither header. A browser's Sec-Fetch-Site is right also where a proxy changes Host.
    """
    site = headers.get(FETCH_SITE)
    if site is None:
        same_origin = headers[ORIGIN].rpartition(b"://")[2].lower() == headers.get(b"host", b"").lower()
    else:
        same_origin = site in (b"same-origin", b"none")
    if not same_origin:
        raise HttpError(
            403,
            "A page of another site sent this request; predictions are for this server's own page and for "
            "programs. Send it from your own server.",
        )


def _tls_context(cert: str, key: str) -> ssl.SSLContext:
    """Return a context with the certificate.

    Raises:
        ConfigError: it cannot be read, or is not of the key.
    """
    check_private("serving.tls_key", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password="")  # an encrypted key is refused instead of asked for
    except (OSError, ValueError) as error:  # ssl's errors are OSErrors
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ConfigError(
            f"serving.tls_cert is {cert} and serving.tls_key is {key}, which cannot be used: {reason}. Give "
            "a certificate chain and its key in PEM, the key without a password."
        ) from error
    return context


def _file_identity(path: str) -> tuple[int, ...] | None:
    """Return what changes when a file does, also by a link that leads elsewhere; None without one."""
    with suppress(OSError):
        status = Path(path).stat()
        return status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size
    return None


def trace_headers(headers: Sequence[tuple[bytes, bytes]]) -> Headers:
    """Return the trace context of a request, for its answer: traceparent, and tracestate if it has one.

    What is not as in W3C Trace Context is left out: tracestate alone, or both.
    """
    parents = [value for name, value in headers if name == TRACEPARENT]
    match = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if match is None or (match[1] == b"00" and match[5] is not None):
        return ()
    parent = (TRACEPARENT, b"00-%s-%s-%s" % match.group(2, 3, 4))
    state = b",".join(value for name, value in headers if name == TRACESTATE)
    members = [member.strip(b" \t") for member in state.split(b",") if member.strip(b" \t")]
    if not members or len(members) > MAX_TRACESTATE_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return (parent,)
    return parent, (TRACESTATE, b",".join(members))


def trace_id(trace: Headers) -> str | None:
    """Return the id of the trace that a request belongs to."""
    return trace[0][1].split(b"-")[1].decode() if trace else None
