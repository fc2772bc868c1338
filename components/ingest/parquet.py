"""Images in Parquet files, as Hugging Face's datasets writes them: a column of images and one of labels.

    data/train-00000-of-00002.parquet  data/train-00001-of-00002.parquet  data/test-00000-of-00001.parquet

An image is the bytes of an image file, in a binary column or in a struct with a field `bytes`. A few rows are
read at a time; a Parquet file in an archive becomes a temporary file for it. pyarrow is imported only when
there is a Parquet file.
"""

import io
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from modelyard.components.errors import DataError
from modelyard.components.ingest.class_folders import SPLITS
from modelyard.components.ingest.examples import MAX_CLASSES, normalize_label, sort_classes
from modelyard.components.ingest.index import TARGETS, target_of
from modelyard.components.ingest.members import Member
from modelyard.components.source.checks import check_size

MAGIC, SUFFIX = b"PAR1", ".parquet"
IMAGE = "image"
ROWS, LABELS = 16, 2**16
"""Rows that are read at once: with images, and labels alone."""
BUFFER_BYTES = 2**20
MAX_ROW_GROUP_BYTES = 512 * 2**20
SHARD = re.compile(r"^(.*)-(\d+)-of-(\d+)")

Files = Callable[[], Iterator[Member]]


class Columns(NamedTuple):
    """The columns that are read, and the names of the classes if the file has them."""

    image: str
    label: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Parquet files with images.

    `names`, `splits` and `notes` are those of Examples. `files` returns the files, and `split_of` has the
    split of each. `labels` has the number of each label, and is empty for a regression.
    """

    names: tuple[str, ...]
    splits: tuple[str, ...]
    notes: tuple[str, ...]
    files: Files
    split_of: Mapping[str, str]
    columns: Columns
    labels: Mapping[Any, int]

    def images(self) -> Iterator[tuple[str, tuple[str, float], Callable[[], bytes]]]:
        """Yield the name of each image, its split and target, and a function that returns its bytes.

        The function raises DataError if the row has no image or no usable target.
        """
        for file in self.files():
            split, rows = self.split_of[file.name], count()
            with _opened(file) as parquet:
                for batch in _batches(parquet, self.columns[:2], ROWS):
                    images, targets = batch.column(self.columns.image), batch.column(self.columns.label)
                    if images.type.num_fields:
                        images = images.field("bytes")
                    for image, given in zip(images, targets.to_pylist(), strict=True):
                        target, why = 0.0, "" if image.is_valid else "has no image"
                        try:
                            target = self.labels[given] if self.labels else target_of(given, "regression")
                        except (ValueError, LookupError):
                            why = f"has the target {given!r}, which is not a class or a finite number"
                        content = partial(_content, image, why)
                        yield f"row {next(rows)} of {file.name}", (split, target), content


def _content(image: Any, why: str) -> bytes:
    if why:
        raise DataError(f"The row {why}. Correct or remove it.")
    content: bytes = image.as_py()
    return content


def read_parquet(files: Files, alone: bool, problem: str, max_bytes: int) -> Table:
    """Return what the files hold, for which their labels are read and no images.

    Args:
        files: returns the files, each of which can be read until the next is asked for.
        alone: the source is a single file, whose name is not significant.
        problem: what the targets are for.
        max_bytes: maximum size of all of them, uncompressed.

    Raises:
        DataError: the files have no images or no labels, or differ; one is missing, damaged or too large.
    """
    known: dict[str, Columns] = {}
    total, found = 0, set[Any]()
    for file in files():
        with _opened(file) as parquet:
            known[file.name] = columns = _columns(file, parquet.schema_arrow, problem)
            if columns != known[first := next(iter(known))]:
                raise file.error(f"has other columns or class names than {first!r}. Write them alike.")
            total += _uncompressed(file, parquet.metadata)
            check_size(f"{file.source}, uncompressed,", total, max_bytes)
            if problem == "classification":
                for batch in _batches(parquet, [columns.label], LABELS):
                    found.update(batch.column(0).unique().to_pylist())
                    if len(found) > MAX_CLASSES:
                        raise file.error(f"has more than {MAX_CLASSES:,} labels. Labels name classes.")
    split_of = dict.fromkeys(known, "all") if alone else _splits(list(known))
    names: tuple[str, ...] = (columns.label,)
    labels: dict[Any, int] = {}
    if problem == "classification":
        texts = {label: normalize_label(str(label)) for label in found - {None}}
        names = columns.names or sort_classes(text for text in texts.values() if text)
        if not names:
            raise DataError(f"The column {columns.label} of {', '.join(known)} has no labels. Add them.")
        position = {name: number for number, name in enumerate(names)}
        labels = {label: position[text] for label, text in texts.items() if text and not columns.names}
        labels = labels or {number: number for number in range(len(names))}
    note = f"Images and targets come from the columns {columns.image} and {columns.label} of Parquet files."
    return Table(names, tuple(dict.fromkeys(split_of.values())), (note,), files, split_of, columns, labels)


def _splits(files: list[str]) -> dict[str, str]:
    """Return the split of each file.

    Raises:
        DataError: some are in no split and others are, or shards are missing.
    """
    splits = {file: split_from_name(file) for file in files}
    if "all" in splits.values() and len(set(splits.values())) > 1:
        file = next(file for file, split in splits.items() if split == "all")
        raise DataError(
            f"{file!r} is in no split, and others are. Add train, validation or test to its name."
        )
    shards = Counter((found[1], found[3]) for file in files if (found := SHARD.search(file)))
    for (stem, number), there in shards.items():
        if there != int(number):
            raise DataError(f"{there} of {int(number)} files {stem}-…-of-{number} are there. Get the others.")
    return splits


def split_from_name(name: str) -> str:
    """Return the split whose name is a word of a file's name, or else of a folder's; `all` for none."""
    for part in reversed(name.lower().split("/")):
        for word in re.split("[^a-z]+", part):
            if word in SPLITS:
                return SPLITS[word]
    return "all"


@contextmanager
def _opened(file: Member) -> Iterator[Any]:
    """Give the ParquetFile.

    Raises:
        DataError: it is damaged, also when that is found while it is read.
    """
    import pyarrow
    from pyarrow.parquet import ParquetFile

    with file.open() as opened, tempfile.TemporaryFile() as copy:
        in_archive = type(opened) is not io.BufferedReader  # where it cannot be read in any order
        if in_archive:
            shutil.copyfileobj(opened, copy, BUFFER_BYTES)
        try:
            yield ParquetFile(
                copy if in_archive else opened, buffer_size=BUFFER_BYTES, page_checksum_verification=True
            )
        except pyarrow.ArrowException as error:
            raise file.error(f"is not Parquet that can be read ({error}). Write it again.") from error


def _batches(parquet: Any, columns: Sequence[str], rows: int) -> Iterator[Any]:
    for group in range(parquet.num_row_groups):  # read in one go, each would stay in memory to the end
        yield from parquet.iter_batches(rows, [group], list(columns), use_threads=False)


def _uncompressed(file: Member, metadata: Any) -> int:
    """Return the size of the file's row groups; to read a few rows may need as much memory as one of them."""
    sizes = [metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)]
    if max(sizes, default=0) > MAX_ROW_GROUP_BYTES:
        raise file.error(
            f"has a row group of {max(sizes):,} bytes, and at most {MAX_ROW_GROUP_BYTES:,} are read. Write "
            "it with fewer rows in each group, such as row_group_size=100."
        )
    return sum(sizes)


def _columns(file: Member, schema: Any, problem: str) -> Columns:
    """Return the columns of the images and of the targets.

    Raises:
        DataError: there are none, or it is not certain which they are.
    """
    from pyarrow import types

    def is_image(kind: Any) -> bool:
        if types.is_struct(kind):
            return any(part.name == "bytes" and is_image(part.type) for part in kind)
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def is_target(kind: Any) -> bool:
        if number:
            return bool(types.is_integer(kind) or types.is_floating(kind))
        if types.is_dictionary(kind):
            return is_target(kind.value_type)
        return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))

    names, number = _class_names(schema.metadata or {}), problem == "regression"
    images = [field.name for field in schema if is_image(field.type)]
    if len(images) > 1 and images.count(IMAGE) == 1:
        images = [IMAGE]
    wanted = [[name for name in schema.names if name.lower() == target] for target in TARGETS]
    targets = next(filter(None, [*wanted, [name for name in schema.names if name in names]]), [])
    if len(images) != 1 or len(targets) != 1 or not is_target(schema.field(targets[0]).type):
        shown = ", ".join(f"{field.name} ({field.type})"[:60] for field in list(schema)[:10])
        raise file.error(
            f"has the columns {shown}. Parquet is read with a column of images, the bytes of image files "
            f"(binary, or a struct with a field bytes; of several the one called {IMAGE}), and a column "
            f"label, target or class with {'numbers' if number else 'whole numbers or texts'}: rename or "
            "convert the columns."
        )
    whole = types.is_integer(schema.field(targets[0]).type) and not number
    return Columns(images[0], targets[0], names.get(targets[0], ()) if whole else ())


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Return the class names of each column that has some, which Hugging Face writes into the schema."""
    found: dict[str, tuple[str, ...]] = {}
    with suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        for column, feature in json.loads(metadata[b"huggingface"])["info"]["features"].items():
            names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
            labels = [normalize_label(str(name)) for name in names or ()]
            if labels and None not in labels and len(set(labels)) == len(labels):
                found[column] = tuple(filter(None, labels))
    return found
