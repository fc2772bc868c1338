"""An index of images: a CSV or JSON Lines file with a path, a label and optionally a split in each row.

    path,label,split                     {"file_name": "1.png", "label": "cat"}
    cats/1.png,cat,train                 {"file_name": "2.png", "label": "dog"}

Paths are relative to the index, or else to the source. The names of Hugging Face are metadata.csv and
metadata.jsonl, one for all images or one in the folder of each split.
"""

import csv
import io
import json
import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from modelyard.components.errors import DataError
from modelyard.components.ingest.class_folders import SPLITS
from modelyard.components.ingest.examples import normalize_label, sort_classes
from modelyard.components.ingest.members import CONTROL
from modelyard.components.source.folder import MAX_ENTRIES

METADATA = frozenset(("metadata.csv", "metadata.jsonl"))
PATHS = ("path", "file_name", "filename", "file", "image")
TARGETS = ("label", "target", "class")
SPLIT = "split"
MAX_REPORTED_ERRORS = 20


@dataclass(frozen=True)
class Index:
    """The indexes of a source.

    `names` are the classes in label order, or the name of the target. `targets` maps a file to its split and
    target, and `missing` a file that does not exist to the error for its row.
    """

    names: tuple[str, ...]
    splits: tuple[str, ...]
    targets: Mapping[str, tuple[str, float]]
    missing: Mapping[str, str]
    notes: tuple[str, ...]

    def split_target(self, name: str) -> tuple[str, float] | None:
        """Return the split and the target of a file; None if it is not in the index."""
        return self.targets.get(name)


def read_indexes(contents: Mapping[str, bytes], files: Sequence[str], problem: str) -> Index | None:
    """Parse the indexes, given by name; return None if one has no columns for path and target.

    `files` are the names of all files of the source.

    Raises:
        DataError: an index is malformed, or rows have an invalid label or split, or a duplicate path. The
            message has the first 20 errors.
    """
    targets_by_file: dict[str, tuple[str, Any]] = {}
    existing, missing, errors, target = set(files), {}, [], ""
    for name, content in sorted(contents.items()):
        table = _Table(name, content)
        if table.path is None or table.target is None:
            return None
        target = str(table.target).strip()
        folder = PurePosixPath(name).parent
        default = SPLITS.get(folder.name.lower())
        for row, record in table.records():
            position, path, value = f"{row} of {name}", record.get(table.path), record.get(table.target)
            try:
                file, source_path = _resolve_path(folder, path), _resolve_path(PurePosixPath(), path)
                if file not in existing and source_path in existing:
                    file = source_path
                if table.split is None:
                    split = default or SPLITS.get(file.partition("/")[0].lower(), "all")
                else:
                    split = _parse_split(record.get(table.split))
                split_target = split, parse_target(value, problem)
                if file in targets_by_file:
                    raise ValueError(f"has the same path as another row, {file!r}")
            except ValueError as error:
                errors.append(f"{position} {error}")
                if len(errors) == MAX_REPORTED_ERRORS:
                    break
                continue
            targets_by_file[file] = split_target
            if file not in existing:
                missing[file] = (
                    f"{position} has its path, but it does not exist. Add the file, or remove the row."
                )
            if len(targets_by_file) > MAX_ENTRIES:
                raise DataError(f"{name} has more than {MAX_ENTRIES:,} rows, the maximum. Split the dataset.")
    if errors:
        raise DataError(f"{'; '.join(errors)}. Correct {'it' if len(errors) == 1 else 'them'}.")
    if not targets_by_file:
        raise DataError(f"{' and '.join(sorted(contents))} has no rows. Add a row for each image.")
    names: tuple[str, ...] = (target,)
    if problem == "classification":
        names = sort_classes({value for _, value in targets_by_file.values()})
        labels = {name: label for label, name in enumerate(names)}
        targets_by_file = {file: (split, labels[value]) for file, (split, value) in targets_by_file.items()}
    splits = {split for split, _ in targets_by_file.values()}
    if "all" in splits and len(splits) > 1:
        file = next(file for file, (split, _) in targets_by_file.items() if split == "all")
        raise DataError(
            f"{file!r} has no split, but other files have one. Add a split to all rows or to none."
        )
    unused = len(existing - targets_by_file.keys() - contents.keys())
    notes = [f"Labels and splits come from {' and '.join(sorted(contents))}."]
    if unused:
        notes.append(f"{unused:,} files of the source are not in the index and not used.")
    targets = {file: target for file, target in targets_by_file.items() if file not in missing}
    return Index(names, tuple(sorted(splits)), targets, missing, tuple(notes))


class _Table:
    """The rows of an index, and its columns for the path, the target and the split; None if missing."""

    def __init__(self, name: str, content: bytes) -> None:
        self._name = name
        try:
            self._text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{name} is not UTF-8 ({error}). Save it as UTF-8.") from error
        if name.endswith(".jsonl"):
            header = list(next(self._json_lines(), ("", {}))[1])
        else:
            header = next(self._csv_rows(), ("", []))[1]
        columns = {str(column).strip().lower(): column for column in header}
        if len(columns) < len(header):
            raise DataError(f"{name} has a duplicate column: {', '.join(map(str, header))}. Rename one.")
        self.path = next((columns[name] for name in PATHS if name in columns), None)
        self.target = next((columns[name] for name in TARGETS if name in columns), None)
        self.split = columns.get(SPLIT)

    def records(self) -> Iterator[tuple[str, dict[Any, Any]]]:
        """Yield the position of each row and its values by column."""
        return self._json_lines() if self._name.endswith(".jsonl") else self._csv_records()

    def _json_lines(self) -> Iterator[tuple[str, dict[Any, Any]]]:
        for number, line in enumerate(io.StringIO(self._text), 1):
            if line.strip():
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(
                        f"Line {number} of {self._name} is not JSON ({error}). Correct it."
                    ) from error
                if not isinstance(record, dict):
                    raise DataError(f"Line {number} of {self._name} is not a JSON object. Correct it.")
                yield f"line {number}", record

    def _csv_records(self) -> Iterator[tuple[str, dict[Any, Any]]]:
        rows = self._csv_rows()
        _, columns = next(rows)
        for position, row in rows:
            if len(row) != len(columns):
                raise DataError(
                    f"{position.capitalize()} of {self._name} has {len(row)} values, but there are "
                    f"{len(columns)} columns. Correct it."
                )
            yield position, dict(zip(columns, row, strict=True))

    def _csv_rows(self) -> Iterator[tuple[str, list[str]]]:
        header = self._text.partition("\n")[0]
        delimiter = max(",;\t", key=header.count)
        reader = csv.reader(io.StringIO(self._text, newline=""), delimiter=delimiter, strict=True)
        try:
            yield from ((f"line {reader.line_num}", row) for row in reader if row)
        except csv.Error as error:
            raise DataError(
                f"Line {reader.line_num} of {self._name} is not CSV ({error}). Correct it."
            ) from error


def _resolve_path(folder: PurePosixPath, path: Any) -> str:
    """Return the name in the source of a path relative to `folder`."""
    if not isinstance(path, str) or not path.strip():
        raise ValueError("has no path")
    parts = path.strip().replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or CONTROL.search(path):
        raise ValueError(f"has the path {path!a}, which is not below the index")
    return unicodedata.normalize("NFC", (folder / "/".join(parts)).as_posix())


def _parse_split(value: Any) -> str:
    if not isinstance(value, str) or value.strip().lower() not in SPLITS:
        raise ValueError(f"has the split {value!r}, which is not train, test or validation")
    return SPLITS[value.strip().lower()]


def parse_target(value: Any, problem: str) -> Any:
    """Return a label as a string, or a number; raise ValueError if it is invalid for the problem."""
    if problem == "regression":
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        with np.errstate(over="ignore"):
            if not np.isfinite(np.float32(number)):
                raise ValueError(f"has the target {value!r}, which is not a finite number")
        return number
    if isinstance(value, str | int) and (label := normalize_label(str(value))):
        return label
    why = "; to predict numbers, set problem: regression" if isinstance(value, float) else ""
    raise ValueError(f"has the label {value!r}, which is neither a string nor an integer{why}")
