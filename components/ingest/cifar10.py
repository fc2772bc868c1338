"""CIFAR-10 as its authors publish it, in binary or in Python form, packed or unpacked.

https://www.cs.toronto.edu/~kriz/cifar.html: `cifar-10-binary.tar.gz` has rows of a label and 3,072 pixels;
`cifar-10-python.tar.gz` has the same as pickles. A pickle is a program that may call anything: here it can
only name what the official files name, and even that is not called.
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
from modelyard.components.ingest.members import Member, members
from modelyard.components.source.settings import Source

SIDE = 32
PIXELS = 3 * SIDE * SIDE
CLASSES = 10
TRAIN = [f"data_batch_{number}" for number in range(1, 6)]
TEST = "test_batch"
BINARY = [*(f"{name}.bin" for name in (*TRAIN, TEST)), "batches.meta.txt"]
PYTHON = [*TRAIN, TEST, "batches.meta"]
FORM = ImageFormat(height=SIDE, width=SIDE, channels=3, resize="stretch")
DAMAGED_PICKLE = (
    *(pickle.UnpicklingError, struct.error, EOFError),
    *(LookupError, ValueError, TypeError, AttributeError),
)
# What NumPy's pickles and the bytes in them name; _reconstruct moved with NumPy 2.
NAMED = {
    *(("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")),
    *(("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")),
}
OPCODES = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1),
    *(pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINUNICODE, pickle.SHORT_BINUNICODE),
    *(pickle.MARK, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD),
)

Rows = Iterator[tuple[NDArray[np.uint8], NDArray[np.integer[Any]]]]


def read(path: Path, source: Source) -> Examples:
    """Return the pictures: uint8 (32, 32, 3), the official splits train and test.

    Args:
        path: archive or directory.
        source: its `max_bytes`.

    Raises:
        DataError: a file of the official archive is missing or damaged, or has a label that is no class; see
            also `members.members`.
    """
    return Examples(
        shape=(SIDE, SIDE, 3),
        dtype="uint8",
        names=_classes(path, source.max_bytes),
        splits=("train", "test"),
        batches=_batches(path, source.max_bytes),
        image=FORM,
    )


def _classes(path: Path, max_bytes: int) -> tuple[str, ...]:
    """Check that every file is there once, and return the names of the classes."""
    files: dict[str, Member] = {}
    names: tuple[str, ...] = ()
    for member in members(path, max_bytes):
        name = _file_name(member)
        if not member.folder and name in (*BINARY, *PYTHON):
            if name in files:
                raise member.error(f"and {files[name].name!r} are the same file. Keep one of them.")
            files[name] = member
            if name.startswith("batches.meta"):
                names = _names(member)
    expected = PYTHON if files.keys() & set(PYTHON) else BINARY
    if missing := [name for name in expected if name not in files]:
        raise DataError(
            f"{path} has no {missing[0]}, so it is not CIFAR-10 as published. Give the whole archive "
            "(cifar-10-binary.tar.gz or cifar-10-python.tar.gz), or the folder that it unpacks to."
        )
    if extra := files.keys() - set(expected):
        raise files[min(extra)].error("belongs to the other form of CIFAR-10. Keep one form.")
    return names


def _names(meta: Member) -> tuple[str, ...]:
    if meta.name.endswith(".txt"):
        names = meta.content().decode("latin-1").split()
    else:
        (names,) = unpickle(meta, "label_names")
    texts = isinstance(names, list) and all(isinstance(name, str) and name.isprintable() for name in names)
    if not texts or not len(names) == len(set(names)) == CLASSES:
        raise meta.error(f"does not name {CLASSES} classes. Get it again.")
    return tuple(names)


def _batches(path: Path, max_bytes: int) -> Iterator[Batch]:
    for member in members(path, max_bytes):
        name = _file_name(member)
        if name.removesuffix(".bin") not in (*TRAIN, TEST) or member.folder:
            continue
        start = 0
        for pixels, labels in _binary(member) if name.endswith(".bin") else _python(member):
            wrong = np.flatnonzero((labels < 0) | (labels >= CLASSES))
            if len(wrong):
                raise member.error(
                    f"has the label {labels[wrong[0]]} in row {start + wrong[0]}, and labels are 0 to "
                    f"{CLASSES - 1}. Get it again."
                )
            pictures = np.empty((len(pixels), SIDE * SIDE, 3), np.uint8)
            for channel in range(3):  # a copy of the transposed pixels takes several times as long
                pictures[..., channel] = pixels[:, channel * SIDE * SIDE : (channel + 1) * SIDE * SIDE]
            split = "test" if name.startswith(TEST) else "train"
            yield Batch(split, pictures.reshape(-1, SIDE, SIDE, 3), labels)
            start += len(labels)
        if not start:
            raise member.error("is empty. Get it again.")


def _binary(member: Member) -> Rows:
    """Yield pixels (n, 3072), channel by channel, and labels (n,)."""
    row = 1 + PIXELS
    with member.open() as file:
        while data := file.read(row * (BATCH_BYTES // row)):
            if len(data) % row:
                raise member.error(f"ends within a row of {row} bytes. Get it again.")
            table = np.frombuffer(data, np.uint8).reshape(-1, row)
            yield table[:, 1:], table[:, 0]


def _python(member: Member) -> Rows:
    """Yield pixels (n, 3072), channel by channel, and labels (n,)."""
    data, given = unpickle(member, "data", "labels")
    pixels = to_byte_array(member, data)
    try:
        labels = np.array(given, np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise member.error(f"has labels that are no integers ({error}). Get it again.") from error
    if pixels.shape[1:] != (PIXELS,) or labels.shape != pixels.shape[:1]:
        raise member.error(
            f"has pixels {pixels.shape} and labels {labels.shape}, and (n, {PIXELS}) and (n,) are expected. "
            "Get it again."
        )
    yield pixels, labels


class _NotCalled:
    """Stands for the result of a call that a pickle asks for: its arguments, and the state it would get."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments, self.state = arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _TextKeys(dict[str, Any]):
    """A dictionary with texts for keys: to hash nested tuples could take for ever."""

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"a key is {type(key).__name__}")
        super().__setitem__(key, value)


class _Unpickler(pickle._Unpickler):
    """Reads what the official files consist of; their bytes become texts in Latin-1.

    The Unpickler in C would reserve gigabytes for a forged BINPUT.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin-1")

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for any call, when the official files have such a call."""
        if (module, name) not in NAMED:
            raise DataError(
                f"wants to use '{module}.{name}', which the official files never do. Nothing of it was run. "
                "Get the official file, or the binary form, cifar-10-binary.tar.gz."
            )
        return _NotCalled

    def load_empty_dictionary(self) -> None:
        """Push a dictionary."""
        self.append(_TextKeys())  # type: ignore[attr-defined]

    dispatch: ClassVar[dict[int, Any]] = {
        **{code[0]: pickle._Unpickler.dispatch[code[0]] for code in OPCODES},
        pickle.EMPTY_DICT[0]: load_empty_dictionary,
    }


def unpickle(member: Member, *keys: str) -> list[Any]:
    """Return values of the dictionary in a pickle.

    Raises:
        DataError: it is damaged, lacks a key, or does what the official files do not.
    """
    try:
        value = _Unpickler(member.content()).load()
    except DataError as error:
        raise member.error(str(error)) from error
    except DAMAGED_PICKLE as error:
        raise member.error(
            "is a damaged pickle, or has instructions that the official files never have "
            f"({describe(error)}) Nothing of it was run. Get it again."
        ) from error
    if missing := [key for key in keys if not isinstance(value, dict) or key not in value]:
        raise member.error(f"is a pickle without {', '.join(missing)}. Get it again.")
    return [value[key] for key in keys]


def to_byte_array(member: Member, value: Any) -> NDArray[np.uint8]:
    """Return the array that was to be made, which must have bytes in the order of C.

    Raises:
        DataError: it is another array, or none.
    """
    try:
        _, shape, dtype, fortran, content = value.state
        if isinstance(content, _NotCalled):  # how Python 3 writes bytes for Python 2
            content = content.arguments[0]
        if dtype.arguments[0] in ("u1", "|u1") and not fortran:
            return np.frombuffer(content.encode("latin-1"), np.uint8).reshape(shape)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise member.error(f"has a damaged array ({error}). Get it again.") from error
    raise member.error("has another array than one of bytes in the order of C. Get the official file.")


def _file_name(member: Member) -> str:
    return member.name.rpartition("/")[2]
