"""Converts JSON and bytes into a validated batch.

simdjson copies a nested array of numbers into a flat buffer and drops its shape. The shape is checked in the
text instead: without the characters of numbers and spaces, `[[1,2],[3,4]]` is `[[,],[,]]`, and a batch of a
shape has exactly one such skeleton. This takes 7 us for a 32x32x3 image.
"""

import json
import math
import threading
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simdjson import Array, Object, Parser

from modelyard.components.artifacts import Tensor
from modelyard.components.serve.replies import HttpError, shorten

MAX_REUSED_PARSER_BYTES = 64 * 2**10
"""Maximum bytes of a text for the reused parser, which keeps 22 times as many, and for error positions."""
MAX_JSON_VALUES = 2_000_000
"""Maximum number of values in a text: parsing them blocks the process for 50 ms (measured)."""
MAX_KEYS = 50  # of an object, for messages
_NUMBER_CHARACTERS = b"0123456789+-.eE \t\r\n"


class _ThreadState(threading.local):
    def __init__(self) -> None:
        self.parser = Parser()


_thread_state = _ThreadState()


def parse(text: bytes) -> Any:
    """Return the JSON object in `text` as a simdjson proxy.

    Raises:
        HttpError: 400, the text is not a JSON object; 413, it has too many values.
    """
    if len(text) > MAX_JSON_VALUES and _count_values(text) > MAX_JSON_VALUES:
        raise HttpError(
            413,
            f"The body has more than {MAX_JSON_VALUES:,} values in JSON; send fewer examples, or a binary "
            "tensor (Open Inference).",
        )
    try:
        try:
            document = (
                _thread_state.parser.parse(text)
                if len(text) <= MAX_REUSED_PARSER_BYTES
                else Parser().parse(text)
            )
        except RuntimeError:  # the last document is still in use, or the text is not JSON
            document = Parser().parse(text)
    except (ValueError, RuntimeError) as error:
        raise HttpError(400, f"The body is not valid JSON: {_describe_json_error(text, error)}.") from None
    if not isinstance(document, Object):
        raise HttpError(400, f"The body is a JSON {describe_type(document)}, but an object is expected.")
    return document


def _count_values(text: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord(","))) + 1


def _describe_json_error(text: bytes, error: Exception) -> str:
    """Return the error of an invalid text, with its position from Python's parser."""
    if not text.strip():
        return "it is empty; send one JSON object"
    start = f"it starts with {shorten(text[:40].decode(errors='replace'))}"
    try:
        if len(text) <= MAX_REUSED_PARSER_BYTES:
            json.loads(text.decode(), parse_int=float, parse_constant=_refuse_constant)
    except UnicodeDecodeError as fault:
        return f"byte {fault.start} is not UTF-8; {start}"
    except json.JSONDecodeError as fault:
        return f"{fault.msg.removesuffix(' at')}, at line {fault.lineno}, column {fault.colno}; {start}"
    except ValueError as fault:
        return str(fault)
    except RecursionError:
        pass  # use simdjson's message
    return f"{str(error).partition(': ')[2].partition('.')[0]}; {start}"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON; send finite numbers")


def describe_keys(document: Any) -> str:
    """Return the keys of an object for a message."""
    if not len(document):
        return "no keys"
    return f"the key{'s' * (len(document) > 1)} {shorten(', '.join(islice(document, MAX_KEYS)))}"


def describe_names(*names: str) -> str:
    """Return the different names for a message."""
    return " or ".join(map(repr, dict.fromkeys(names)))


def parse_numbers(array: Any, dtype: str) -> NDArray[Any]:
    """Return the numbers of a simdjson array as a flat uint8 or float32 array.

    Raises:
        HttpError: 400, a value is not a number, or is out of the range of the dtype.
    """
    if dtype == "uint8":
        return _parse_uint8(array)
    with np.errstate(over="ignore"):
        values = _parse_doubles(array).astype(np.float32)
    check_finite(values)
    return values


def check_finite(values: NDArray[np.float32]) -> None:
    """Refuse values with NaN or an infinity (400)."""
    if not np.isfinite(values).all():
        index = int(np.flatnonzero(~np.isfinite(values.ravel()))[0])
        raise HttpError(
            400, f"Value {index} of the input is NaN or too large for float32; send finite numbers."
        )


def _parse_uint8(array: Any) -> NDArray[np.uint8]:
    try:
        integers = np.frombuffer(array.as_buffer(of_type="u"), np.uint64)
        if not integers.size or np.maximum.reduce(integers) <= 255:
            return integers.astype(np.uint8)
    except (TypeError, ValueError):
        pass  # negative, or a float such as 12.0
    values = _parse_doubles(array)
    valid = (values >= 0) & (values <= 255) & (values == np.floor(values))
    if not valid.all():
        index = int(np.flatnonzero(~valid)[0])
        raise HttpError(
            400,
            f"Value {index} of the input is {values[index]:g}, but this model expects uint8: integers 0 to "
            "255. Send values that are not normalized: the model normalizes them.",
        )
    return values.astype(np.uint8)


def _parse_doubles(array: Any) -> NDArray[np.float64]:
    try:
        return np.frombuffer(array.as_buffer(of_type="d"), np.float64)
    except (TypeError, ValueError):
        raise HttpError(
            400,
            "The input has a value that is not a number (a string, true, false, null or an object), but "
            "nested lists of numbers are expected.",
        ) from None


def parse_batch(array: Any, key: str, text: bytes, signature: Tensor, max_batch: int) -> NDArray[Any]:
    """Return a batch (n, *shape) from the simdjson array at `key` of the JSON object `text`.

    Raises:
        HttpError: 400, wrong shape or values; 413, more than `max_batch` examples.
    """
    count = count_examples(array, max_batch)
    flat = parse_numbers(array, signature.dtype)
    full = flat.size == count * math.prod(signature.shape)  # `[]` and `[1]` have the same skeleton
    if not full or not _has_skeleton(text, key, signature.shape, count):
        check_shape(array, (count, *signature.shape), flat.size)
    return flat.reshape(count, *signature.shape)


def count_examples(array: Any, max_batch: int) -> int:
    """Return the number of examples, which must be between 1 and `max_batch` (400, 413)."""
    if not isinstance(array, Array):
        raise HttpError(
            400, f"The input is a JSON {describe_type(array)}, but a list of examples is expected."
        )
    count = len(array)
    if not count:
        raise HttpError(400, "The input has no examples; send at least one.")
    if count > max_batch:
        refuse_batch_size(count, max_batch)
    return count


def refuse_batch_size(count: int, max_batch: int) -> None:
    """Refuse a batch of `count` examples (413)."""
    raise HttpError(413, f"The request has {count} examples, and the maximum is {max_batch}; split it.")


def check_shape(array: Any, shape: Sequence[int], size: int) -> None:
    """Refuse an array of `size` numbers with another shape, or with rows of different lengths (400)."""
    actual = _read_shape(array)
    ragged = math.prod(actual) != size
    if not ragged and len(actual) == len(shape) and size <= math.prod(shape):  # limits time and recursion
        ragged = not _is_full(array, actual)
    if ragged:
        raise HttpError(
            400,
            "The input has rows of different lengths or depths, but shape "
            f"{_format_shape(shape)} is expected.",
        )
    if actual != tuple(shape):
        raise HttpError(
            400, f"The input has shape {_format_shape(actual)}, but {_format_shape(shape)} is expected."
        )


def _is_full(value: Any, shape: Sequence[int]) -> bool:
    if not shape:
        return not isinstance(value, Array)
    return (
        isinstance(value, Array)
        and len(value) == shape[0]
        and all(_is_full(part, shape[1:]) for part in value)
    )


def _read_shape(value: Any) -> tuple[int, ...]:
    """Return the shape of an array from its first elements."""
    shape: list[int] = []
    while isinstance(value, Array):
        shape.append(len(value))
        value = value[0] if len(value) else None
    return tuple(shape)


def _format_shape(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)


def _has_skeleton(text: bytes, key: str, shape: tuple[int, ...], count: int) -> bool:
    """Return True if `text` starts with `key` and a full array (count, *shape), False if that is unknown."""
    example, head = _build_skeletons(shape, key)
    skeleton = text.translate(None, _NUMBER_CHARACTERS)
    return skeleton.startswith(head + b",".join([example] * count) + b"]")


@lru_cache(maxsize=16)
def _build_skeletons(shape: tuple[int, ...], key: str) -> tuple[bytes, bytes]:
    """Return the skeletons of one example and of the text before the first one."""
    example = b""
    for size in reversed(shape):
        example = b"[" + b",".join([example] * size) + b"]"
    return example, f'{{"{key}":['.encode().translate(None, _NUMBER_CHARACTERS)


def parse_binary(data: bytes, shape: Sequence[int], signature: Tensor) -> NDArray[Any]:
    """Return a batch of `shape` from little-endian bytes.

    Raises:
        HttpError: 400, the number of bytes is wrong, or a value is not finite.
    """
    dtype = np.dtype(signature.dtype).newbyteorder("<")
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise HttpError(
            400,
            f"The binary tensor has {len(data)} bytes, but {expected} are expected for shape "
            f"{_format_shape(shape)} of {signature.dtype}.",
        )
    values = np.frombuffer(data, dtype).reshape(shape)
    if signature.dtype == "float32":
        check_finite(values)
    return values


def describe_type(value: Any) -> str:
    """Return the JSON type of a value for a message."""
    if isinstance(value, Array):
        return "list"
    if isinstance(value, Object):
        return "object"
    return {str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")
