"""Images in a directory, a .zip or a .tar.gz, with class folders or an index; or in Parquet files.

Files that cannot be used are counted, and listed together.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components import images
from modelyard.components.artifacts import ImageFormat
from modelyard.components.errors import DataError
from modelyard.components.ingest import parquet
from modelyard.components.ingest.class_folders import Layout, has_images, layout, listed
from modelyard.components.ingest.examples import BATCH_BYTES, Batch, Examples
from modelyard.components.ingest.index import METADATA, Index, read_indexes
from modelyard.components.ingest.members import MAX_FILE_BYTES, Member, members
from modelyard.components.ingest.parquet import Table
from modelyard.components.source.settings import Source
from modelyard.components.step import log

WORKERS = len(os.sched_getaffinity(0))
MOST_TOGETHER = 16
"""Small images that a thread decodes before it takes others."""
MOST_LISTED = 100
MOST_BAD = 1000
MOST_CHARACTERS = 1400  # an error's text is cut at 2,000

Place = tuple[str, float]
Encoded = tuple[str, Place, bytes]
Decoded = tuple[str, Place, NDArray[Any] | DataError]


def read(path: Path, source: Source) -> Examples:
    """Return the pictures: uint8 (height, width, channels), in their order in the source.

    Args:
        path: directory or archive.
        source: its `resize`, `channels`, `index`, `max_bad`, `max_bytes` and `problem`.

    Raises:
        DataError: there are neither class folders nor an index, or they are not usable; more than a share of
            `max_bad` of the files are no pictures or, without `resize`, of another size than the first; see
            also `members.members`.
    """
    found = _targets(path, source)
    form = _form(path, source, found)
    bad = BadFiles(path, source.max_bad)
    if isinstance(found, Index):
        for name, why in found.missing.items():
            bad.add(name, why)
    notes = list(found.notes)
    return Examples(
        shape=(form.height, form.width, form.channels),
        dtype="uint8",
        names=found.classes if isinstance(found, Layout) else found.names,
        splits=found.splits,
        batches=_batches(path, source, found, form, bad, notes),
        image=form,
        notes=notes,
        skipped=bad.listed,
    )


class BadFiles:
    """The files that cannot be used.

    Args:
        source: where they are, for messages.
        share: how many of all files there may be.
    """

    def __init__(self, source: Path, share: float) -> None:
        self.count = 0
        self.listed: list[str] = []
        self._source, self._share = source, share
        self._only = ""

    def add(self, name: str, why: str) -> None:
        """Take a file, and log it.

        Raises:
            DataError: none is allowed, and there are a thousand.
        """
        self.count += 1
        why = why.removeprefix(f"{name!r} in {self._source} ")
        self._only = f"{name!r} in {self._source}: {why}"
        short = why.partition(". ")[0].removeprefix("The picture ").rstrip(".")
        if self.count <= MOST_LISTED:
            self.listed.append(f"{name}: {short}")
        if self.count <= MOST_BAD:
            log(f"{name}: {short}")
        elif not self._share:
            raise self._error(f"more than {MOST_BAD:,}")

    def check(self, total: int) -> None:
        """Raise DataError when more of the `total` files are bad than the share says."""
        if self.count > self._share * total:
            if self.count == 1:
                raise DataError(self._only)
            raise self._error(f"{self.count:,} of {total:,}")

    def _error(self, how_many: str) -> DataError:
        shown: list[str] = []
        for entry in self.listed:
            if sum(map(len, shown)) + len(entry) < MOST_CHARACTERS:
                shown.append(entry)
        more = (
            f"; and {self.count - len(shown):,} more, in the log of ingest" if len(shown) < self.count else ""
        )
        return DataError(
            f"{how_many} files in {self._source} cannot be used: {'; '.join(shown)}{more}. Correct or remove "
            f"them, or set data.max_bad to the share that may be skipped; it is {self._share:g}."
        )


def _targets(path: Path, source: Source) -> Layout | Index | Table:
    """Return the split and the target of each picture, from an index, the class folders or Parquet files."""
    if path.is_file() and _begin(path) == parquet.MAGIC:
        return _table(path, source, lambda: iter([Member(path, path.name, 0, lambda: path.open("rb"))]), True)
    files: list[str] = []
    folders: list[str] = []
    indexes: dict[str, bytes] = {}
    for member in members(path, source.max_bytes):
        (folders if member.folder else files).append(member.name)
        if not member.folder and _is_index(member.name, source.index):
            if member.size + sum(map(len, indexes.values())) > MAX_FILE_BYTES:
                raise member.error(f"is an index, and of indexes at most {MAX_FILE_BYTES:,} bytes are read.")
            indexes[member.name] = member.content()
    if any(map(_is_parquet, files)) and not has_images(files):
        every = partial(members, path, source.max_bytes)
        return _table(path, source, lambda: (one for one in every() if _is_parquet(one.name)), False)
    try:
        if source.index:
            indexes = {name: indexes[name] for name in (min(indexes, key=len),)} if indexes else {}
            if not indexes:
                raise DataError(f"it has no file {source.index!r}. Correct data.index.")
        if indexes and (index := read_indexes(indexes, files, source.problem)):
            return index
        if source.index or source.problem == "regression":
            without = f"{listed(sorted(indexes))} has no such columns" if indexes else "it has no index"
            raise DataError(
                "targets come from an index, a .csv, .tsv or .jsonl with the columns path and label, and "
                f"optionally split, named in its first line; {without}. Correct it, or data.index."
            )
        return layout(files, folders)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _begin(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(parquet.MAGIC))


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(parquet.SUFFIX)


def _table(path: Path, source: Source, files: parquet.Files, alone: bool) -> Table:
    if source.index:
        raise DataError(f"{path} has Parquet files, whose targets are in a column. Remove data.index.")
    return parquet.read_parquet(files, alone, source.problem, source.max_bytes)


def _is_index(name: str, index: str | None) -> bool:
    """Say whether a file is the index that the configuration names, or metadata as Hugging Face has it."""
    if index:
        return name == index or name.partition("/")[2] == index
    return name.rpartition("/")[2] in METADATA and name.count("/") <= 2


def _form(path: Path, source: Source, found: Layout | Index | Table) -> ImageFormat:
    """Return what every picture becomes; without `resize` all have the size of the first one."""
    if source.resize:
        height, width, policy = source.resize.height, source.resize.width, source.resize.policy
        return ImageFormat(height=height, width=width, channels=source.channels, resize=policy)
    height, width = _first_size(path, source.max_bytes, found)
    return ImageFormat(height=height, width=width, channels=source.channels, resize="exact")


def _first_size(path: Path, max_bytes: int, found: Layout | Index | Table) -> tuple[int, int]:
    for _, _, content in _encoded(path, max_bytes, found):
        with suppress(DataError):  # reading the batches lists it
            return images.size(content())
    return 1, 1


def _encoded(
    path: Path, max_bytes: int, found: Layout | Index | Table
) -> Iterator[tuple[str, Place, Callable[[], bytes]]]:
    """Yield the name of each image, its split and target, and a function that returns its bytes."""
    if isinstance(found, Table):
        yield from found.images()
        return
    for member in members(path, max_bytes):
        if not member.folder and (place := found.place(member.name)):
            yield member.name, place, member.content


def _batches(
    path: Path,
    source: Source,
    found: Layout | Index | Table,
    form: ImageFormat,
    bad: BadFiles,
    notes: list[str],
) -> Iterator[Batch]:
    """Yield the pictures one by one; they are decoded a few ahead, with all cores."""
    waiting: deque[Future[list[Decoded]]] = deque()
    total = bad.count
    dtype = np.float32 if source.problem == "regression" else np.int64
    most = max(1, min(MOST_TOGETHER, BATCH_BYTES // (form.height * form.width * form.channels)))

    def finished() -> Iterator[Batch]:
        for name, (split, target), picture in waiting.popleft().result():
            if isinstance(picture, DataError):
                bad.add(name, str(picture))
            else:
                yield Batch(split, picture[None], np.array([target], dtype), (name,))

    with ThreadPoolExecutor(WORKERS) as pool:
        together: list[Encoded] = []
        for name, place, read_content in _encoded(path, source.max_bytes, found):
            total += 1
            try:
                together.append((name, place, read_content()))
            except DataError as error:
                bad.add(name, str(error))
            if len(together) >= most or sum(len(content) for _, _, content in together) > BATCH_BYTES:
                waiting.append(pool.submit(_decode, together, form))
                together = []
                if len(waiting) > 2 * WORKERS:
                    yield from finished()
        waiting.append(pool.submit(_decode, together, form))
        while waiting:
            yield from finished()
    bad.check(total)
    if bad.count:
        notes.append(f"{bad.count:,} of {total:,} files cannot be used, and were skipped.")


def _decode(together: list[Encoded], form: ImageFormat) -> list[Decoded]:
    """Decode a few images: to hand a single small one to a thread takes as long as to decode it."""

    def decode(content: bytes) -> NDArray[Any] | DataError:
        try:
            return images.decode(content, form)
        except DataError as error:
            return error

    return [(name, place, decode(content)) for name, place, content in together]
