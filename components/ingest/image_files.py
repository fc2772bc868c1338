"""Pictures in a directory, a .zip or a .tar.gz, with their labels: in class folders, or in an index.

Files that cannot be used are counted, and listed together.
"""

import logging
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components import images
from modelyard.components.artifacts import ImageFormat
from modelyard.components.errors import DataError
from modelyard.components.ingest.class_folders import Layout, layout, listed
from modelyard.components.ingest.examples import Batch, Examples
from modelyard.components.ingest.index import METADATA, Index, read_indexes
from modelyard.components.ingest.members import MAX_FILE_BYTES, members
from modelyard.components.source.settings import Source

WORKERS = len(os.sched_getaffinity(0))
MOST_LISTED = 100
MOST_BAD = 1000
MOST_CHARACTERS = 1400  # an error's text is cut at 2,000

log = logging.getLogger(__name__)


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
        names=found.names if isinstance(found, Index) else found.classes,
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
        self._only = f"{name!r} in {self._source}: {why}"
        short = why.partition(". ")[0].removeprefix("The picture ").rstrip(".")
        if self.count <= MOST_LISTED:
            self.listed.append(f"{name}: {short}")
        if self.count <= MOST_BAD:
            log.warning("%s: %s", name, short)
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


def _targets(path: Path, source: Source) -> Layout | Index:
    """Return the split and the target of each file, from an index or the class folders."""
    files: list[str] = []
    folders: list[str] = []
    indexes: dict[str, bytes] = {}
    for member in members(path, source.max_bytes):
        (folders if member.folder else files).append(member.name)
        if not member.folder and _is_index(member.name, source.index):
            if member.size + sum(map(len, indexes.values())) > MAX_FILE_BYTES:
                raise member.refused(
                    f"is an index, and of indexes at most {MAX_FILE_BYTES:,} bytes are read."
                )
            indexes[member.name] = member.content()
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


def _is_index(name: str, index: str | None) -> bool:
    """Say whether a file is the index that the configuration names, or metadata as Hugging Face has it."""
    if index:
        return name == index or name.partition("/")[2] == index
    return name.rpartition("/")[2] in METADATA and name.count("/") <= 2


def _form(path: Path, source: Source, found: Layout | Index) -> ImageFormat:
    """Return what every picture becomes; without `resize` all have the size of the first one."""
    if source.resize:
        height, width, policy = source.resize.height, source.resize.width, source.resize.policy
        return ImageFormat(height=height, width=width, channels=source.channels, resize=policy)
    height, width = _first_size(path, source.max_bytes, found)
    return ImageFormat(height=height, width=width, channels=source.channels, resize="exact")


def _first_size(path: Path, max_bytes: int, found: Layout | Index) -> tuple[int, int]:
    for member in members(path, max_bytes):
        if not member.folder and found.place(member.name):
            try:
                return images.size(member.content())
            except DataError:  # reading the batches lists it
                continue
    return 1, 1


def _batches(
    path: Path, source: Source, found: Layout | Index, form: ImageFormat, bad: BadFiles, notes: list[str]
) -> Iterator[Batch]:
    """Yield the pictures one by one; they are decoded a few ahead, with all cores."""
    waiting: deque[tuple[str, tuple[str, float], Future[NDArray[Any]]]] = deque()
    total = bad.count
    dtype = np.float32 if source.problem == "regression" else np.int64

    def finished() -> Iterator[Batch]:
        name, (split, target), picture = waiting.popleft()
        try:
            yield split, picture.result()[None], np.array([target], dtype)
        except DataError as error:
            bad.add(name, str(error))

    with ThreadPoolExecutor(WORKERS) as pool:
        for member in members(path, source.max_bytes):
            if member.folder or (place := found.place(member.name)) is None:
                continue
            total += 1
            try:
                content = member.content()
            except DataError as error:
                bad.add(member.name, str(error))
                continue
            waiting.append((member.name, place, pool.submit(images.decode, content, form)))
            if len(waiting) > 2 * WORKERS:
                yield from finished()
        while waiting:
            yield from finished()
    bad.check(total)
    if bad.count:
        notes.append(f"{bad.count:,} of {total:,} files cannot be used, and were skipped.")
