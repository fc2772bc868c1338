"""Arrays in an .npz, as `numpy.savez` writes them: x and y, or x_train, y_train, x_test and y_test.

x has a row per example, y its target: for classification a label (integers from 0 or from 1, texts, or
one-hot rows), for regression a number. Rows are read
from the archive in batches, so that an array larger than memory is no difficulty, and one that only claims to
be is no danger. A picture without a channel axis stays so: the built-in network adds it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from modelyard.components.artifacts import Dtype
from modelyard.components.errors import DataError
from modelyard.components.ingest.examples import (
    BATCH_BYTES,
    MAX_CLASSES,
    Batch,
    Examples,
    normalize_label,
    sort_classes,
)
from modelyard.components.ingest.members import DAMAGE, MAX_FILE_BYTES, Member, zip_members
from modelyard.components.source.settings import Source

SPLITS = (
    {"all": ("x", "y")},
    {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")},
)
INTEGERS, FLOATS, TEXTS = "bui", "f", "US"
WIDE = ("int16", "uint16")
LABELS = "labels are integers (0, 1, 2, … or 1, 2, 3, … without gaps), texts, or one-hot rows"
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
            raise self.error(f"has {member.size:,} bytes and {size:,} are expected for {self.form}.")

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

    def error(self, why: str) -> DataError:
        """Return the error that says why it cannot be used, and what to do."""
        return self._member.error(why)

    def _header(self, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
        try:
            shape, fortran, dtype = HEADERS[np.lib.format.read_magic(file)](file)
        except (ValueError, KeyError, TypeError, SyntaxError, TokenError) as error:
            raise self.error(f"is no .npy file of numbers ({error}). Save it with numpy.savez.") from error
        if dtype.hasobject:
            raise self.error(
                "holds Python objects, and loading them can run code. Save numbers, or texts by astype(str)."
            )
        if fortran:
            raise self.error("is in the order of Fortran. Save numpy.ascontiguousarray of it.")
        return shape, dtype


Pairs = Mapping[str, tuple[ArrayFile, ArrayFile]]
"""Split name to x and y."""


def read(path: Path, source: Source) -> Examples:
    """Return the examples: integers from 0 to 255 as uint8, floating point and 16-bit integers as float32.

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
            raise different.error(
                f"is {different.form}, and {x.name} is {x.form}. Give both examples of one form."
            )
        dtype, notes = _dtype(pairs)
        labels = None if number else _labels(pairs, source.classes)
        return Examples(
            shape=x.shape[1:],
            dtype=dtype,
            names=labels.names if labels else ("y",),
            splits=tuple(pairs),
            batches=_batches(path, source.max_bytes, dtype, labels),
            notes=[*notes, *(labels.notes if labels else ())],
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
        raise x.error(f"is {x.form}, and numbers are expected. Nothing else is ever loaded.")
    if len(x.shape) < 2 or 0 in x.shape:
        raise x.error(f"is {x.form}, and (rows, …) is expected: a row per example, with values in it.")
    if x.row_bytes > MAX_FILE_BYTES:
        raise x.error(
            f"is {x.form}: an example has {x.row_bytes:,} bytes, and at most {MAX_FILE_BYTES:,} are read."
        )


def _check_targets(x: ArrayFile, y: ArrayFile, number: bool) -> None:
    """Refuse an array that cannot be targets, by its header; `number` says that it is a regression."""
    rows, flat = x.shape[0], y.shape in (x.shape[:1], (x.shape[0], 1))
    one_hot = len(y.shape) == 2 and y.shape[0] == rows and y.shape[1] > 1
    if number:
        if y.dtype.kind not in INTEGERS + FLOATS or not flat:
            why = " A regression has one target; train a model for each." if one_hot else ""
            raise y.error(f"is {y.form}, and a number per row of {x.name}, ({rows},), is expected.{why}")
    elif not ((flat and y.dtype.kind in INTEGERS + TEXTS) or (one_hot and y.dtype.kind in INTEGERS + FLOATS)):
        why = (
            " Set problem: regression if it is to be predicted as a number." if y.dtype.kind in FLOATS else ""
        )
        raise y.error(
            f"is {y.form}, and an integer per row of {x.name}, ({rows},), is expected: {LABELS}.{why}"
        )


@dataclass(frozen=True)
class Labels:
    """The classes, and how targets (n,) or (n, classes) become int64 labels (n,)."""

    names: tuple[str, ...]
    convert: Callable[[NDArray[Any]], NDArray[np.int64]]
    notes: tuple[str, ...] = ()


def _labels(pairs: Pairs, classes: tuple[str, ...] | None) -> Labels:
    """Return what the targets mean; `classes` are the names of the classes in label order, if there are any.

    Raises:
        DataError: that is not certain, or a row has no label.
    """
    arrays = [y for _, y in pairs.values()]
    kinds = {(y.dtype.kind in TEXTS, len(y.shape) == 2 and y.shape[1]) for y in arrays}
    if len({(text, columns or 1) for text, columns in kinds}) > 1:
        forms = " and ".join(f"{y.name} is {y.form}" for y in arrays)
        raise arrays[1].error(f"has other labels than the other array: {forms}. Give both alike.")
    (text, columns), *_ = kinds
    if text:
        return _texts(arrays, classes)
    return _one_hot(arrays, classes) if columns > 1 else _integers(arrays, classes)


def _texts(arrays: list[ArrayFile], classes: tuple[str, ...] | None) -> Labels:
    labels: dict[Any, str] = {}
    for y, start, values in _values(arrays):
        for value in set(values.tolist()) - labels.keys():
            try:
                label = normalize_label(value.decode() if isinstance(value, bytes) else value)
            except UnicodeDecodeError:
                label = None
            row = start + int((values == value).argmax())
            if not label:
                raise y.error(f"has the label {value!a} in row {row}, which is no text. Correct it.")
            if classes and label not in classes:
                raise y.error(f"has the label {label!r} in row {row}, and data.classes has not. Correct it.")
            labels[value] = label
            if len(labels) > MAX_CLASSES:
                raise y.error(f"has more than {MAX_CLASSES:,} different texts. Labels name classes.")
    names = classes or sort_classes(labels.values())
    position = {name: number for number, name in enumerate(names)}
    numbers = {value: position[label] for value, label in labels.items()}
    return Labels(
        names,
        lambda values: np.array([numbers[value] for value in values.reshape(-1).tolist()], np.int64),
        ("The labels are texts: each is a class.",),
    )


def _one_hot(arrays: list[ArrayFile], classes: tuple[str, ...] | None) -> Labels:
    columns = arrays[0].shape[1]
    for y in arrays:
        start = 0
        for rows in y.batches(max(1, BATCH_BYTES // y.row_bytes)):
            good = ((rows == 0) | (rows == 1)).all(axis=1) & ((rows == 1).sum(axis=1) == 1)
            if not good.all():
                row = int(np.flatnonzero(~good)[0])
                raise y.error(
                    f"is {y.form}, and row {start + row} is not one-hot, a single 1 and else 0: {LABELS}. "
                    "Correct it."
                )
            start += len(rows)
    if classes and len(classes) != columns:
        raise arrays[0].error(f"has {columns} columns, and data.classes names {len(classes)}. Correct one.")
    return Labels(
        classes or tuple(map(str, range(columns))),
        lambda rows: np.asarray(rows.argmax(axis=1), np.int64),
        ("The labels are one-hot: the column with the 1 is the class.",),
    )


def _integers(arrays: list[ArrayFile], classes: tuple[str, ...] | None) -> Labels:
    rows = sum(y.shape[0] for y in arrays)
    limit, why = (
        (len(classes), f"data.classes names {len(classes)}")
        if classes
        else (rows, f"there can be no more classes than the {rows} rows")
    )
    found: set[int] = set()
    for y, start, values in _values(arrays):
        if len(wrong := np.flatnonzero((values < -1) | (values > limit))):
            raise _wrong_label(y, start + int(wrong[0]), values[wrong[0]], why)
        found.update(np.unique(values).tolist())
    first, last = min(found), max(found)
    if found == {-1, 1} and (classes is None or len(classes) == 2):
        return Labels(
            classes or ("-1", "1"),
            lambda values: (values.reshape(-1) > 0).astype(np.int64),
            ("The labels are -1 and 1: -1 is the first class.",),
        )
    shift = int(first == 1 and (last == limit if classes else found == set(range(1, last + 1))))
    if first < 0 or last - shift >= limit or (first > 0 and not shift and not classes):
        for y, start, values in _values(arrays):
            if len(wrong := np.flatnonzero((values < 0) | (values >= limit))):
                raise _wrong_label(y, start + int(wrong[0]), values[wrong[0]], why)
        raise arrays[0].error(f"has labels that begin with {first}, with gaps: {LABELS}. Correct it.")
    note = f"The labels are 1 to {last}: label 1 is the first class."
    return Labels(
        classes or tuple(map(str, range(shift, last + 1))),
        lambda values: values.reshape(-1).astype(np.int64) - shift,
        (note,) if shift else (),
    )


def _values(arrays: list[ArrayFile]) -> Iterator[tuple[ArrayFile, int, NDArray[Any]]]:
    """Yield the targets (n,) of each array in batches, with the number of the first one."""
    for y in arrays:
        start = 0
        for values in y.batches(max(1, BATCH_BYTES // max(1, y.row_bytes))):
            yield y, start, values.reshape(-1)
            start += len(values)


def _wrong_label(y: ArrayFile, row: int, label: Any, why: str) -> DataError:
    return y.error(f"has the label {label} in row {row}, and {why}: {LABELS}. Correct it.")


def _dtype(pairs: Pairs) -> tuple[Dtype, list[str]]:
    """Return the dtype of the examples, with a note when integers become floating point."""
    arrays = [x for x, _ in pairs.values()]
    if arrays[0].dtype.kind in FLOATS:
        return "float32", []
    least, greatest = 0, 255
    for x in arrays:
        if x.dtype.name in WIDE:
            for rows in x.batches(max(1, BATCH_BYTES // x.row_bytes)):
                least, greatest = min(least, int(rows.min())), max(greatest, int(rows.max()))
    if (least, greatest) == (0, 255):
        return "uint8", []
    return "float32", [f"The examples are 16-bit integers up to {greatest}: they became float32, unchanged."]


def _batches(path: Path, max_bytes: int, dtype: Dtype, labels: Labels | None) -> Iterator[Batch]:
    with _opened(path, max_bytes) as pairs:
        for split, (x, y) in pairs.items():
            rows = max(1, BATCH_BYTES // max(x.row_bytes, y.row_bytes))
            start = 0
            for examples, targets in zip(x.batches(rows), y.batches(rows), strict=True):
                found = labels.convert(targets) if labels else _floats(y, start, targets.reshape(-1))
                yield Batch(split, _converted(x, start, examples, dtype), found)
                start += len(targets)


def _converted(x: ArrayFile, start: int, examples: NDArray[Any], dtype: Dtype) -> NDArray[Any]:
    """Return rows as uint8 or float32; `start` is the first one's number."""
    if dtype == "float32":
        return _floats(x, start, examples)
    if examples.dtype.itemsize == 1 and examples.dtype.kind in "bu":
        return examples.view(np.uint8)
    remedy = "integers are pixels, 0 to 255, or have 16 bits. Save others as float32"
    _refuse(x, start, examples, (examples < 0) | (examples > 255), remedy)
    return examples.astype(np.uint8)


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
        raise array.error(f"has the value {rows[place]} in row {start + place[0]}: {remedy}.")
