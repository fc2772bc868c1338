"""What goes back to a client: a reply, or a refusal with its reason."""

import json
from typing import Any, NamedTuple

JSON = b"application/json"


class Reply(NamedTuple):
    """A whole HTTP response; `rows` is the number of examples that were predicted for it."""

    body: bytes
    status: int = 200
    kind: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    rows: int = 0


class Refused(Exception):  # noqa: N818 - not an error of ours: the request's
    """A request that is answered with an error; the message says what came, what was expected, what to do."""

    def __init__(self, status: int, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.reply = Reply(encode({"error": message}), status, headers=headers)


def encode(value: Any) -> bytes:
    """Return `value` as compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()
