"""Reads the body of a request within the limits, or discards it before a refusal is sent."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from modelyard.components.serve.replies import HttpError

Receive = Callable[[], Awaitable[dict[str, Any]]]

MAX_DISCARDED = 64 * 2**20  # bytes read so that a client that is still sending gets the refusal
DISCARD_SECONDS = 5.0
MAX_DIGITS = 18  # of a Content-Length
ENCODINGS = (b"gzip", b"x-gzip", b"deflate")
AUTO_HEADER = 32 + zlib.MAX_WBITS  # detects the header of gzip or zlib


class Disconnected(Exception):  # noqa: N818 - not an error
    """The client disconnected before its response, or was too slow (408)."""


class Body:
    """The body of one request, of at most `limit` bytes.

    `receive` is that of ASGI; `compressed` is whether the body that `read` returned is compressed.
    """

    def __init__(self, headers: dict[bytes, bytes], receive: Receive, limit: int) -> None:
        self._headers, self._receive, self._limit = headers, receive, limit
        self._received_bytes = 0
        self.compressed = False
        self._incomplete = (
            b"transfer-encoding" in headers or headers.get(b"content-length", b"").strip(b"0") != b""
        )

    async def read(self) -> bytes:
        """Return the body as the client sent it, and set `compressed`.

        Raises:
            HttpError: 400, 411, 413 or 415.
            Disconnected: the client disconnected, or was too slow.
        """
        self.compressed = _is_compressed(self._headers)
        if (length := _content_length(self._headers)) is None and not self._incomplete:
            raise HttpError(411, "The request has no body; send one, with Content-Length.")
        if length and length > self._limit:
            raise too_large(f"{length} bytes", self._limit)
        parts: list[bytes] = []
        while self._incomplete or not parts:
            parts.append(await self._next())
            self._received_bytes += len(parts[-1])
            if self._received_bytes > self._limit:
                raise too_large(f"more than {self._limit} bytes", self._limit)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def discard(self) -> bool:
        """Read and drop the rest of the body, within limits; return whether all of it has arrived.

        Closing a connection while its client sends resets it, and the client never reads the refusal.
        """
        if not self._incomplete:
            return True
        if b"expect" in self._headers and not self._received_bytes:
            return False  # the client waits for 100 Continue
        discarded_bytes = 0
        # cancelled at the drain timeout: the refusal is still sent
        with suppress(Disconnected, HttpError, TimeoutError, asyncio.CancelledError):
            if (_content_length(self._headers) or 0) <= MAX_DISCARDED:
                async with asyncio.timeout(DISCARD_SECONDS):
                    while self._incomplete and discarded_bytes <= MAX_DISCARDED:
                        discarded_bytes += len(await self._next())
        return not self._incomplete

    async def wait_for_disconnect(self) -> None:
        """Wait until the client disconnects, after the body has arrived."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        self._incomplete = message["more_body"]
        return bytes(message["body"])


def decompress(data: bytes, limit: int) -> bytes:
    """Return the decompressed data, or its first `limit` + 1 bytes.

    Raises:
        HttpError: 400, the data is not one complete gzip or zlib stream.
    """
    stream = zlib.decompressobj(AUTO_HEADER)
    try:
        content = stream.decompress(data, limit + 1)
    except zlib.error as error:
        reason = str(error).rpartition(": ")[2]  # after "Error -3 while decompressing data"
        raise HttpError(
            400, f"The body does not match its Content-Encoding, gzip or deflate: {reason}."
        ) from None
    if stream.unused_data or (not stream.eof and len(content) <= limit):
        fault = f"has {len(stream.unused_data)} bytes after its end" if stream.eof else "is truncated"
        raise HttpError(400, f"The compressed body {fault}; send one complete stream.")
    return content


def _content_length(headers: dict[bytes, bytes]) -> int | None:
    """Return Content-Length; None without one."""
    if (text := headers.get(b"content-length")) is None:
        return None
    if len(text) > MAX_DIGITS:
        raise HttpError(400, f"Content-Length has {len(text)} digits, and the maximum is {MAX_DIGITS}.")
    return int(text)  # the parser accepts only digits


def too_large(size: str, limit: int) -> HttpError:
    """Return the error of a body that is too large (413)."""
    return HttpError(413, f"The body has {size}, and the maximum is {limit}; send fewer examples.")


def _is_compressed(headers: dict[bytes, bytes]) -> bool:
    """Return whether the body is compressed; refuse other encodings and content types (415)."""
    content_type = headers.get(b"content-type", b"").lower()  # curl -d sends JSON as a form
    if content_type.startswith((b"multipart/", b"image/", b"audio/", b"video/")):
        raise HttpError(
            415,
            f"The Content-Type is {content_type.decode('latin-1')[:60]!r}, but application/json is expected; "
            'send an image as {"instances": [{"b64": "<the file in base64>"}]}.',
        )
    encoding = headers.get(b"content-encoding", b"identity").lower().strip()
    if encoding not in (b"identity", *ENCODINGS):
        raise HttpError(
            415,
            f"The Content-Encoding is {encoding.decode('latin-1')[:60]!r}; send the body uncompressed, or as "
            "gzip or deflate.",
        )
    return encoding != b"identity"
