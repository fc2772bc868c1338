"""Arrays in an .npz, as `numpy.savez` writes them: x and y, or x_train, y_train, x_test and y_test.

x has a row per example, y its target: a label for classification, a number for regression. Rows are read
from the archive in batches, so that an array larger than memory is no difficulty, and one that only claims to
be is no danger. A picture without a channel axis stays so: the built-in network adds it.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from modelyard.components.errors import DataError
from modelyard.components.ingest.examples import BATCH_BYTES, Batch, Examples
from modelyard.components.ingest.members import DAMAGE, MAX_FILE_BYTES, Member, zip_members
from modelyard.components.source.settings import Source

SPLITS = (
    {"all": ("x", "y")},
    {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")},
)
INTEGERS, FLOATS = "bui", "f"
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}  # 3.0 is for fields with names


class ArrayFile:
    """An array, known by its header.

    Args:
        member: the .npy file.

    Raises:
        DataError: it is not such a file, its rows are scattered, or its length does not match its header.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self.name = member.name.removesuffix(".npy")
        with member.open() as file:
            self.shape, self.dtype = self._header(file)
            size = file.tell() + math.prod(self.shape) * self.dtype.itemsize
        if size != member.size or min(self.shape, default=0) < 0:
            raise self.refused(f"has {member.size:,} bytes and {size:,} are expected for {self.form}.")

    @property
    def form(self) -> str:
        """Its dtype and shape, to be shown."""
        return f"{self.dtype} of shape {self.shape}"

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def batches(self, rows: int) -> Iterator[NDArray[Any]]:
        """Yield `rows` rows at a time, less in the end.

        Raises:
            DataError: the file is damaged.
        """
        with self._member.open() as file:
            self._header(file)
            for start in range(0, self.shape[0], rows):
                count = min(rows, self.shape[0] - start)
                data = file.read(count * self.row_bytes)
                yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])

    def refused(self, why: str) -> DataError:
        """Return the error that says why it cannot be used, and what to do."""
        return self._member.refused(why)

    def _header(self, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
        try:
            shape, fortran, dtype = HEADERS[np.lib.format.read_magic(file)](file)
        except (ValueError, KeyError, TypeError, SyntaxError, TokenError) as error:
            raise self.refused(f"is no .npy file of numbers ({error}). Save it with numpy.savez.") from error
        if dtype.hasobject:
            raise self.refused("holds Python objects, and loading them can run code. Save numbers.")
        if fortran:
            raise self.refused("is in the order of Fortran. Save numpy.ascontiguousarray of it.")
        return shape, dtype


Pairs = Mapping[str, tuple[ArrayFile, ArrayFile]]
"""Split name to x and y."""


def read(path: Path, source: Source) -> Examples:
    """Return the examples: integers from 0 to 255 as uint8, floating point as float32.

    Args:
        path: the .npz.
        source: its `classes` and `max_bytes`.

    Raises:
        DataError: the arrays have other names, shapes, types or values; or the file is damaged, or larger
            than `max_bytes` when it is unpacked.
    """
    with _opened(path, source.max_bytes) as pairs:
        number = source.problem == "regression"
        for x, y in pairs.values():
            _check(x)
            _check_targets(x, y, number)
        (x, _), *others = pairs.values()
        if different := next((other for other, _ in others if _form(other) != _form(x)), None):
            raise different.refused(
                f"is {different.form}, and {x.name} is {x.form}. Give both examples of one form."
            )
        if number:
            names: tuple[str, ...] = ("y",)
        else:
            labels = _check_labels(pairs, len(source.classes) if source.classes else None)
            names = source.classes or tuple(map(str, range(labels)))
        return Examples(
            shape=x.shape[1:],
            dtype="uint8" if x.dtype.kind in INTEGERS else "float32",
            names=names,
            splits=tuple(pairs),
            batches=_batches(path, source.max_bytes, number),
        )


@contextmanager
def _opened(path: Path, max_bytes: int) -> Iterator[Pairs]:
    """Give the arrays of an .npz, which can be read within the block."""
    try:
        archive = ZipFile(path)
    except DAMAGE as error:
        raise DataError(f"{path} is no .npz ({error}). Write it with numpy.savez.") from error
    with archive:
        files = [member for member in zip_members(archive, path, max_bytes) if not member.folder]
        found = {array.name: array for array in map(ArrayFile, files)}
        for splits in SPLITS:
            if found.keys() == {name for pair in splits.values() for name in pair}:
                yield {split: (found[x], found[y]) for split, (x, y) in splits.items()}
                return
    raise DataError(
        f"{path} has the arrays {', '.join(sorted(found)) or '(none)'}. Name them x and y, or x_train, "
        "y_train, x_test and y_test."
    )


def _form(array: ArrayFile) -> tuple[tuple[int, ...], bool]:
    return array.shape[1:], array.dtype.kind in INTEGERS


def _check(x: ArrayFile) -> None:
    """Refuse an array that cannot be examples, by its header."""
    if x.dtype.kind not in INTEGERS + FLOATS:
        raise x.refused(f"is {x.form}, and numbers are expected. Nothing else is ever loaded.")
    if len(x.shape) < 2 or 0 in x.shape:
        raise x.refused(f"is {x.form}, and (rows, …) is expected: a row per example, with values in it.")
    if x.row_bytes > MAX_FILE_BYTES:
        raise x.refused(
            f"is {x.form}: an example has {x.row_bytes:,} bytes, and at most {MAX_FILE_BYTES:,} are read."
        )


def _check_targets(x: ArrayFile, y: ArrayFile, number: bool) -> None:
    """Refuse an array that cannot be targets, by its header; `number` says that it is a regression."""
    kinds, what = (INTEGERS + FLOATS, "a number") if number else (INTEGERS, "an integer")
    if y.dtype.kind not in kinds or y.shape not in (x.shape[:1], (x.shape[0], 1)):
        several = number and len(y.shape) == 2 and y.shape[0] == x.shape[0]
        why = " A regression has one target; train a model for each." if several else ""
        if not number and y.dtype.kind in FLOATS:
            why = " Set problem: regression if it is to be predicted as a number."
        raise y.refused(f"is {y.form}, and {what} per row of {x.name}, ({x.shape[0]},), is expected.{why}")


def _check_labels(pairs: Pairs, classes: int | None) -> int:
    """Return the number of classes; as many as the largest label says, when they have no names."""
    rows = sum(y.shape[0] for _, y in pairs.values())
    limit, why = (
        (rows, f"there can be no more classes than the {rows} rows")
        if classes is None
        else (classes, f"data.classes names {classes}")
    )
    largest = 0
    for _, y in pairs.values():
        start = 0
        for labels in y.batches(BATCH_BYTES):
            wrong = np.flatnonzero((labels < 0) | (labels >= limit))
            if len(wrong):
                raise y.refused(
                    f"has the label {labels.flat[wrong[0]]} in row {start + wrong[0]}, and {why}: labels are "
                    "0, 1, 2, … without gaps. Correct it."
                )
            largest = max(largest, int(labels.max()))
            start += len(labels)
    return largest + 1


def _batches(path: Path, max_bytes: int, number: bool) -> Iterator[Batch]:
    with _opened(path, max_bytes) as pairs:
        for split, (x, y) in pairs.items():
            rows = max(1, BATCH_BYTES // x.row_bytes)
            start = 0
            for examples, targets in zip(x.batches(rows), y.batches(rows), strict=True):
                flat = targets.reshape(-1)
                yield split, _converted(x, start, examples), _floats(y, start, flat) if number else flat
                start += len(targets)


def _converted(x: ArrayFile, start: int, examples: NDArray[Any]) -> NDArray[Any]:
    """Return rows as uint8 or float32; `start` is the first one's number."""
    if examples.dtype.kind in INTEGERS:
        wrong, remedy = (
            (examples < 0) | (examples > 255),
            "integers are pixels, 0 to 255. Save others as float32",
        )
        converted = examples.astype(np.uint8)
        _refuse(x, start, examples, wrong, remedy)
        return converted
    return _floats(x, start, examples)


def _floats(array: ArrayFile, start: int, rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return rows as float32, which has to hold them; `start` is the first one's number."""
    with np.errstate(over="ignore"):
        converted = rows.astype(np.float32)
    remedy = "finite float32 numbers are expected. Replace it, or remove the row"
    _refuse(array, start, rows, ~np.isfinite(converted), remedy)
    return converted


def _refuse(array: ArrayFile, start: int, rows: NDArray[Any], wrong: NDArray[np.bool_], remedy: str) -> None:
    """Refuse the first of the values that are wrong."""
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0])
        raise array.refused(f"has the value {rows[place]} in row {start + place[0]}: {remedy}.")
