"""Authentication, TLS, cross-site protection, access log and W3C trace context.

With a token file, all routes except health and the page need a token. Token and certificate files are read
again when they change, because Kubernetes and cert-manager replace the files of a Secret. If a new file is
invalid, the previous value stays in use.
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
from modelyard.components.server import TOKEN_HEADER, check_private, check_regular, read_tokens

PUBLIC_ROUTES = frozenset(("live", "ready", "page"))
"""Routes without a token: Kubernetes probes have none, and the page has an input for it."""
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
    """A value that is read from files; `refresh` reads them again if one of them changed.

    `read` returns the value; it raises ModelyardError if a file is invalid.
    """

    def __init__(self, paths: Sequence[str], read: Callable[[], T]) -> None:
        self._paths, self._read = paths, read
        self._last_identities = self._identities()
        self.value = read()

    def refresh(self) -> None:
        """Read the files again if they changed; keep the previous value if they are invalid."""
        if (identities := self._identities()) == self._last_identities:
            return
        self._last_identities = identities
        try:
            self.value = self._read()
        except ModelyardError as error:
            log.error("The previous value remains in use: %s", error)
        else:
            log.info("reloaded %s", " and ".join(self._paths))

    def _identities(self) -> list[tuple[int, ...] | None]:
        return [_get_file_identity(path) for path in self._paths]


class AccessLog:
    """Writes a JSON line per request to a file descriptor; drops and counts lines while its pipe is full."""

    def __init__(self, output: int = 1) -> None:
        self._output, self._dropped = output, 0
        self._poll = select.poll()
        self._poll.register(output, select.POLLOUT)

    def write(
        self,
        scope: dict[str, Any],
        status: int,
        size: int,
        start: float,
        version: int | None,
        trace: Headers,
    ) -> None:
        """Write the line of a request.

        `scope` is the ASGI scope; it has only `client` if the request was refused before its head was parsed.
        `size` is the bytes of the response body, `start` the `time.perf_counter` at the start of the request.
        """
        if not self._poll.poll(0):  # a pipe that is ready accepts 4 KiB
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
            "seconds": round(time.perf_counter() - start, 6),
            "version": version,
            "trace_id": trace_id(trace),
        }
        if self._dropped:
            line["dropped"], self._dropped = self._dropped, 0
        with suppress(OSError):  # no reader
            os.write(self._output, json.dumps(line).encode() + b"\n")


class Access:
    """Access rules of one server. `log` is the access log; None if it is disabled.

    Raises:
        ConfigError: the token, certificate or key file is invalid.
    """

    def __init__(self, serving: Serving) -> None:
        self.log = AccessLog() if serving.access_log else None
        self._tokens: WatchedFiles[list[bytes]] | None = None
        self._certificate: WatchedFiles[ssl.SSLContext] | None = None
        if path := serving.token_file:
            self._tokens = WatchedFiles((path,), lambda: [token.encode() for token in read_tokens(path)])
        if serving.tls_cert and serving.tls_key:
            files = serving.tls_cert, serving.tls_key
            self._certificate = WatchedFiles(files, partial(_load_tls_context, *files))

    def refresh(self) -> None:
        """Reload files that changed."""
        for files in (self._tokens, self._certificate):
            if files:
                files.refresh()

    def create_tls_context(self) -> ssl.SSLContext | None:
        """Return the TLS context, whose handshakes use the latest certificate; None without TLS."""
        if (certificate := self._certificate) is None:
            return None

        def use_latest(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = certificate.value

        context = certificate.value
        context.sni_callback = use_latest
        return context

    def check(self, route: str, headers: dict[bytes, bytes]) -> None:
        """Refuse requests without a valid token, and cross-site prediction requests.

        Raises:
            HttpError: 401 or 403.
        """
        if self._tokens and route not in PUBLIC_ROUTES:
            _check_token(self._tokens.value, headers)
        if (FETCH_SITE in headers or ORIGIN in headers) and route in ("predict", "infer"):
            _check_site(headers)

    def log_refusal(self, status: int, size: int, client: tuple[str, int] | None) -> None:
        """Log a response of the connection to invalid HTTP or an incomplete request."""
        if self.log:
            self.log.write({"client": client}, status, size, time.perf_counter(), None, ())


def _check_token(tokens: list[bytes], headers: dict[bytes, bytes]) -> None:
    scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
    request_tokens = [bearer.strip()] if scheme.lower() == b"bearer" else []
    request_tokens += [headers[ALTERNATIVE_HEADER]] if ALTERNATIVE_HEADER in headers else []
    # no early exit: the duration does not depend on which token matches
    if sum(hmac.compare_digest(request_token, token) for request_token in request_tokens for token in tokens):
        return
    if request_tokens:
        challenge = b'Bearer error="invalid_token"'
        raise HttpError(401, "The token is not valid; send a valid token.", ((CHALLENGE, challenge),))
    raise HttpError(
        401, "This server needs a token; send it as Authorization: Bearer TOKEN.", ((CHALLENGE, b"Bearer"),)
    )


def _check_site(headers: dict[bytes, bytes]) -> None:
    """Refuse cross-site requests, which browsers send without a preflight (CORS).

    Sec-Fetch-Site is right even if a proxy changes Host. Other clients send neither this header nor Origin.
    """
    site = headers.get(FETCH_SITE)
    if site is None:
        same_origin = headers[ORIGIN].rpartition(b"://")[2].lower() == headers.get(b"host", b"").lower()
    else:
        same_origin = site in (b"same-origin", b"none")
    if not same_origin:
        raise HttpError(
            403,
            "The request is from a page of another site, and cross-site predictions are disabled. Send it "
            "from your server instead.",
        )


def _load_tls_context(cert: str, key: str) -> ssl.SSLContext:
    check_regular("serving.tls_cert", cert)
    check_private("serving.tls_key", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password="")  # fail for an encrypted key instead of prompting
    except (OSError, ValueError) as error:  # ssl's errors are OSErrors
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ConfigError(
            f"serving.tls_cert is {cert} and serving.tls_key is {key}, which cannot be loaded: {reason}. "
            "They must be a certificate chain and its unencrypted key in PEM."
        ) from error
    return context


def _get_file_identity(path: str) -> tuple[int, ...] | None:
    """Return values that change with a file or the target of a link; None without a file."""
    with suppress(OSError):
        status = Path(path).stat()
        return status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size
    return None


def trace_headers(headers: Sequence[tuple[bytes, bytes]]) -> Headers:
    """Return the headers traceparent and tracestate of a request, for its response.

    An invalid tracestate is left out. If the traceparent is invalid, both are left out.
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
    """Return the id of a trace."""
    return trace[0][1].split(b"-")[1].decode() if trace else None
