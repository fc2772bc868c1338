"""An index of images: a CSV, TSV or JSON Lines file with a path, a label and optionally a split in each row.

    path,label,split                     {"file_name": "1.png", "label": "cat"}
    cats/1.png,cat,train                 {"file_name": "2.png", "label": "dog"}

Paths are relative to the index, or else to the source. Hugging Face names an index metadata.csv or
metadata.jsonl; there is one for all images, or one in the folder of each split.
"""

import csv
import io
import json
import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from modelyard.components.errors import DataError
from modelyard.components.ingest.class_folders import SPLITS
from modelyard.components.ingest.examples import check_splits, normalize_label, sort_classes
from modelyard.components.ingest.members import CONTROL_CHARACTERS
from modelyard.components.source.folder import MAX_ENTRIES

METADATA = frozenset(("metadata.csv", "metadata.jsonl"))
PATHS = ("path", "file_name", "filename", "file", "image")
TARGETS = ("label", "target", "class")
SPLIT = "split"
MAX_REPORTED_ERRORS = 20

SplitTarget = tuple[str, Any]
"""The split of a file, and its target: a label, the number of a class, or a number."""


@dataclass(frozen=True)
class Index:
    """The indexes of a source.

    `names` are the classes in label order, or the name of the target. `targets` maps a file to its split and
    target. `missing` maps a file that does not exist to the error for its row.
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
    tables = [_Table(name, content) for name, content in sorted(contents.items())]
    if any(table.path is None or table.target is None for table in tables):
        return None
    file_names, origin = set(files), " and ".join(sorted(contents))
    targets, missing = _read_targets(tables, file_names, problem)
    if not targets:
        raise DataError(f"{origin} has no rows. Add a row for each image.")
    splits = {file: split for file, (split, _) in targets.items()}
    check_splits(splits, "Add a split to all rows or to none.")
    names: tuple[str, ...] = (str(tables[-1].target).strip(),)
    if problem == "classification":
        names = sort_classes({label for _, label in targets.values()})
        numbers = {name: number for number, name in enumerate(names)}
        targets = {file: (split, numbers[label]) for file, (split, label) in targets.items()}
    notes = [f"Labels and splits come from {origin}."]
    if unused_count := len(file_names - targets.keys() - contents.keys()):
        notes.append(f"Files that are not in the index, and are not used: {unused_count:,}.")
    present = {file: target for file, target in targets.items() if file not in missing}
    return Index(names, tuple(sorted(set(splits.values()))), present, missing, tuple(notes))


def _read_targets(
    tables: Sequence["_Table"], file_names: Set[str], problem: str
) -> tuple[dict[str, SplitTarget], dict[str, str]]:
    """Return the split and target of each file in the tables, and the error of each that does not exist."""
    targets: dict[str, SplitTarget] = {}
    missing: dict[str, str] = {}
    errors: list[str] = []
    rows = ((table, position, row) for table in tables for position, row in table.rows())
    for table, position, row in rows:
        try:
            file = table.find_file(row, file_names)
            split_target = table.parse_split(row, file), parse_target(row.get(table.target), problem)
            if file in targets:
                raise ValueError(f"has the same path as another row, {file!r}")
        except ValueError as error:
            errors.append(f"{position} of {table.name} {error}")
            if len(errors) == MAX_REPORTED_ERRORS:
                break
            continue
        targets[file] = split_target
        if file not in file_names:
            missing[file] = (
                f"the file does not exist, but {position} of {table.name} has its path. Add the file, or "
                "remove the row."
            )
        if len(targets) > MAX_ENTRIES:
            raise DataError(
                f"{table.name} has more than {MAX_ENTRIES:,} rows, the maximum. Split the dataset."
            )
    if errors:
        raise DataError(f"{'; '.join(errors)}. Correct {'it' if len(errors) == 1 else 'them'}.")
    return targets, missing


class _Table:
    """The rows of an index, and its columns for the path, the target and the split; None if missing."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name, self._folder = name, PurePosixPath(name).parent
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
        self.path = next((columns[key] for key in PATHS if key in columns), None)
        self.target = next((columns[key] for key in TARGETS if key in columns), None)
        self._split = columns.get(SPLIT)

    def rows(self) -> Iterator[tuple[str, dict[Any, Any]]]:
        """Yield the position of each row and its values by column."""
        return self._json_lines() if self.name.endswith(".jsonl") else self._csv_records()

    def find_file(self, row: Mapping[Any, Any], file_names: Set[str]) -> str:
        """Return the file of a row: relative to the index, or to the source if only that file exists."""
        path = row.get(self.path)
        file, source_file = _resolve_path(self._folder, path), _resolve_path(PurePosixPath(), path)
        return source_file if file not in file_names and source_file in file_names else file

    def parse_split(self, row: Mapping[Any, Any], file: str) -> str:
        """Return the split of a row: of its column, else of the index's folder, else of the file's folder."""
        if self._split is None:
            default = SPLITS.get(self._folder.name.lower())
            return default or SPLITS.get(file.partition("/")[0].lower(), "all")
        value = row.get(self._split)
        if str(value).strip().lower() not in SPLITS:
            raise ValueError(f"has the split {value!r}, which is not train, test or validation")
        return SPLITS[str(value).strip().lower()]

    def _json_lines(self) -> Iterator[tuple[str, dict[Any, Any]]]:
        for number, line in enumerate(io.StringIO(self._text), 1):
            if line.strip():
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(
                        f"Line {number} of {self.name} is not JSON ({error}). Correct it."
                    ) from error
                if not isinstance(record, dict):
                    raise DataError(f"Line {number} of {self.name} is not a JSON object. Correct it.")
                yield f"line {number}", record

    def _csv_records(self) -> Iterator[tuple[str, dict[Any, Any]]]:
        rows = self._csv_rows()
        _, columns = next(rows)
        for position, row in rows:
            if len(row) != len(columns):
                raise DataError(
                    f"{position.capitalize()} of {self.name} has {len(row)} values, but there are "
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
                f"Line {reader.line_num} of {self.name} is not CSV ({error}). Correct it."
            ) from error


def _resolve_path(folder: PurePosixPath, path: Any) -> str:
    """Return the path of a file relative to the source, from its path relative to `folder`."""
    if not isinstance(path, str) or not path.strip():
        raise ValueError("has no path")
    parts = path.strip().replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or CONTROL_CHARACTERS.search(path):
        raise ValueError(f"has the path {path!a}, which is absolute, or contains '..' or a control character")
    return unicodedata.normalize("NFC", (folder / "/".join(parts)).as_posix())


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
    kind = "empty or not printable" if isinstance(value, str) else "neither a string nor an integer"
    raise ValueError(f"has the label {value!r}, which is {kind}{why}")
