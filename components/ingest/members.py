"""The files in a directory, a .zip or a .tar.gz, one after the other, read where they are.

    for member in members(Path("flowers.tar.gz"), max_bytes):
        with member.open() as file: ...

Nothing is unpacked, so nothing can be written where it does not belong. Names that lead elsewhere, links,
devices, duplicates, encryption and bombs are refused all the same: who made such an archive did not mean what
its user expects. Hidden files, and what macOS and Windows leave in folders, are left out.
"""

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO
from zipfile import ZipFile

from modelyard.components.errors import DataError
from modelyard.components.ingest.archive import DAMAGE, Member, inside, tar_members, zip_members

LEFT_BEHIND = {"__MACOSX", "Thumbs.db", "desktop.ini"}


def members(source: Path, max_bytes: int) -> Iterator[Member]:
    """Yield what is in a directory (in the order of names) or in an archive (in its own order).

    Args:
        source: directory, .zip or .tar.gz; an archive is known by its first bytes.
        max_bytes: most bytes that an archive may have when it is unpacked.

    Raises:
        DataError: it is something else, it is damaged, or it has what the module refuses.
    """
    last = "its beginning"
    try:
        for member in _all(source, max_bytes):
            if member.name and not any(map(_left_out, member.name.split("/"))):
                yield member
            last = repr(member.name)
    except DAMAGE as error:
        raise DataError(
            f"{source} cannot be read after {last}; it is damaged or cut off ({error}). Get it again."
        ) from error


def _all(source: Path, max_bytes: int) -> Iterator[Member]:
    if source.is_dir():
        yield from _folder_members(source)
        return
    with source.open("rb") as file:
        begin = file.read(4)
    if begin.startswith(b"PK"):
        with ZipFile(source) as archive:
            yield from zip_members(archive, source, max_bytes)
    elif begin.startswith(b"\x1f\x8b"):
        yield from tar_members(source, max_bytes)
    else:
        raise DataError(
            f"{source} is neither a directory nor a .zip nor a .tar.gz: it begins with {begin!r}. Give one "
            "of these as data.source."
        )


def _folder_members(source: Path) -> Iterator[Member]:
    for folder, folders, files in os.walk(source, onerror=_raise):
        folders[:] = sorted(name for name in folders if not _left_out(name))
        for name in folders:
            path = Path(folder, name)
            member = Member(source, inside(source, path.relative_to(source).as_posix()), 0, None)
            if path.is_symlink():  # fingerprint does not look behind it, so that a change would not be seen
                raise member.refused("is a link to a folder. Put the folder itself there.")
            yield member
        for name in sorted(name for name in files if not _left_out(name)):
            path = Path(folder, name)
            status = path.stat()
            inner = inside(source, path.relative_to(source).as_posix())
            member = Member(source, inner, status.st_size, partial(_open, path))
            if not stat.S_ISREG(status.st_mode):
                raise member.special()
            yield member


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _left_out(part: str) -> bool:
    return part.startswith(".") or part in LEFT_BEHIND


def _raise(error: OSError) -> None:
    raise error
