"""Images in Parquet files, the format of Hugging Face datasets: a column of images and one of labels.

    data/train-00000-of-00002.parquet  data/train-00001-of-00002.parquet  data/test-00000-of-00001.parquet

An image is the content of an image file, in a binary column or in a struct with a field `bytes`. Rows are
read in small batches; a Parquet file in an archive is copied to a temporary file. pyarrow is imported
only for Parquet files.
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
from typing import Any, NamedTuple

from modelyard.components.errors import DataError
from modelyard.components.ingest.class_folders import SPLITS
from modelyard.components.ingest.examples import MAX_CLASSES, check_splits, normalize_label, sort_classes
from modelyard.components.ingest.index import TARGETS, parse_target
from modelyard.components.ingest.members import Member
from modelyard.components.source.checks import check_size

MAGIC, SUFFIX = b"PAR1", ".parquet"
IMAGE = "image"
IMAGE_BATCH_ROWS, LABEL_BATCH_ROWS = 16, 2**16
"""Rows per batch, with images and with labels only."""
BUFFER_BYTES = 2**20
MAX_ROW_GROUP_BYTES = 512 * 2**20
SHARD = re.compile(r"^(.*)-(\d+)-of-(\d+)")

Files = Callable[[], Iterator[Member]]


class Columns(NamedTuple):
    """The columns of images and labels, and the names of the classes if the schema has them."""

    image: str
    label: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Parquet files with images.

    `names`, `splits` and `notes` are those of Examples. `files` opens the files, and `split_of` maps the name
    of a file to its split. `labels` maps a label to the number of its class; it is empty for a regression.
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
            with _open_parquet(file) as parquet:
                for row, (image, value) in enumerate(_iterate_rows(parquet, self.columns)):
                    target, reason = self._parse_target(value)
                    reason = reason or ("" if image.is_valid else "has no image")
                    content = partial(_read_image, image, reason)
                    yield f"row {row} of {file.name}", (self.split_of[file.name], target), content

    def _parse_target(self, value: Any) -> tuple[float, str]:
        """Return the target of a row, and why it is not usable; the reason is empty if it is."""
        try:
            return self.labels[value] if self.labels else parse_target(value, "regression"), ""
        except (ValueError, LookupError):
            kind = "a known class" if self.labels else "a finite number"
            return 0.0, f"has the target {value!r}, which is not {kind}"


def _read_image(image: Any, reason: str) -> bytes:
    """Return the content of an image; raise DataError if there is a reason why the row is not usable."""
    if reason:
        raise DataError(f"The row {reason}. Correct or remove it.")
    content: bytes = image.as_py()
    return content


def read_parquet(files: Files, single_file: bool, problem: str, max_bytes: int) -> Table:
    """Return the table of the files; this reads their labels, but no images.

    Args:
        files: opens the files; each is readable until the next one.
        single_file: whether the source is a single file, whose name has no split.
        problem: of the targets.
        max_bytes: maximum size of all files, uncompressed.

    Raises:
        DataError: the files have no images, no labels, or different columns; one is missing, damaged or too
            large.
    """
    columns_by_file, raw_labels = _read_columns_and_labels(files, problem, max_bytes)
    columns = next(iter(columns_by_file.values()))
    split_of = dict.fromkeys(columns_by_file, "all") if single_file else _find_splits(list(columns_by_file))
    names: tuple[str, ...] = (columns.label,)
    labels: dict[Any, int] = {}
    if problem == "classification":
        names, labels = _number_labels(raw_labels, columns.names)
        if not names:
            raise DataError(
                f"The column {columns.label} of {', '.join(columns_by_file)} has no labels. Add labels."
            )
    note = f"Images and targets come from the columns {columns.image} and {columns.label} of Parquet files."
    return Table(names, tuple(dict.fromkeys(split_of.values())), (note,), files, split_of, columns, labels)


def _read_columns_and_labels(
    files: Files, problem: str, max_bytes: int
) -> tuple[dict[str, Columns], set[Any]]:
    """Return the columns of each file, and all labels if the problem is classification."""
    columns_by_file: dict[str, Columns] = {}
    total, labels = 0, set[Any]()
    for file in files():
        with _open_parquet(file) as parquet:
            columns_by_file[file.name] = columns = _find_columns(file, parquet.schema_arrow, problem)
            if columns != columns_by_file[first := next(iter(columns_by_file))]:
                raise file.error(
                    f"differs from {first!r} in its columns or class names. Write both with one schema."
                )
            total += _measure_uncompressed_size(file, parquet.metadata)
            check_size(f"{file.source}, uncompressed,", total, max_bytes)
            if problem != "classification":
                continue
            for batch in _iterate_batches(parquet, [columns.label], LABEL_BATCH_ROWS):
                labels.update(batch.column(0).unique().to_pylist())
                if len(labels) > MAX_CLASSES:
                    raise file.error(
                        f"has more than {MAX_CLASSES:,} different labels, the maximum. Labels must name "
                        "classes."
                    )
    return columns_by_file, labels


def _number_labels(labels: set[Any], class_names: tuple[str, ...]) -> tuple[tuple[str, ...], dict[Any, int]]:
    """Return the classes, and the number of each label; with `class_names`, labels are their numbers."""
    if class_names:
        return class_names, {number: number for number in range(len(class_names))}
    name_of = {label: name for label in labels - {None} if (name := normalize_label(str(label)))}
    names = sort_classes(name_of.values())
    numbers = {name: number for number, name in enumerate(names)}
    return names, {label: numbers[name] for label, name in name_of.items()}


def _find_splits(files: list[str]) -> dict[str, str]:
    """Return the split of each file; raise DataError if only some have one, or shards are missing."""
    splits = {file: find_split(file) for file in files}
    check_splits(splits, "Add train, validation or test to its name.")
    shards = Counter((shard[1], shard[3]) for file in files if (shard := SHARD.search(file)))
    for (stem, total), present in shards.items():
        if present != int(total):
            raise DataError(
                f"{present} of {int(total)} files {stem}-…-of-{total} exist. Download the others."
            )
    return splits


def find_split(name: str) -> str:
    """Return the split that is a word of the file name, or else of a folder name; `all` if there is none."""
    for part in reversed(name.lower().split("/")):
        for word in re.split("[^a-z]+", part):
            if word in SPLITS:
                return SPLITS[word]
    return "all"


@contextmanager
def _open_parquet(file: Member) -> Iterator[Any]:
    """Open a Parquet file; raise DataError if it cannot be read, also within the block."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    with file.open() as stream, tempfile.TemporaryFile() as copy:
        in_archive = type(stream) is not io.BufferedReader  # not seekable
        if in_archive:
            shutil.copyfileobj(stream, copy, BUFFER_BYTES)
        try:
            yield ParquetFile(
                copy if in_archive else stream, buffer_size=BUFFER_BYTES, page_checksum_verification=True
            )
        except pyarrow.ArrowException as error:
            raise file.error(f"is not a readable Parquet file ({error}). Write it again.") from error


def _iterate_rows(parquet: Any, columns: Columns) -> Iterator[tuple[Any, Any]]:
    """Yield the image of each row, as a scalar of pyarrow, and its target."""
    for batch in _iterate_batches(parquet, columns[:2], IMAGE_BATCH_ROWS):
        images, targets = batch.column(columns.image), batch.column(columns.label)
        if images.type.num_fields:
            images = images.field("bytes")
        yield from zip(images, targets.to_pylist(), strict=True)


def _iterate_batches(parquet: Any, columns: Sequence[str], rows: int) -> Iterator[Any]:
    for group in range(parquet.num_row_groups):  # iter_batches keeps all its groups in memory
        yield from parquet.iter_batches(rows, [group], list(columns), use_threads=False)


def _measure_uncompressed_size(file: Member, metadata: Any) -> int:
    """Return the size of all row groups; reading a few rows may need the memory of a complete one."""
    sizes = [metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)]
    if max(sizes, default=0) > MAX_ROW_GROUP_BYTES:
        raise file.error(
            f"has a row group of {max(sizes):,} bytes, but the maximum is {MAX_ROW_GROUP_BYTES:,}. Write "
            "it with fewer rows per group, such as row_group_size=100."
        )
    return sum(sizes)


def _find_columns(file: Member, schema: Any, problem: str) -> Columns:
    """Return the columns of the images and of the targets, which must be unambiguous."""
    from pyarrow import types

    def is_image(data_type: Any) -> bool:
        if types.is_struct(data_type):
            return any(part.name == "bytes" and is_image(part.type) for part in data_type)
        return bool(types.is_binary(data_type) or types.is_large_binary(data_type))

    def is_target(data_type: Any) -> bool:
        if is_regression:
            return bool(types.is_integer(data_type) or types.is_floating(data_type))
        if types.is_dictionary(data_type):
            return is_target(data_type.value_type)
        return bool(
            types.is_integer(data_type) or types.is_string(data_type) or types.is_large_string(data_type)
        )

    names, is_regression = _read_class_names(schema.metadata or {}), problem == "regression"
    images = [field.name for field in schema if is_image(field.type)]
    if len(images) > 1 and images.count(IMAGE) == 1:
        images = [IMAGE]
    target_columns = [[name for name in schema.names if name.lower() == target] for target in TARGETS]
    targets = next(filter(None, [*target_columns, [name for name in schema.names if name in names]]), [])
    if len(images) != 1 or len(targets) != 1 or not is_target(schema.field(targets[0]).type):
        columns = ", ".join(f"{field.name} ({field.type})"[:60] for field in list(schema)[:10])
        raise file.error(
            f"has the columns {columns}. Rename or convert them: one column with the bytes of image files "
            f"(binary, or a struct with a field bytes), named {IMAGE} if there are several, and a column "
            f"label, target or class with {'numbers' if is_regression else 'integers or strings'}."
        )
    integer_labels = types.is_integer(schema.field(targets[0]).type) and not is_regression
    return Columns(images[0], targets[0], names.get(targets[0], ()) if integer_labels else ())


def _read_class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Return the class names of each column that has them in the schema metadata of Hugging Face."""
    class_names: dict[str, tuple[str, ...]] = {}
    with suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        for column, feature in json.loads(metadata[b"huggingface"])["info"]["features"].items():
            names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
            labels = [normalize_label(str(name)) for name in names or ()]
            if labels and None not in labels and len(set(labels)) == len(labels):
                class_names[column] = tuple(filter(None, labels))
    return class_names
