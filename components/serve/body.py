"""The body of a request: read whole within the limits, or discarded before an early refusal."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from modelyard.components.serve.limits import Limits
from modelyard.components.serve.replies import Refused

Receive = Callable[[], Awaitable[dict[str, Any]]]

MAX_DISCARDED = 64 * 2**20  # bytes that are read so that a client which still sends gets its refusal
DISCARD_SECONDS = 5.0
MAX_DIGITS = 18  # of a Content-Length
ENCODINGS = (b"gzip", b"x-gzip", b"deflate")
ANY_HEADER = 32 + zlib.MAX_WBITS  # zlib's way to say that the data has the header of gzip or of zlib
RETRY = ((b"retry-after", b"1"),)


class Disconnected(Exception):  # noqa: N818 - not an error: the client is gone
    """The client went away before its request was answered, or was too slow (408)."""


class Body:
    """The body of one request.

    Args:
        headers: of the request.
        receive: ASGI's.
        limits: the server's.
        held: the bytes of all bodies that the server holds; a list of one number that all bodies share.
    """

    def __init__(
        self, headers: dict[bytes, bytes], receive: Receive, limits: Limits, held: list[int]
    ) -> None:
        self._headers, self._receive, self._limits, self._held = headers, receive, limits, held
        self._taken = 0
        # whether some of it has not arrived
        self._rest = b"transfer-encoding" in headers or headers.get(b"content-length", b"").strip(b"0") != b""

    async def read(self) -> bytes:
        """Return the whole body; it counts as held until `release`.

        Raises:
            Refused: 400, 411, 413, 415 or 503.
            Disconnected: the client went away, or was too slow.
        """
        compressed = _compressed(self._headers)
        if (length := _length(self._headers)) is None and not self._rest:
            raise Refused(411, "The request has no body; send one, with Content-Length.")
        if length and length > self._limits.body:
            raise _too_large(f"{length} bytes", self._limits.body)
        parts: list[bytes] = []
        while self._rest or not parts:
            parts.append(await self._next())
            self._take(len(parts[-1]))
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return self._decompressed(data) if compressed else data

    def release(self) -> None:
        """Hold nothing any longer."""
        self._held[0] -= self._taken
        self._taken = 0

    async def discard(self) -> bool:
        """Read and drop what has not arrived, within limits; say whether all of it has.

        A connection that is closed while its client sends is reset, and the client never reads the refusal.
        """
        if b"expect" in self._headers and not self._taken:
            return not self._rest  # the client has sent nothing: it waits for 100 Continue
        discarded = 0
        # cancelled at the limit of a drain: the refusal is still sent
        with suppress(Disconnected, Refused, TimeoutError, asyncio.CancelledError):
            if (_length(self._headers) or 0) <= MAX_DISCARDED:
                async with asyncio.timeout(DISCARD_SECONDS):
                    while self._rest and discarded <= MAX_DISCARDED:
                        discarded += len(await self._next())
        return not self._rest

    async def disconnected(self) -> None:
        """Wait until the client has gone; the body has arrived before."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        self._rest = message["more_body"]
        return bytes(message["body"])

    def _take(self, size: int) -> None:
        """Count bytes as held, if this body and all of them may be so large."""
        if self._taken + size > self._limits.body:
            raise _too_large(f"more than {self._limits.body} bytes", self._limits.body)
        if self._held[0] + size > self._limits.bodies:
            raise Refused(
                503,
                f"The requests that are not answered yet have {self._held[0]} bytes, and at most "
                f"{self._limits.bodies} are held; try again in a second.",
                RETRY,
            )
        self._held[0] += size
        self._taken += size

    def _decompressed(self, data: bytes) -> bytes:
        stream = zlib.decompressobj(ANY_HEADER)
        try:
            text = stream.decompress(data, self._limits.body + 1)
        except zlib.error as error:
            raise Refused(
                400, f"The body is not compressed as Content-Encoding says, by gzip or zlib: {error}."
            ) from None
        if stream.unused_data or (not stream.eof and len(text) <= self._limits.body):
            fault = f"has {len(stream.unused_data)} bytes behind its end" if stream.eof else "is cut off"
            raise Refused(400, f"The compressed body {fault}; send it whole, as one stream.")
        self._take(max(0, len(text) - self._taken))
        return text


def _length(headers: dict[bytes, bytes]) -> int | None:
    """Return Content-Length; None without one."""
    if (text := headers.get(b"content-length")) is None:
        return None
    if len(text) > MAX_DIGITS:
        raise Refused(400, f"Content-Length has {len(text)} digits, and at most {MAX_DIGITS} are read.")
    return int(text)  # the parser has checked that it is digits


def _too_large(found: str, limit: int) -> Refused:
    return Refused(413, f"The body has {found}, and at most {limit} are taken; send fewer examples at once.")


def _compressed(headers: dict[bytes, bytes]) -> bool:
    """Say whether the body is compressed; refuse other encodings, and what is neither JSON nor tensors."""
    kind = headers.get(b"content-type", b"").lower()  # of a form is what curl -d calls its JSON
    if kind.startswith((b"multipart/", b"image/", b"audio/", b"video/")):
        raise Refused(
            415,
            f"The body is {kind.decode('latin-1')[:60]!r}, and application/json is expected; send an image "
            'as {"instances": [{"b64": "<the file in base64>"}]}.',
        )
    encoding = headers.get(b"content-encoding", b"identity").lower().strip()
    if encoding not in (b"identity", *ENCODINGS):
        raise Refused(
            415,
            f"The body is encoded with {encoding.decode('latin-1')[:60]!r}; send it uncompressed, or as gzip "
            "or deflate.",
        )
    return encoding != b"identity"
