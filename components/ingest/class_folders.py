"""Pictures in one folder per class, in a directory, a .zip or a .tar.gz; see layout.py."""

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
from modelyard.components.ingest.examples import Batch, Examples
from modelyard.components.ingest.layout import Layout, layout
from modelyard.components.ingest.member import Member
from modelyard.components.ingest.members import members
from modelyard.components.source.settings import Source

WORKERS = len(os.sched_getaffinity(0))


def read(path: Path, source: Source) -> Examples:
    """Return the pictures: uint8 (height, width, channels), in their order in the source.

    Args:
        path: directory or archive.
        source: its `resize`, `channels` and `max_bytes`.

    Raises:
        DataError: the folders are no class folders, a class is empty, a file is not a picture or, without
            `resize`, of another size than the first; see also `members.members`.
    """
    found = _layout(path, source.max_bytes)
    form = _form(path, source)
    return Examples(
        shape=(form.height, form.width, form.channels),
        dtype="uint8",
        classes=found.classes,
        splits=found.splits,
        batches=_batches(path, source.max_bytes, found, form),
        image=form,
    )


def _layout(path: Path, max_bytes: int) -> Layout:
    pictures: list[str] = []
    folders: list[str] = []
    for member in members(path, max_bytes):
        (folders if member.folder else pictures).append(member.name)
    try:
        return layout(pictures, folders)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _form(path: Path, source: Source) -> ImageFormat:
    """Return what every picture becomes; without `resize` all have the size of the first one."""
    if source.resize:
        height, width, policy = source.resize.height, source.resize.width, source.resize.policy
        return ImageFormat(height=height, width=width, channels=source.channels, resize=policy)
    height, width = _first_size(path, source.max_bytes)
    return ImageFormat(height=height, width=width, channels=source.channels, resize="exact")


def _first_size(path: Path, max_bytes: int) -> tuple[int, int]:
    for member in members(path, max_bytes):
        if not member.folder:
            try:
                return images.size(member.content())
            except DataError as error:
                raise _about(member, error) from error
    raise DataError(f"{path} has no pictures any more. Leave it alone until they are read.")


def _batches(path: Path, max_bytes: int, found: Layout, form: ImageFormat) -> Iterator[Batch]:
    """Yield the pictures one by one; they are decoded a few ahead, with all cores."""
    waiting: deque[tuple[str, int, Future[NDArray[Any]]]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for member in members(path, max_bytes):
            if not member.folder:
                split, label = found.place(member.name)
                waiting.append((split, label, pool.submit(_decode, member, member.content(), form)))
            if len(waiting) > 2 * WORKERS:
                yield _row(*waiting.popleft())
        while waiting:
            yield _row(*waiting.popleft())


def _decode(member: Member, data: bytes, form: ImageFormat) -> NDArray[Any]:
    try:
        return images.decode(data, form)
    except DataError as error:
        raise _about(member, error) from error


def _row(split: str, label: int, picture: Future[NDArray[Any]]) -> Batch:
    return split, picture.result()[None], np.array([label])


def _about(member: Member, error: DataError) -> DataError:
    return DataError(f"{member.name!r} in {member.source}: {error}")
