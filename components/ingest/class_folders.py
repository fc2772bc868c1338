"""Pictures in one folder per class, in a directory, a .zip or a .tar.gz.

    cats/1.png  dogs/2.jpg                                     one split, `all`
    train/cats/1.png  train/dogs/2.jpg  test/cats/3.png …      the splits train, test and validation (or val)

One more folder around all of it, as many archives have, is looked through.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components import images
from modelyard.components.artifacts import ImageFormat
from modelyard.components.errors import DataError
from modelyard.components.ingest.examples import Batch, Examples
from modelyard.components.ingest.members import Member, members
from modelyard.components.source.settings import Source

WORKERS = len(os.sched_getaffinity(0))
SPLITS = {"train": "train", "test": "test", "validation": "validation", "val": "validation"}

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """`above` folders are around all of it; `folders` has a split and a label for each class folder."""

    above: int
    classes: tuple[str, ...]
    folders: dict[Parts, tuple[str, int]]

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(dict.fromkeys(split for split, _ in self.folders.values()))

    def place(self, name: str) -> tuple[str, int]:
        """Return the split and the label of the picture with this name."""
        return self.folders[tuple(name.split("/")[self.above : -1])]


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
        names=found.classes,
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


def layout(pictures: Sequence[str], folders: Iterable[str]) -> Layout:
    """Return where the classes are; `folders` may name empty ones.

    Raises:
        DataError: a picture lies outside of a class folder, or a class is empty. The message speaks of "it";
            the caller says what.
    """
    if not pictures:
        raise DataError("it has no pictures. Put them in one folder per class.")
    files = [tuple(name.split("/")) for name in pictures]
    around = [tuple(name.split("/")) for name in folders]
    above = _above(files, around)
    roots = {name[above] for name in (*files, *around) if len(name) > above}
    with_splits = roots <= SPLITS.keys() and any(len(name) > above + 2 for name in files)
    depth = above + (2 if with_splits else 1)
    for name in files:
        if len(name) != depth + 1:
            raise DataError(
                f"{'/'.join(name)!r} does not lie in a class folder. Pictures lie in one folder per class, "
                "or in such folders inside train, test and validation: move it there, or remove it."
            )
    full = {name[above:-1] for name in files}
    classes = tuple(sorted({name[-1] for name in full} | {name[-1] for name in around if len(name) == depth}))
    groups = [(root,) for root in SPLITS if root in roots] if with_splits else [()]
    places = {
        (*group, name): (SPLITS[group[0]] if group else "all", label)
        for group in groups
        for label, name in enumerate(classes)
    }
    if empty := next((folder for folder in places if folder not in full), None):
        raise DataError(
            f"the folder {'/'.join(empty)!r} has no pictures. Add pictures of this class, or remove all its "
            "folders."
        )
    if len(set(places.values())) < len(places):
        raise DataError("it has a folder val and a folder validation. Keep one of them.")
    return Layout(above, classes, places)


def _above(files: list[Parts], folders: list[Parts]) -> int:
    """Return 1 when all lies in one folder that is neither a class nor a split, else 0."""
    roots = {name[0] for name in (*files, *folders)}
    return int(len(roots) == 1 and not roots & SPLITS.keys() and any(len(name) > 2 for name in files))
