"""One HTTP connection: uvicorn's, with limits on the time and size of what arrives.

uvicorn waits for ever for the rest of a request, and a request's head may have any size. Here a head has
MAX_HEAD bytes at most, and a request arrives whole in `timeout` seconds, or is answered with 408.
"""

from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from modelyard.components.serve.replies import encode

MAX_HEAD = 64 * 2**10
LATE = "modelyard.late"  # in the scope of a request that was answered with 408 here


class Connection(HttpToolsProtocol):
    """A connection whose `timeout` is set on a subclass (`limited`)."""

    timeout: float

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._whole = True
        self._head = 0
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
        """Feed the parser and watch what is not whole yet."""
        super().data_received(data)
        if self._whole:
            self._stop_timer()
            return
        if "method" not in self.scope:  # the head has not ended
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._refuse(431, f"The request's head is larger than {MAX_HEAD} bytes; send fewer headers.")
                return
        if self._timer is None:
            self._timer = self.loop.call_later(self.timeout, self._late)

    def on_message_begin(self) -> None:
        """A request begins, and so does its time."""
        self._stop_timer()
        self._whole, self._head = False, 0
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._whole = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(400, f"{msg} Send HTTP/1.1; the page at / shows an example.")

    def _late(self) -> None:
        """Give up on a request that did not arrive in time; the app is told that the client went away."""
        self._timer = None
        if self.pipeline:  # an earlier request is still being answered, and nothing is read meanwhile
            self._timer = self.loop.call_later(self.timeout, self._late)
        elif self.scope is None or (self.cycle and self.cycle.response_complete and "method" in self.scope):
            self.transport.close()  # nothing came at all, or it was answered before its body ended
        else:
            part = "body" if "method" in self.scope else "head"
            self.scope[LATE] = True  # type: ignore[literal-required]
            self._refuse(408, f"The request's {part} did not arrive in {self.timeout:g} s; send it at once.")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int, message: str) -> None:
        self._stop_timer()
        if self.transport.is_closing():
            return
        body = encode({"error": message})
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.transport.close()


def limited(seconds: float) -> type[Connection]:
    """Return the class of connections on which a request arrives whole in `seconds`."""
    return type("LimitedConnection", (Connection,), {"timeout": seconds})
