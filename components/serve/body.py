"""A request's body: of a kind and a size that are taken."""

from collections.abc import Awaitable, Callable
from typing import Any

from modelyard.components.serve.replies import Refused

Receive = Callable[[], Awaitable[dict[str, Any]]]


class Disconnected(Exception):  # noqa: N818 - not an error: nobody is left to answer
    """The client went away before its request was whole, or was too slow (408)."""


async def read(headers: dict[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """Return a request's body, of `limit` bytes at most; its time is limited in `connection`.

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
