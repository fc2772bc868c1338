"""uvicorn's HTTP connection, with limits on the size and time of what arrives.

uvicorn waits forever for the rest of a request, lets its head and its trailers have any size, and takes the
body after `Upgrade` for another request. This module uses private parts of uvicorn and httptools, so
both are pinned exactly; tests/integration/serve/test_connection.py holds what an update must keep.
"""

import socket
from asyncio import TimerHandle, Transport
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from modelyard.components.serve.replies import encode

REFUSED = "modelyard.refused"  # in the scope of a request, the status with which its connection answered it
MAX_OVERHEAD = 64 * 2**10
"""Bytes of a request that are not body: its head, trailers, and the sizes and extensions of chunks."""
OVERHEAD_PER_BYTE = 16  # of the body, for chunks of a single byte
FRAMING = (b"content-length", b"transfer-encoding")
GONE_AFTER = 0.25  # seconds in which a client that is gone has answered a packet with a reset
TCP_CLOSE = 7  # in the first byte of TCP_INFO (Linux: include/net/tcp_states.h)


class Connection(HttpToolsProtocol):
    """A connection whose requests arrive whole within `timeout` seconds, or get 408; see `limited`."""

    timeout: float
    note_refusal: Callable[..., None]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._whole = True  # no request has begun, or the last one has arrived
        self._overhead = self._packet = 0
        self._resuming = False
        self._timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Expect a first request."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.timeout, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and limit what has not arrived whole."""
        self._unset_keepalive_if_required()
        self._packet = len(data)
        self._overhead += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self._refuse(400, f"This is not HTTP/1.1: {error}. The page at / shows an example.")
            return
        if self._whole:
            self._stop_timer()
        elif self._overhead > MAX_OVERHEAD:
            self._refuse(
                431,
                f"The request has more than {MAX_OVERHEAD} bytes beside its body; send fewer headers, larger "
                "chunks and no trailers.",
            )
        elif self._timer is None:
            self._timer = self.loop.call_later(self.timeout, self._late)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer a client that has closed only its own direction; forget one that is gone.

        Both look the same until a packet is sent: a client that is gone answers it with a reset.
        """
        if not self._whole or self.cycle is None or self.cycle.response_complete or self.scheme == "https":
            return False  # asyncio closes the connection; over TLS it always does
        self.cycle.keep_alive = False
        if self.scope["http_version"] == "1.1" and not self.cycle.response_started and not self.pipeline:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.loop.call_later(GONE_AFTER, self._abort_if_gone)
        return True

    def on_message_begin(self) -> None:
        """Begin a request, and its time."""
        if self._resuming:
            return
        self._stop_timer()
        self._whole, self._overhead = False, self._packet
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Add a part of the URL."""
        if not self._resuming:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; trailers are dropped."""
        if "method" not in self.scope and not self._resuming:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the app on the request."""
        if not self._resuming:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Add a part of the body."""
        self._overhead = max(0, self._overhead - (1 + OVERHEAD_PER_BYTE) * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is whole, unless the parser stopped at `Upgrade`, before the body."""
        if self.parser.should_upgrade():
            return
        self._whole = True
        self._packet = 0  # how much of it belongs to the next request is not known
        super().on_message_complete()

    def _feed(self, data: bytes) -> None:
        """Feed the parser; `Upgrade` is an offer, which this server does not accept (RFC 9110, 7.8)."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                self._resume()
                data = data[stopped.args[0] :]
            else:
                return

    def _resume(self) -> None:
        """Go on after a head that offers an upgrade: a new parser gets the head without the offer."""
        framing = [b"%s: %s\r\n" % header for header in self.headers if header[0] in FRAMING]
        version = self.scope["http_version"].encode()
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._resuming = True
        try:
            self.parser.feed_data(b"POST / HTTP/%s\r\n%s\r\n" % (version, b"".join(framing)))
        finally:
            self._resuming = False

    def _late(self) -> None:
        """Give up on a request that did not arrive in time; the app is told that the client went away."""
        self._timer = None
        if self.pipeline:  # an earlier request is still being answered, and nothing is read meanwhile
            self._timer = self.loop.call_later(self.timeout, self._late)
        elif self.scope is None or (self.cycle and self.cycle.response_complete and "method" in self.scope):
            self.transport.close()  # nothing came at all, or it was answered before its body ended
        else:
            part = "body" if "method" in self.scope else "head"
            self._refuse(408, f"The request's {part} did not arrive in {self.timeout:g} s; send it at once.")

    def _abort_if_gone(self) -> None:
        if self.transport.is_closing():
            return
        connection = self.transport.get_extra_info("socket")
        if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE:
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int, message: str) -> None:
        self._stop_timer()
        if self.transport.is_closing():
            return
        body = encode({"error": message})
        if (
            not self._whole and "path" in self.scope
        ):  # the app knows of it, and is told that its client is gone
            self.scope[REFUSED] = status  # type: ignore[literal-required]
        else:
            self.note_refusal(status, len(body), self.client)
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.transport.close()


def limited(seconds: float, note_refusal: Callable[..., None]) -> type[Connection]:
    """Return the class of connections on which a request arrives whole in `seconds`.

    Args:
        seconds: the time.
        note_refusal: called with the status, the bytes and the client of a refusal of which no app knows.
    """
    members = {"timeout": seconds, "note_refusal": staticmethod(note_refusal)}
    return type("LimitedConnection", (Connection,), members)
