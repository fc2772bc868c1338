"""An index of pictures: a CSV or JSON Lines file with a path, a label and optionally a split in each row.

    path,label,split                     {"file_name": "1.png", "label": "cat"}
    cats/1.png,cat,train                 {"file_name": "2.png", "label": "dog"}

Paths are relative to the index, or else to the source. Hugging Face calls it metadata.csv or metadata.jsonl,
one for all, or one in each split's folder.
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
MOST_MISTAKES = 20


@dataclass(frozen=True)
class Index:
    """What the indexes of a source say.

    `names` are the classes in label order, or the name of the target. `places` has a split and a target for
    each file, `missing` the files that are not there, with the row that names them.
    """

    names: tuple[str, ...]
    splits: tuple[str, ...]
    places: Mapping[str, tuple[str, float]]
    missing: Mapping[str, str]
    notes: tuple[str, ...]

    def place(self, name: str) -> tuple[str, float] | None:
        """Return the split and the target of a file; None for one that is not in the index."""
        return self.places.get(name)


def read_indexes(contents: Mapping[str, bytes], files: Sequence[str], problem: str) -> Index | None:
    """Return what the indexes say; None when one has no columns for path and target.

    Args:
        contents: the indexes' names in the source, and what is in them.
        files: the names of all files of the source.
        problem: `classification` takes labels, `regression` numbers.

    Raises:
        DataError: one is malformed, or a row has no usable label or split, or a path twice. The first 20
            mistakes are named.
    """
    found: dict[str, tuple[str, Any]] = {}
    there, missing, mistakes, target = set(files), {}, [], ""
    for name, content in sorted(contents.items()):
        table = _Table(name, content)
        if not table.usable:
            return None
        target = str(table.target).strip()
        folder = PurePosixPath(name).parent
        default = SPLITS.get(folder.name.lower())
        for row, path, value, split in table.rows():
            where = f"{row} of {name}"
            try:
                file, below_all = _inside(folder, path), _inside(PurePosixPath(), path)
                if file not in there and below_all in there:
                    file = below_all
                place = (_split(file, split, default, table.has_split), target_of(value, problem))
                if file in found:
                    raise ValueError(f"names {file!r}, which another row names, too")
            except ValueError as error:
                mistakes.append(f"{where} {error}")
                if len(mistakes) == MOST_MISTAKES:
                    break
                continue
            found[file] = place
            if file not in there:
                missing[file] = f"{where} names it, and it is not there. Put it there, or remove the row."
            if len(found) > MAX_ENTRIES:
                raise DataError(f"{name} has more than {MAX_ENTRIES:,} rows. Split the dataset.")
    if mistakes:
        raise DataError(f"{'; '.join(mistakes)}. Correct {'it' if len(mistakes) == 1 else 'them'}.")
    if not found:
        raise DataError(f"{' and '.join(sorted(contents))} has no rows. Add one for each picture.")
    names: tuple[str, ...] = (target,)
    if problem == "classification":
        names = sort_classes({value for _, value in found.values()})
        labels = {name: label for label, name in enumerate(names)}
        found = {file: (split, labels[value]) for file, (split, value) in found.items()}
    splits = {split for split, _ in found.values()}
    if "all" in splits and len(splits) > 1:
        file = next(file for file, (split, _) in found.items() if split == "all")
        raise DataError(f"{file!r} is in no split, and others are. Give each row a split, or none.")
    unused = len(there - found.keys() - contents.keys())
    notes = [f"Labels and splits come from {' and '.join(sorted(contents))}."]
    if unused:
        notes.append(f"{unused:,} files of the source are not in the index, and are not used.")
    places = {file: place for file, place in found.items() if file not in missing}
    return Index(names, tuple(sorted(splits)), places, missing, tuple(notes))


class _Table:
    """The rows of an index.

    Raises:
        DataError: it is no table.
    """

    def __init__(self, name: str, content: bytes) -> None:
        self._name = name
        try:
            self._text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{name} is not UTF-8 ({error}). Save it as UTF-8.") from error
        if name.endswith(".jsonl"):
            first = list(next(self._json_lines(), ("", {}))[1])
        else:
            first = next(self._rows_of_csv(), ("", []))[1]
        columns = {str(column).strip().lower(): column for column in first}
        if len(columns) < len(first):
            raise DataError(f"{name} has a column twice: {', '.join(map(str, first))}. Rename one.")
        self._path = next((columns[one] for one in PATHS if one in columns), None)
        self.target = next((columns[one] for one in TARGETS if one in columns), None)
        self._split = columns.get(SPLIT)

    @property
    def usable(self) -> bool:
        """Whether there are columns for the path and the target."""
        return self._path is not None and self.target is not None

    @property
    def has_split(self) -> bool:
        """Whether there is a column for the split."""
        return self._split is not None

    def rows(self) -> Iterator[tuple[str, Any, Any, Any]]:
        """Yield where a row is, its path, its target and its split; None for what it does not have."""
        for where, record in self._records():
            yield where, record.get(self._path), record.get(self.target), record.get(self._split)

    def _records(self) -> Iterator[tuple[str, dict[Any, Any]]]:
        return self._json_lines() if self._name.endswith(".jsonl") else self._csv()

    def _json_lines(self) -> Iterator[tuple[str, dict[Any, Any]]]:
        for number, line in enumerate(io.StringIO(self._text), 1):
            if line.strip():
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(
                        f"Line {number} of {self._name} is no JSON ({error}). Correct it."
                    ) from error
                if not isinstance(record, dict):
                    raise DataError(f"Line {number} of {self._name} is no JSON object. Correct it.")
                yield f"line {number}", record

    def _csv(self) -> Iterator[tuple[str, dict[Any, Any]]]:
        rows = self._rows_of_csv()
        _, columns = next(rows)
        for where, row in rows:
            if len(row) != len(columns):
                raise DataError(
                    f"{where.capitalize()} of {self._name} has {len(row)} values, and there are "
                    f"{len(columns)} columns. Correct it."
                )
            yield where, dict(zip(columns, row, strict=True))

    def _rows_of_csv(self) -> Iterator[tuple[str, list[str]]]:
        header = self._text.partition("\n")[0]
        delimiter = max(",;\t", key=header.count)
        reader = csv.reader(io.StringIO(self._text, newline=""), delimiter=delimiter, strict=True)
        try:
            yield from ((f"line {reader.line_num}", row) for row in reader if row)
        except csv.Error as error:
            raise DataError(
                f"Line {reader.line_num} of {self._name} is not CSV ({error}). Correct it."
            ) from error


def _inside(folder: PurePosixPath, path: Any) -> str:
    """Return the name of the file in the source that a row of an index in `folder` names."""
    if not isinstance(path, str) or not path.strip():
        raise ValueError("has no path")
    parts = path.strip().replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or CONTROL.search(path):
        raise ValueError(f"has the path {path!a}, which is none below the index")
    return unicodedata.normalize("NFC", (folder / "/".join(parts)).as_posix())


def _split(file: str, split: Any, default: str | None, given: bool) -> str:
    """Return the split of a row: of its column, of the index's folder, or of the first folder of the path."""
    if given:
        if not isinstance(split, str) or split.strip().lower() not in SPLITS:
            raise ValueError(f"has the split {split!r}, which is not train, test or validation")
        return SPLITS[split.strip().lower()]
    return default or SPLITS.get(file.partition("/")[0].lower(), "all")


def target_of(value: Any, problem: str) -> Any:
    """Return a label as text, or a number."""
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
    why = "; problem: regression predicts numbers" if isinstance(value, float) else ""
    raise ValueError(f"has the label {value!r}, which is neither a text nor a whole number{why}")
