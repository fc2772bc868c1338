"""Replies and HTTP errors."""

import json
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

JSON = b"application/json"
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Reply(NamedTuple):
    """An HTTP response.

    `examples` is the number of predicted examples, `seconds` the duration of the execution, if there was one.
    """

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    examples: int = 0
    seconds: float | None = None


class HttpError(Exception):
    """An error response; the message has the value, what is expected, and what to do."""

    def __init__(self, status: int, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.reply = Reply(encode({"error": message}), status, headers=headers)


def shorten(value: object) -> str:
    """Return a value from a request as short quoted text for a message."""
    text = value if isinstance(value, str) else repr(value)
    return repr(text if len(text) <= 80 else text[:77] + "...")


def encode(value: Any) -> bytes:
    """Return `value` as compact JSON.

    Raises:
        ValueError: the value has NaN or an infinity.
    """
    return _encode(value).encode()


def encode_predictions(predictions: NDArray[np.float32]) -> str:
    """Return (n, m) numbers as JSON, with the nine digits that a float32 needs.

    Raises:
        HttpError: 500, a number is NaN or infinite, which JSON cannot represent.
    """
    number_format = _number_format(predictions.shape[1])
    text = f"[{','.join([number_format % tuple(values) for values in predictions.tolist()])}]"
    if "n" in text:  # nan, inf
        raise not_finite_error()
    return text


def not_finite_error() -> HttpError:
    """Return the error of a prediction with NaN or an infinity (500)."""
    return HttpError(
        500,
        "The prediction has a value that is NaN or infinite. Correct the input if it is far outside the "
        "training data; otherwise promote another version.",
    )


@lru_cache(maxsize=16)
def _number_format(size: int) -> str:
    return f"[{','.join(['%.9g'] * size)}]"
