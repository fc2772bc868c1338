"""CIFAR-10 as published by its authors, in binary or Python form, as an archive or a folder.

https://www.cs.toronto.edu/~kriz/cifar.html: `cifar-10-binary.tar.gz` has rows of a label and 3,072 pixel
values; `cifar-10-python.tar.gz` has the same as pickles. Unpickling can call any function, so only the
globals of the official files are accepted, and even these are recorded instead of called.
"""

import io
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from modelyard.components.artifacts import ImageFormat
from modelyard.components.errors import DataError, describe
from modelyard.components.ingest.examples import BATCH_BYTES, Batch, Examples
from modelyard.components.ingest.members import Member, iterate_members
from modelyard.components.source.settings import Source

SIDE = 32
PIXEL_VALUES = 3 * SIDE * SIDE
CLASSES = 10
TRAIN = [f"data_batch_{number}" for number in range(1, 6)]
TEST = "test_batch"
BINARY = [*(f"{name}.bin" for name in (*TRAIN, TEST)), "batches.meta.txt"]
PYTHON = [*TRAIN, TEST, "batches.meta"]
IMAGE_FORMAT = ImageFormat(height=SIDE, width=SIDE, channels=3, resize="stretch")
PICKLE_ERRORS = (
    *(pickle.UnpicklingError, struct.error, EOFError),
    *(LookupError, ValueError, TypeError, AttributeError),
)
# The globals in pickles of NumPy arrays; NumPy 2 moved _reconstruct.
ALLOWED_GLOBALS = {
    *(("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")),
    *(("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")),
}
ALLOWED_OPCODES = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1),
    *(pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINUNICODE, pickle.SHORT_BINUNICODE),
    *(pickle.MARK, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD),
)

LabeledPixels = Iterator[tuple[NDArray[np.uint8], NDArray[np.integer[Any]]]]


def read(path: Path, source: Source) -> Examples:
    """Read the images: uint8 (32, 32, 3), in the official splits train and test.

    Raises:
        DataError: a file of the official archive is missing or damaged, or has an invalid label.
    """
    return Examples(
        shape=(SIDE, SIDE, 3),
        dtype="uint8",
        names=_read_class_names(path, source.max_bytes),
        splits=("train", "test"),
        batches=_read_batches(path, source.max_bytes),
        image=IMAGE_FORMAT,
    )


def _read_class_names(path: Path, max_bytes: int) -> tuple[str, ...]:
    """Check that each file exists exactly once, and return the names of the classes."""
    files: dict[str, Member] = {}
    names: tuple[str, ...] = ()
    for member in iterate_members(path, max_bytes):
        name = _get_base_name(member)
        if not member.is_folder and name in (*BINARY, *PYTHON):
            if name in files:
                raise member.error(f"and {files[name].name!r} are the same file. Remove one of them.")
            files[name] = member
            if name.startswith("batches.meta"):
                names = _parse_class_names(member)
    expected = PYTHON if files.keys() & set(PYTHON) else BINARY
    if missing := [name for name in expected if name not in files]:
        raise DataError(
            f"{path} has no {missing[0]}, so it is not the official CIFAR-10. Use the complete archive "
            "(cifar-10-binary.tar.gz or cifar-10-python.tar.gz) or its unpacked folder."
        )
    if extra := files.keys() - set(expected):
        raise files[min(extra)].error("belongs to the other form of CIFAR-10. Remove the files of one form.")
    return names


def _parse_class_names(meta: Member) -> tuple[str, ...]:
    if meta.name.endswith(".txt"):
        names = meta.content().decode("latin-1").split()
    else:
        (names,) = unpickle(meta, "label_names")
    valid = isinstance(names, list) and all(isinstance(name, str) and name.isprintable() for name in names)
    if not valid or not len(names) == len(set(names)) == CLASSES:
        raise meta.error(f"does not name {CLASSES} classes. Download it again.")
    return tuple(names)


def _read_batches(path: Path, max_bytes: int) -> Iterator[Batch]:
    for member in iterate_members(path, max_bytes):
        name = _get_base_name(member)
        if name.removesuffix(".bin") not in (*TRAIN, TEST) or member.is_folder:
            continue
        start = 0
        for pixels, labels in _read_binary(member) if name.endswith(".bin") else _read_pickle(member):
            invalid = np.flatnonzero((labels < 0) | (labels >= CLASSES))
            if len(invalid):
                raise member.error(
                    f"has the label {labels[invalid[0]]} in row {start + invalid[0]}, but labels are 0 to "
                    f"{CLASSES - 1}. Download it again."
                )
            split = "test" if name.startswith(TEST) else "train"
            images = np.empty((len(pixels), SIDE * SIDE, 3), np.uint8)
            for channel in range(3):  # several times faster than a transposed copy
                images[..., channel] = pixels[:, channel * SIDE * SIDE : (channel + 1) * SIDE * SIDE]
            yield Batch(split, images.reshape(-1, SIDE, SIDE, 3), labels)
            start += len(labels)
        if not start:
            raise member.error("is empty. Download it again.")


def _read_binary(member: Member) -> LabeledPixels:
    """Yield pixels (n, 3072), one channel after the other, and labels (n,)."""
    row_bytes = 1 + PIXEL_VALUES
    with member.open() as file:
        while data := file.read(row_bytes * (BATCH_BYTES // row_bytes)):
            if len(data) % row_bytes:
                raise member.error(f"ends within a row of {row_bytes} bytes. Download it again.")
            table = np.frombuffer(data, np.uint8).reshape(-1, row_bytes)
            yield table[:, 1:], table[:, 0]


def _read_pickle(member: Member) -> LabeledPixels:
    """Yield pixels (n, 3072), one channel after the other, and labels (n,)."""
    data, label_values = unpickle(member, "data", "labels")
    pixels = to_byte_array(member, data)
    try:
        labels = np.array(label_values, np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise member.error(f"has labels that are not integers ({error}). Download it again.") from error
    if pixels.shape[1:] != (PIXEL_VALUES,) or labels.shape != pixels.shape[:1]:
        raise member.error(
            f"has pixels {pixels.shape} and labels {labels.shape}, but (n, {PIXEL_VALUES}) and (n,) are "
            "expected. Download it again."
        )
    yield pixels, labels


class _RecordedCall:
    """Records a call in a pickle instead of calling: its arguments and the state of its result."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments, self.state = arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _StringKeyDict(dict[str, Any]):
    """A dictionary that accepts only string keys: hashing deeply nested tuples could take forever."""

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"a key is {type(key).__name__}")
        super().__setitem__(key, value)


class _Unpickler(pickle._Unpickler):
    """Reads only the opcodes and globals of the official files; bytes are decoded as Latin-1.

    pickle's Unpickler in C would allocate gigabytes for a forged BINPUT.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin-1")

    def find_class(self, module: str, name: str) -> Any:
        """Return the recorder of calls for a global of the official files."""
        if (module, name) not in ALLOWED_GLOBALS:
            raise DataError(
                f"uses '{module}.{name}', which the official files never do. No code was run. "
                "Download the official file, or the binary form, cifar-10-binary.tar.gz."
            )
        return _RecordedCall

    def load_empty_dictionary(self) -> None:
        """Push an empty dictionary."""
        self.append(_StringKeyDict())  # type: ignore[attr-defined]

    dispatch: ClassVar[dict[int, Any]] = {
        **{code[0]: pickle._Unpickler.dispatch[code[0]] for code in ALLOWED_OPCODES},
        pickle.EMPTY_DICT[0]: load_empty_dictionary,
    }


def unpickle(member: Member, *keys: str) -> list[Any]:
    """Return the values of these keys from the dictionary in a pickle; its code is not executed.

    Raises:
        DataError: the pickle is damaged, lacks a key, or is not like those of the official files.
    """
    try:
        value = _Unpickler(member.content()).load()
    except DataError as error:
        raise member.error(str(error)) from error
    except PICKLE_ERRORS as error:
        raise member.error(
            "is a damaged pickle, or has instructions that the official files never have "
            f"({describe(error).rstrip('.')}). No code was run. Download it again."
        ) from error
    if missing := [key for key in keys if not isinstance(value, dict) or key not in value]:
        raise member.error(f"is a pickle without {', '.join(missing)}. Download it again.")
    return [value[key] for key in keys]


def to_byte_array(member: Member, value: Any) -> NDArray[np.uint8]:
    """Return the array of a value that `unpickle` returned.

    Raises:
        DataError: the value is not an array, or the array is not uint8 in C order.
    """
    try:
        _, shape, dtype, fortran, content = value.state
        if isinstance(content, _RecordedCall):  # bytes as Python 3 pickles them with protocol 2
            content = content.arguments[0]
        if dtype.arguments[0] in ("u1", "|u1") and not fortran:
            return np.frombuffer(content.encode("latin-1"), np.uint8).reshape(shape)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise member.error(f"has a damaged array ({error}). Download it again.") from error
    raise member.error("has an array that is not uint8 in C order. Download the official file.")


def _get_base_name(member: Member) -> str:
    return member.name.rpartition("/")[2]
