"""uvicorn's HTTP connection, with limits on the size and time of requests.

uvicorn lacks these limits:

- a timeout for incomplete requests, and for clients that do not read the response
- a maximum size of a head, of trailers and of pipelined requests

uvicorn would also parse the body of a request with `Upgrade` as another request. This module uses private
parts of uvicorn and httptools, so both are pinned exactly. An update must pass
tests/integration/serve/test_connection.py.
"""

import socket
from asyncio import AbstractEventLoop, TimerHandle, Transport
from collections.abc import Callable
from time import perf_counter
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from modelyard.components.serve.replies import encode

REFUSED_STATUS = "modelyard.refused"
"""Key of the ASGI scope; its value is the status with which the connection refused the request."""
MAX_OVERHEAD = 64 * 2**10
"""Maximum bytes of a request in addition to its body: head, trailers, chunk sizes and extensions."""
CHUNK_OVERHEAD = 16  # allowed bytes per byte of the body, for chunks of a single byte
HEADER_MEMORY = 200  # bytes of memory for a header in addition to its text, measured
CONNECTION_MEMORY = 12 * 2**10  # bytes of memory for a connection, measured
TLS_CONNECTION_MEMORY = 64 * 2**10  # bytes of memory for a connection with TLS, also before its handshake
NEXT_REQUEST = b" HTTP/"  # a part of the first line of a request
PIECE_BYTES = 4 * 2**10  # bytes that are parsed at once; this takes at most 2 ms, for chunks of one byte
TURN_SECONDS = 0.002  # seconds of an iteration of the event loop for parsing long data
TRANSFER_ENCODING = b"transfer-encoding"
FRAMING = (b"content-length", TRANSFER_ENCODING)
RESET_WAIT = 0.25  # seconds in which a client that closed the connection responds to a packet with a reset
TCP_CLOSE = 7  # in the first byte of TCP_INFO (Linux: include/net/tcp_states.h)


def connection_class(
    timeout: float, memory: int, tls: bool, log_refusal: Callable[..., None]
) -> "type[Connection]":
    """Return a class of connections with these limits; `memory` is for all connections together, in bytes.

    See Connection for `timeout` and `log_refusal`.
    """
    members = {
        "timeout": timeout,
        "base_memory": TLS_CONNECTION_MEMORY if tls else CONNECTION_MEMORY,
        "memory": ConnectionMemory(memory),
        "queue": ParserQueue(),
        "log_refusal": staticmethod(log_refusal),
    }
    return type("LimitedConnection", (Connection,), members)


class Connection(HttpToolsProtocol):
    """A connection with limits on the size and time of requests, which `connection_class` sets.

    Received data is fed to the parser in pieces. The parser calls the methods `on_…`; uvicorn's
    `on_headers_complete` starts the app. The rest of the data waits while an earlier request has no response,
    or while it is the turn of other connections.

    Attributes:
        timeout: seconds to receive a request (408), and for the client to read a response.
        log_refusal: called with status, bytes and client of a refusal that does not reach the app.
        base_memory: bytes of memory for a connection without a request.
        memory: the memory of all connections.
        queue: the connections with received data to parse.
    """

    timeout: float
    log_refusal: Callable[..., None]
    base_memory: int
    memory: "ConnectionMemory"
    queue: "ParserQueue"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._complete = True  # there is no request, or the last one is complete
        self._overhead = 0  # bytes of the request in addition to its body; see MAX_OVERHEAD
        self._piece_size = 0  # bytes of the piece that is being parsed
        self._size = 0  # bytes counted in `memory`
        self._body_bytes = 0  # bytes of the bodies of unanswered requests
        self._unparsed = b""  # data to parse in a later iteration, or after the response to earlier requests
        self._repeating_head = False  # the app has already received the head that is being parsed
        self._half_closed = False
        self._timer: TimerHandle | None = None
        self._write_timer: TimerHandle | None = None

    # The connection -------------------------------------------------------------------------------

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.memory.open.add(self)
        self._start_timer()
        self._set_memory(self.base_memory)

    def connection_lost(self, exc: Exception | None) -> None:
        self._release()
        self.resume_writing()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Respond to a client that has half-closed the connection; abort if it has closed it.

        The server can distinguish the two only by sending a packet: a client that has closed the connection
        responds with a reset.
        """
        self._half_closed = True
        if self._unparsed:
            return True
        if not self._complete or self.cycle is None or self.cycle.response_complete or self.scheme == "https":
            return False  # asyncio closes the connection; over TLS it always does
        self.cycle.keep_alive = False
        if self.scope["http_version"] == "1.1" and not self.cycle.response_started and not self.pipeline:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.loop.call_later(RESET_WAIT, self._abort_if_gone)
        return True

    def _abort_if_gone(self) -> None:
        if self.transport.is_closing():
            return
        connection = self.transport.get_extra_info("socket")
        if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE:
            self.transport.abort()

    def close(self) -> None:
        """Close the connection without a response."""
        self._release()
        self.transport.close()

    def refuse(self, status: int, message: str) -> None:
        """Respond to the current request with an error, and close the connection."""
        self._release()
        if self.transport.is_closing():
            return
        body = encode({"error": message})
        if not self._complete and "path" in self.scope:  # the app handles this as a disconnect of the client
            self.scope[REFUSED_STATUS] = status  # type: ignore[literal-required]
        else:
            self.log_refusal(status, len(body), self.client)
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.transport.close()

    # Received data --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Feed the parser within the limits; buffer the data if earlier data must be parsed first."""
        self._unset_keepalive_if_required()
        if self.pipeline or self._unparsed:
            self._pause_with(self._unparsed + data)
        else:
            self._parse_pieces(data)

    def _parse_pieces(self, data: bytes) -> None:
        """Feed the parser up to the next pipelined request, or until other connections have their turn."""
        start, head_end = 0, data.find(b"\r\n\r\n")
        maybe_pipelined = data.find(b"H", max(0, head_end)) >= 0  # of HTTP; JSON numbers have no H
        # A short head is parsed together with its body, unless the body is chunked.
        short_head = self._complete and 0 < head_end < PIECE_BYTES
        with_body = short_head and TRANSFER_ENCODING not in data[:head_end].lower()
        while start < len(data):
            end = len(data) if with_body or self._is_in_body() else start + PIECE_BYTES
            end = self._find_next_request(data, start, end) if maybe_pipelined else end
            if not self._parse(data[start:end]):
                return
            start, with_body = end, False
            if start < len(data) and (self.pipeline or self.queue.is_turn_over(self.loop)):
                self._pause_with(data[start:])
                if not self.pipeline:
                    self.queue.append(self)
                return

    def _find_next_request(self, data: bytes, start: int, end: int) -> int:
        """Return a position in the first line of the next request, or `end` if that comes first."""
        # If no request is in progress, the first NEXT_REQUEST belongs to the request that starts here.
        current = data.find(NEXT_REQUEST, start) if self._complete else start
        position = data.find(NEXT_REQUEST, max(current, start) + 1, end)
        return position if position > 0 else end

    def _is_in_body(self) -> bool:
        """Return whether a body without chunks is being received; its data is parsed in one call."""
        return (
            not self._complete
            and "method" in self.scope
            and all(name != TRANSFER_ENCODING for name, _ in self.headers)
        )

    def _parse(self, data: bytes) -> bool:
        """Feed the parser within the limits of a request; return whether to continue."""
        self._piece_size = len(data)
        self._overhead += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self.refuse(400, f"The request is not valid HTTP/1.1: {error}. The page at / shows an example.")
            return False
        if self._complete:
            self._stop_timer()
        elif self._overhead > MAX_OVERHEAD:
            self.refuse(
                431,
                f"The request has more than {MAX_OVERHEAD} bytes in addition to its body; send fewer "
                "headers, larger chunks and no trailers.",
            )
            return False
        elif self._timer is None:
            self._start_timer()
        self._count_memory()
        return not self.transport.is_closing()

    def _pause_with(self, data: bytes) -> None:
        """Buffer data to parse it later, and pause reading."""
        self._unparsed = data
        self.flow.pause_reading()
        self._count_memory()

    def parse_next(self) -> None:
        """Parse data that waited in the queue."""
        data, self._unparsed = self._unparsed, b""
        if not data or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._parse_pieces(data)
        if self._unparsed or self.transport.is_closing():
            return
        if not self.pipeline:
            self.flow.resume_reading()
        if self._half_closed and not self.eof_received():
            self.transport.close()

    # Parser callbacks -----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._repeating_head:
            return
        self._stop_timer()
        self._complete, self._overhead = False, self._piece_size
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._repeating_head:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; trailers are dropped."""
        if "method" not in self.scope and not self._repeating_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._repeating_head:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Add a part of the body."""
        self._overhead = max(0, self._overhead - (1 + CHUNK_OVERHEAD) * len(body))
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Complete the request, unless the parser stopped at `Upgrade`, before the body."""
        if self.parser.should_upgrade():
            return
        self._complete = True
        self._piece_size = 0  # it is unknown how many of these bytes belong to the next request
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Release the memory of the request, and queue the data of the next one."""
        super().on_response_complete()
        if self.pipeline or self.transport.is_closing():
            return
        self._body_bytes = len(self.cycle.body)
        if self._unparsed:
            self.flow.pause_reading()
            self.queue.append(self)
        elif self.idle:
            self._set_memory(self.base_memory)

    def _feed(self, data: bytes) -> None:
        """Feed the parser and ignore `Upgrade`, as RFC 9110, 7.8 permits."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._restart_parser()
                data = data[upgrade.args[0] :]
            else:
                return

    def _restart_parser(self) -> None:
        """Continue after a head with `Upgrade`, by feeding the head without `Upgrade` to a new parser."""
        framing = [b"%s: %s\r\n" % header for header in self.headers if header[0] in FRAMING]
        version = self.scope["http_version"].encode()
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._repeating_head = True
        try:
            self.parser.feed_data(b"POST / HTTP/%s\r\n%s\r\n" % (version, b"".join(framing)))
        finally:
            self._repeating_head = False

    # Timeouts -------------------------------------------------------------------------------------

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.timeout, self._time_out)
        self.memory.waiting[self] = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            del self.memory.waiting[self]

    def _time_out(self) -> None:
        """Refuse an incomplete request; the app handles this as a disconnect of the client."""
        self._stop_timer()
        if self.pipeline or self._unparsed:  # reading is paused
            self._start_timer()
        elif self.scope is None or (self.cycle and self.cycle.response_complete and "method" in self.scope):
            self.transport.close()  # there is no data, or the response was sent before the end of the body
        else:
            part = "body" if "method" in self.scope else "head"
            self.refuse(
                408, f"The request's {part} did not arrive within {self.timeout:g} s; send it without pauses."
            )

    def pause_writing(self) -> None:
        """Start the timeout for the client to read the response."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timeout for the client to read the response."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    # Memory ---------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether the connection is open and waits for its next request."""
        answered = self._complete and self.cycle and self.cycle.response_complete
        return bool(self._size and answered and not self._unparsed)

    def _count_memory(self) -> None:
        """Update the memory of the unanswered requests."""
        head = self._overhead + HEADER_MEMORY * len(self.headers or ())
        self._set_memory(self.base_memory + head + self._body_bytes + len(self._unparsed))

    def _set_memory(self, size: int) -> None:
        if size != self._size:
            change, self._size = size - self._size, size
            self.memory.update(change, self)

    def _release(self) -> None:
        """Stop the timer, and count no memory for this connection."""
        self._stop_timer()
        self._unparsed = b""
        self.memory.open.discard(self)
        self._set_memory(0)


class ConnectionMemory:
    """The memory of all connections and their unanswered requests, in bytes.

    Above the limit, the connection whose request has been incomplete the longest is closed.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.open: set[Connection] = set()
        self.waiting: dict[Connection, None] = {}  # with an incomplete request; the longest wait is first

    def update(self, size: int, connection: "Connection") -> None:
        """Add `size` bytes for a connection; above the limit, close other connections, or else this one."""
        self.bytes += size
        while self.bytes > self.limit and size > 0:
            idle_connections = (other for other in self.open if other.idle and size <= connection.base_memory)
            victim = next(iter(self.waiting), None) or next(idle_connections, connection)
            if victim.idle and victim is not connection:
                victim.close()  # an error would be the response to the client's next request
                continue
            victim.refuse(
                503, f"All connections together need more than {self.limit} bytes of memory; try again."
            )
            if victim is connection:
                return


class ParserQueue:
    """Connections whose received data is parsed later, some in each iteration of the event loop.

    Many headers, tiny chunks or pipelined requests take long to parse. Short requests do not wait for them.
    """

    def __init__(self) -> None:
        self._connections: dict[Connection, None] = {}
        self._scheduled = False
        self._end = 0.0

    def append(self, connection: "Connection") -> None:
        """Parse the data of a connection after that of the others in the queue."""
        self._connections[connection] = None
        self._schedule(connection.loop)

    def is_turn_over(self, loop: AbstractEventLoop) -> bool:
        """Return whether this iteration of the event loop has no time left for long data."""
        now = perf_counter()
        if not self._scheduled:
            self._end = now + TURN_SECONDS
            self._schedule(loop)
        return now > self._end

    def _schedule(self, loop: AbstractEventLoop) -> None:
        if not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._run, loop)

    def _run(self, loop: AbstractEventLoop) -> None:
        self._end = perf_counter() + TURN_SECONDS
        while self._connections and not self.is_turn_over(loop):
            connection = next(iter(self._connections))
            del self._connections[connection]
            connection.parse_next()
        self._scheduled = False
        if self._connections:
            self._schedule(loop)
