"""Images in a folder, a .zip or a .tar.gz, with class folders or an index; or in Parquet files.

Unusable files are counted and reported together.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components import images
from modelyard.components.artifacts import ImageFormat
from modelyard.components.errors import DataError, summarize_names
from modelyard.components.ingest import parquet
from modelyard.components.ingest.class_folders import ClassFolders, find_class_folders, has_images
from modelyard.components.ingest.examples import BATCH_BYTES, Batch, Examples
from modelyard.components.ingest.index import METADATA, Index, read_indexes
from modelyard.components.ingest.members import MAX_FILE_BYTES, Member, iterate_members
from modelyard.components.ingest.parquet import Table
from modelyard.components.source.settings import Source
from modelyard.components.step import log

WORKERS = len(os.sched_getaffinity(0))
MAX_GROUP_SIZE = 16
"""Maximum number of small images that a thread decodes at once."""
MAX_LISTED_FILES = 100
MAX_LOGGED_FILES = 1000
MAX_LISTED_CHARACTERS = 1400  # error messages are cut at 2,000

SplitTarget = tuple[str, float]
ImageFile = tuple[str, SplitTarget, bytes]
"""The name, split and target, and content of an image file."""
DecodedImage = tuple[str, SplitTarget, NDArray[Any] | DataError]
"""The name, split and target, and pixels of an image, or why it cannot be decoded."""


def read(path: Path, source: Source) -> Examples:
    """Read the images: uint8 (height, width, channels), in the order of the source.

    Raises:
        DataError: class folders and index are missing or invalid, or the share of unusable files exceeds
            `max_bad`: files that are not images or, without `resize`, differ in size from the first.
    """
    targets = _find_targets(path, source)
    image_format = _choose_image_format(path, source, targets)
    unusable = UnusableFiles(path, source.max_bad)
    if isinstance(targets, Index):
        for name, reason in targets.missing.items():
            unusable.add(name, reason)
    notes = list(targets.notes)
    return Examples(
        shape=(image_format.height, image_format.width, image_format.channels),
        dtype="uint8",
        names=targets.names,
        splits=targets.splits,
        batches=_read_batches(path, source, targets, image_format, unusable, notes),
        image=image_format,
        notes=notes,
        skipped=unusable.summaries,
    )


class UnusableFiles:
    """The unusable files of a source; `max_share` is the maximum share of unusable files."""

    def __init__(self, source: Path, max_share: float) -> None:
        self.count = 0
        self.summaries: list[str] = []
        self._source, self._max_share = source, max_share
        self._last_message = ""
        self._sizes_differ = False

    def add(self, name: str, error: DataError | str) -> None:
        """Count and log a file; with a maximum of 0, raise DataError after MAX_LOGGED_FILES files."""
        self.count += 1
        self._sizes_differ |= isinstance(error, images.ImageSizeError)
        reason = str(error).removeprefix(f"{name!r} in {self._source} ")
        self._last_message = f"{name!r} in {self._source}: {reason[:1].lower()}{reason[1:]}"
        summary = reason.partition(". ")[0].removeprefix("The image ").rstrip(".")
        if self.count <= MAX_LISTED_FILES:
            self.summaries.append(f"{name}: {summary}")
        if self.count <= MAX_LOGGED_FILES:
            log(f"{name}: {summary}")
        elif not self._max_share:
            raise self._error(f"more than {MAX_LOGGED_FILES:,}")

    def check(self, total: int) -> None:
        """Raise DataError if the share of unusable files among `total` files exceeds the maximum."""
        if self.count > self._max_share * total:
            if self.count == 1:
                raise DataError(self._last_message)
            raise self._error(f"{self.count:,} of {total:,}")

    def _error(self, number: str) -> DataError:
        entries: list[str] = []
        for entry in self.summaries:
            if sum(map(len, entries)) + len(entry) < MAX_LISTED_CHARACTERS:
                entries.append(entry)
        rest = self.count - len(entries)
        more = f"; and {rest:,} more, in the log of ingest" if rest else ""
        remedy = "Correct or remove them"
        if self._sizes_differ:
            remedy = "Set data.resize, because images differ in size; or correct or remove the files"
        return DataError(
            f"{number} files in {self._source} are unusable: {'; '.join(entries)}{more}. {remedy}; or raise "
            f"data.max_bad, the share of files that may be skipped, from {self._max_share:g}."
        )


def _find_targets(path: Path, source: Source) -> ClassFolders | Index | Table:
    """Return the split and the target of each image, from an index, class folders or Parquet files."""
    if path.is_file() and _is_parquet_file(path):
        return _read_parquet_targets(path, source, single_file=True)
    files, folders, indexes = _list_members(path, source)
    if any(map(_has_parquet_suffix, files)) and not has_images(files):
        return _read_parquet_targets(path, source, single_file=False)
    try:
        return _read_index(indexes, files, source) or find_class_folders(files, folders)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _list_members(path: Path, source: Source) -> tuple[list[str], list[str], dict[str, bytes]]:
    """Return the names of the files and the folders, and the content of the indexes by name."""
    files: list[str] = []
    folders: list[str] = []
    indexes: dict[str, bytes] = {}
    for member in iterate_members(path, source.max_bytes):
        (folders if member.is_folder else files).append(member.name)
        if not member.is_folder and _is_index(member.name, source.index):
            if member.size + sum(map(len, indexes.values())) > MAX_FILE_BYTES:
                raise member.error(
                    f"makes the indexes larger than {MAX_FILE_BYTES:,} bytes, the maximum. Make it smaller."
                )
            indexes[member.name] = member.content()
    return files, folders, indexes


def _read_index(contents: Mapping[str, bytes], files: Sequence[str], source: Source) -> Index | None:
    """Return the index, which data.index and regression require; None if the source has none."""
    if source.index:
        if not contents:
            raise DataError(f"it has no file {source.index!r}. Correct data.index.")
        name = min(contents, key=len)
        contents = {name: contents[name]}
    if contents and (index := read_indexes(contents, files, source.problem)):
        return index
    if not source.index and source.problem != "regression":
        return None
    reason = "the source has no index. Add one, or set data.index."
    if contents:
        names = summarize_names(sorted(contents))
        reason = f"there are no such columns in {names}. Add them, or correct data.index."
    raise DataError(
        "targets come from an index (.csv, .tsv or .jsonl with the columns path, label and optionally "
        f"split), but {reason}"
    )


def _is_parquet_file(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(parquet.MAGIC)) == parquet.MAGIC


def _has_parquet_suffix(name: str) -> bool:
    return name.lower().endswith(parquet.SUFFIX)


def _read_parquet_targets(path: Path, source: Source, single_file: bool) -> Table:
    if source.index:
        raise DataError(f"{path} has Parquet files, which have the targets in a column. Remove data.index.")

    def files() -> Iterator[Member]:
        if single_file:
            return iter([Member(path, path.name, 0, lambda: path.open("rb"))])
        members = iterate_members(path, source.max_bytes)
        return (member for member in members if _has_parquet_suffix(member.name))

    return parquet.read_parquet(files, single_file, source.problem, source.max_bytes)


def _is_index(name: str, index: str | None) -> bool:
    """Return whether a file is the configured index, or a metadata file of Hugging Face."""
    if index:
        return name == index or name.partition("/")[2] == index
    return name.rpartition("/")[2] in METADATA and name.count("/") <= 2


def _choose_image_format(path: Path, source: Source, targets: ClassFolders | Index | Table) -> ImageFormat:
    """Return the format of the examples; without `resize` all images have the size of the first one."""
    if source.resize:
        height, width, policy = source.resize.height, source.resize.width, source.resize.policy
        return ImageFormat(height=height, width=width, channels=source.channels, resize=policy)
    height, width = 1, 1
    for _, _, read_content in _iterate_encoded(path, source.max_bytes, targets):
        with suppress(DataError):  # _read_batches reports it
            height, width = images.read_size(read_content())
            break
    return ImageFormat(height=height, width=width, channels=source.channels, resize="exact")


def _iterate_encoded(
    path: Path, max_bytes: int, targets: ClassFolders | Index | Table
) -> Iterator[tuple[str, SplitTarget, Callable[[], bytes]]]:
    """Yield the name of each image, its split and target, and a function that returns its content."""
    if isinstance(targets, Table):
        yield from targets.images()
        return
    for member in iterate_members(path, max_bytes):
        if not member.is_folder and (target := targets.split_target(member.name)):
            yield member.name, target, member.content


def _read_batches(
    path: Path,
    source: Source,
    targets: ClassFolders | Index | Table,
    image_format: ImageFormat,
    unusable: UnusableFiles,
    notes: list[str],
) -> Iterator[Batch]:
    """Yield the images one by one; a few are decoded ahead, on all cores."""
    total = unusable.count
    dtype = np.float32 if source.problem == "regression" else np.int64
    image_bytes = image_format.height * image_format.width * image_format.channels
    group_size = max(1, min(MAX_GROUP_SIZE, BATCH_BYTES // image_bytes))

    def encoded_images() -> Iterator[ImageFile]:
        nonlocal total
        for name, target, read_content in _iterate_encoded(path, source.max_bytes, targets):
            total += 1
            try:
                yield name, target, read_content()
            except DataError as error:
                unusable.add(name, error)

    for name, (split, target), image in _decode_all(encoded_images(), group_size, image_format):
        if isinstance(image, DataError):
            unusable.add(name, image)
        else:
            yield Batch(split, image[None], np.array([target], dtype), (name,))
    unusable.check(total)
    if unusable.count:
        notes.append(f"Unusable files that were skipped: {unusable.count:,} of {total:,}.")


def _decode_all(files: Iterator[ImageFile], size: int, image_format: ImageFormat) -> Iterator[DecodedImage]:
    """Decode images in threads, in groups of at most `size` images and about BATCH_BYTES."""
    pending: deque[Future[list[DecodedImage]]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        group: list[ImageFile] = []
        for image in files:
            group.append(image)
            if len(group) >= size or sum(len(content) for _, _, content in group) > BATCH_BYTES:
                pending.append(pool.submit(_decode, group, image_format))
                group = []
                if len(pending) > 2 * WORKERS:
                    yield from pending.popleft().result()
        pending.append(pool.submit(_decode, group, image_format))
        while pending:
            yield from pending.popleft().result()


def _decode(group: list[ImageFile], image_format: ImageFormat) -> list[DecodedImage]:
    """Decode a group, because handing one small image to a thread takes as long as decoding it."""

    def decode(content: bytes) -> NDArray[Any] | DataError:
        try:
            return images.decode(content, image_format)
        except DataError as error:
            return error

    return [(name, target, decode(content)) for name, target, content in group]
