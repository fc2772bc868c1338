"""Arrays in an .npz, as `numpy.savez` writes them: x and y, or x_train, y_train, x_test and y_test.

The first axis of x and y is the example. y has the targets: labels for classification (integers from 0 or 1,
strings, or one-hot rows), numbers for regression. Arrays are read in batches, so they may be larger than
memory, and a forged size cannot exhaust it. Images may lack a channel axis; the built-in network adds it.
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
from modelyard.components.ingest.members import DAMAGE_ERRORS, MAX_FILE_BYTES, Member, iterate_zip
from modelyard.components.source.settings import Source

SPLITS = ({"all": ("x", "y")}, {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")})
INTEGERS, FLOATS, TEXTS = "bui", "f", "US"
SIXTEEN_BIT = ("int16", "uint16")
LABEL_FORMS = "labels are integers (0, 1, 2, … or 1, 2, 3, … without gaps), strings, or one-hot rows"
HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}  # version 3.0 is for structured arrays


class ArrayFile:
    """An array in an .npz, described by its header.

    Raises:
        DataError: the member is not an .npy file, is not in C order, or its size does not match its header.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self.name = member.name.removesuffix(".npy")
        with member.open() as file:
            self.shape, self.dtype = self._read_header(file)
            size = file.tell() + math.prod(self.shape) * self.dtype.itemsize
        if size != member.size or min(self.shape, default=0) < 0:
            raise self.error(
                f"has {member.size:,} bytes, but {self.description} has {size:,}. Save it again."
            )

    @property
    def description(self) -> str:
        """Its dtype and shape as text."""
        return f"{self.dtype} of shape {self.shape}"

    @property
    def row_bytes(self) -> int:
        """The size of a row in bytes."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def batches(self, size: int | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield batches of `size` rows (default: BATCH_BYTES), each with the number of its first row."""
        size = size or max(1, BATCH_BYTES // max(1, self.row_bytes))
        with self._member.open() as file:
            self._read_header(file)
            for start in range(0, self.shape[0], size):
                count = min(size, self.shape[0] - start)
                data = file.read(count * self.row_bytes)
                yield start, np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])

    def error(self, reason: str) -> DataError:
        """Return the error for an unusable array; `reason` ends with the remedy."""
        return self._member.error(reason)

    def _read_header(self, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
        try:
            shape, fortran, dtype = HEADER_READERS[np.lib.format.read_magic(file)](file)
        except (ValueError, KeyError, TypeError, SyntaxError, TokenError) as error:
            raise self.error(
                f"is not an .npy file of numbers ({error}). Save it with numpy.savez."
            ) from error
        if dtype.hasobject:
            raise self.error(
                "contains Python objects, whose loading can run code. Save numbers, or strings (astype(str))."
            )
        if fortran:
            raise self.error("is in Fortran order. Convert it with numpy.ascontiguousarray.")
        return shape, dtype


Pairs = Mapping[str, tuple[ArrayFile, ArrayFile]]
"""The arrays x and y of each split."""


def read(path: Path, source: Source) -> Examples:
    """Read the examples: integers from 0 to 255 as uint8, other 16-bit integers and floats as float32.

    Raises:
        DataError: the arrays have unexpected names, shapes, dtypes or values, or the file is damaged or too
            large.
    """
    with _open_arrays(path, source.max_bytes) as pairs:
        is_regression = source.problem == "regression"
        for x, y in pairs.values():
            _check_examples(x)
            _check_targets(x, y, is_regression)
        (x, _), *others = pairs.values()
        if different := next(
            (other for other, _ in others if _get_example_type(other) != _get_example_type(x)), None
        ):
            raise different.error(
                f"is {different.description}, but {x.name} is {x.description}. Save both with the same "
                "shape and dtype."
            )
        dtype, notes = _choose_dtype(pairs)
        labels = None if is_regression else _find_labels(pairs, source.classes)
        return Examples(
            shape=x.shape[1:],
            dtype=dtype,
            names=labels.names if labels else ("y",),
            splits=tuple(pairs),
            batches=_iterate_batches(path, source.max_bytes, dtype, labels),
            notes=[*notes, *(labels.notes if labels else ())],
        )


@contextmanager
def _open_arrays(path: Path, max_bytes: int) -> Iterator[Pairs]:
    """Open the arrays of an .npz, which are readable within the block."""
    try:
        archive = ZipFile(path)
    except DAMAGE_ERRORS as error:
        raise DataError(f"{path} is not an .npz file ({error}). Write it with numpy.savez.") from error
    with archive:
        files = [member for member in iterate_zip(archive, path, max_bytes) if not member.is_folder]
        arrays = {array.name: array for array in map(ArrayFile, files)}
        for splits in SPLITS:
            if arrays.keys() == {name for pair in splits.values() for name in pair}:
                yield {split: (arrays[x], arrays[y]) for split, (x, y) in splits.items()}
                return
    raise DataError(
        f"{path} has the arrays {', '.join(sorted(arrays)) or '(none)'}. Name them x and y, or x_train, "
        "y_train, x_test and y_test."
    )


def _get_example_type(array: ArrayFile) -> tuple[tuple[int, ...], bool]:
    return array.shape[1:], array.dtype.kind in INTEGERS


def _check_examples(x: ArrayFile) -> None:
    """Raise DataError if an array cannot be examples, according to its header."""
    if x.dtype.kind not in INTEGERS + FLOATS:
        raise x.error(f"is {x.description}, but examples are numbers. Save it with a numeric dtype.")
    if len(x.shape) < 2 or 0 in x.shape:
        raise x.error(
            f"is {x.description}, but examples need at least two axes, (examples, …), of which none is "
            "empty. Reshape it."
        )
    if x.row_bytes > MAX_FILE_BYTES:
        raise x.error(
            f"is {x.description}: an example has {x.row_bytes:,} bytes, but the maximum is "
            f"{MAX_FILE_BYTES:,}. Make the examples smaller."
        )


def _check_targets(x: ArrayFile, y: ArrayFile, is_regression: bool) -> None:
    """Raise DataError if an array cannot be targets, according to its header."""
    count, is_flat = x.shape[0], y.shape in (x.shape[:1], (x.shape[0], 1))
    one_hot = len(y.shape) == 2 and y.shape[0] == count and y.shape[1] > 1
    if is_regression:
        if y.dtype.kind not in INTEGERS + FLOATS or not is_flat:
            reason = " Train a model for each target." if one_hot else " Save it in this form."
            raise y.error(
                f"is {y.description}, but must have a number per example of {x.name}, with the shape "
                f"({count},).{reason}"
            )
    elif not (
        (is_flat and y.dtype.kind in INTEGERS + TEXTS) or (one_hot and y.dtype.kind in INTEGERS + FLOATS)
    ):
        reason = " To predict numbers, set problem: regression." if y.dtype.kind in FLOATS else ""
        raise y.error(
            f"is {y.description}, but must have a label for each of the {count:,} examples of {x.name}: "
            f"{LABEL_FORMS}.{reason}"
        )


@dataclass(frozen=True)
class Labels:
    """The classes, and the conversion of targets (n,) or (n, classes) to int64 labels (n,)."""

    names: tuple[str, ...]
    convert: Callable[[NDArray[Any]], NDArray[np.int64]]
    notes: tuple[str, ...] = ()


def _find_labels(pairs: Pairs, classes: tuple[str, ...] | None) -> Labels:
    """Return the labels of the targets; `classes` are the names of the classes in label order, if given."""
    arrays = [y for _, y in pairs.values()]
    forms = {(y.dtype.kind in TEXTS, y.shape[1] if len(y.shape) == 2 else 1) for y in arrays}
    if len(forms) > 1:
        descriptions = " and ".join(f"{y.name} is {y.description}" for y in arrays)
        raise arrays[1].error(f"has labels in a different form: {descriptions}. Save both in the same form.")
    ((is_text, columns),) = forms
    if is_text:
        return _find_string_labels(arrays, classes)
    return _find_one_hot_labels(arrays, classes) if columns > 1 else _find_integer_labels(arrays, classes)


def _find_string_labels(arrays: list[ArrayFile], classes: tuple[str, ...] | None) -> Labels:
    labels: dict[Any, str] = {}
    for y, start, values in _iterate_flat_batches(arrays):
        for value in set(values.tolist()) - labels.keys():
            try:
                label = normalize_label(value.decode() if isinstance(value, bytes) else value)
            except UnicodeDecodeError:
                label = None
            row = start + int((values == value).argmax())
            if not label:
                raise y.error(
                    f"has the label {value!a} in row {row}, which is not printable text. Correct it."
                )
            if classes and label not in classes:
                raise y.error(
                    f"has the label {label!r} in row {row}, which is not in data.classes. Correct the label "
                    "or data.classes."
                )
            labels[value] = label
            if len(labels) > MAX_CLASSES:
                raise y.error(
                    f"has more than {MAX_CLASSES:,} different labels, the maximum. Labels must name classes."
                )
    names = classes or sort_classes(labels.values())
    number_of = {name: number for number, name in enumerate(names)}
    label_numbers = {value: number_of[label] for value, label in labels.items()}
    return Labels(
        names,
        lambda values: np.array([label_numbers[value] for value in values.reshape(-1).tolist()], np.int64),
        ("The labels are strings; each string is a class.",),
    )


def _find_one_hot_labels(arrays: list[ArrayFile], classes: tuple[str, ...] | None) -> Labels:
    columns = arrays[0].shape[1]
    for y in arrays:
        for start, rows in y.batches():
            valid = ((rows == 0) | (rows == 1)).all(axis=1) & ((rows == 1).sum(axis=1) == 1)
            if not valid.all():
                raise y.error(
                    f"is {y.description}, but row {start + int(valid.argmin())} is not one-hot (a single "
                    f"1, the rest 0): {LABEL_FORMS}. Correct it."
                )
    if classes and len(classes) != columns:
        raise arrays[0].error(
            f"has {columns} columns, but data.classes has {len(classes)} names. Correct one of them."
        )
    return Labels(
        classes or tuple(map(str, range(columns))),
        lambda rows: np.asarray(rows.argmax(axis=1), np.int64),
        ("The labels are one-hot; the column with the 1 is the class.",),
    )


def _find_integer_labels(arrays: list[ArrayFile], classes: tuple[str, ...] | None) -> Labels:
    """Return the labels of integers from 0 or 1 without gaps, or of -1 and 1.

    With `classes`, integers are numbers of these classes, from 0 or 1, and may have gaps.
    """
    if classes:
        limit, reason = len(classes), f"data.classes has {len(classes)} names"
    else:
        limit = sum(y.shape[0] for y in arrays)
        reason = f"there are only {limit} examples"
    unique: set[int] = set()
    for y, start, values in _iterate_flat_batches(arrays):
        _check_range(y, start, values, -1, limit, reason)
        unique.update(np.unique(values).tolist())
    if unique == {-1, 1} and (classes is None or len(classes) == 2):
        return Labels(
            classes or ("-1", "1"),
            lambda values: (values.reshape(-1) > 0).astype(np.int64),
            ("The labels are -1 and 1; -1 is the first class.",),
        )
    first, last = min(unique), max(unique)
    shift = int(first == 1 and (classes is None or last == limit))
    gaps = not classes and unique != set(range(shift, last + 1))
    if first < 0 or last - shift >= limit or gaps:
        for y, start, values in _iterate_flat_batches(arrays):
            _check_range(y, start, values, 0, limit - 1, reason)
        text = ", ".join(map(str, sorted(unique)[:5])) + ", …" * (len(unique) > 5)
        raise arrays[0].error(
            f"has the labels {text}, but integer labels start at 0 or 1 and have no gaps. Renumber them."
        )
    note = f"The labels are 1 to {last}; label 1 is the first class."
    return Labels(
        classes or tuple(map(str, range(shift, last + 1))),
        lambda values: values.reshape(-1).astype(np.int64) - shift,
        (note,) if shift else (),
    )


def _iterate_flat_batches(arrays: list[ArrayFile]) -> Iterator[tuple[ArrayFile, int, NDArray[Any]]]:
    """Yield the targets (n,) of each batch, with their array and the number of the first row."""
    for y in arrays:
        for start, values in y.batches():
            yield y, start, values.reshape(-1)


def _check_range(
    y: ArrayFile, start: int, labels: NDArray[Any], minimum: int, maximum: int, reason: str
) -> None:
    if len(invalid := np.flatnonzero((labels < minimum) | (labels > maximum))):
        row = int(invalid[0])
        raise y.error(
            f"has the label {labels[row]} in row {start + row}, but {reason}: {LABEL_FORMS}. Correct it."
        )


def _choose_dtype(pairs: Pairs) -> tuple[Dtype, list[str]]:
    """Return the dtype of the examples, with a note if integers become floating-point numbers."""
    arrays = [x for x, _ in pairs.values()]
    if arrays[0].dtype.kind in FLOATS:
        return "float32", []
    minimum, maximum = 0, 255
    for x in arrays:
        if x.dtype.name in SIXTEEN_BIT:
            for _, rows in x.batches():
                minimum, maximum = min(minimum, int(rows.min())), max(maximum, int(rows.max()))
    if (minimum, maximum) == (0, 255):
        return "uint8", []
    return "float32", [f"The examples are 16-bit integers up to {maximum}; they were converted to float32."]


def _iterate_batches(path: Path, max_bytes: int, dtype: Dtype, labels: Labels | None) -> Iterator[Batch]:
    with _open_arrays(path, max_bytes) as pairs:
        for split, (x, y) in pairs.items():
            size = max(1, BATCH_BYTES // max(x.row_bytes, y.row_bytes))
            for (start, examples), (_, targets) in zip(x.batches(size), y.batches(size), strict=True):
                values = labels.convert(targets) if labels else _to_float32(y, start, targets.reshape(-1))
                yield Batch(split, _convert(x, start, examples, dtype), values)


def _convert(x: ArrayFile, start: int, examples: NDArray[Any], dtype: Dtype) -> NDArray[Any]:
    """Return examples as uint8 or float32; `start` is the row number of the first one."""
    if dtype == "float32":
        return _to_float32(x, start, examples)
    if examples.dtype.itemsize == 1 and examples.dtype.kind in "bu":
        return examples.view(np.uint8)
    remedy = "integers must be from 0 to 255, or have 16 bits. Save other values as float32"
    _check_values(x, start, examples, (examples < 0) | (examples > 255), remedy)
    return examples.astype(np.uint8)


def _to_float32(array: ArrayFile, start: int, rows: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        numbers = rows.astype(np.float32)
    remedy = "values must be finite float32 numbers. Replace it, or remove the example"
    _check_values(array, start, rows, ~np.isfinite(numbers), remedy)
    return numbers


def _check_values(
    array: ArrayFile, start: int, rows: NDArray[Any], invalid: NDArray[np.bool_], remedy: str
) -> None:
    if invalid.any():
        position = tuple(np.argwhere(invalid)[0])
        raise array.error(f"has the value {rows[position]} in row {start + position[0]}: {remedy}.")
