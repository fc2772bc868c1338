"""A folder as a .zip that has the same bytes whenever the folder holds the same: no times, no compression."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast
from zipfile import ZipFile, ZipInfo

from modelyard.components.artifacts import tree_files
from modelyard.components.errors import DataError
from modelyard.components.ingest.members import members

PART_BYTES = 2**20
MODE = 0o100644


@dataclass(frozen=True)
class Item:
    """A file, or a folder, which has no `open`; the name of a folder ends with a slash."""

    name: str
    size: int
    open: Callable[[], AbstractContextManager[IO[bytes]]] | None


class Digest:
    """A file that keeps only the size and the SHA-256 of what is written, and hands it on to another."""

    def __init__(self, file: IO[bytes] | None = None) -> None:
        self.size = 0
        self._digest = hashlib.sha256()
        self._file = file

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was written, in hex."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> int:
        """Take bytes."""
        self._digest.update(data)
        self.size += len(data)
        return self._file.write(data) if self._file else len(data)

    def flush(self) -> None:
        """Do nothing: the other file is flushed by its owner."""


def examples(folder: Path, max_bytes: int) -> Iterator[Item]:
    """Yield what ingest reads of a folder.

    Raises:
        DataError: it holds what ingest refuses.
    """
    for member in members(folder, max_bytes):
        if member.folder:
            yield Item(f"{member.name}/", 0, None)
        else:
            yield Item(member.name, member.size, member.open)


def code(folder: Path) -> Iterator[Item]:
    """Yield what the fingerprint of a folder of code covers."""
    for name, path in tree_files(folder):
        yield Item(name, path.stat().st_size, partial(_open, path))


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def write(items: Iterable[Item], file: Digest) -> None:
    """Write the archive, a part at a time."""
    # zipfile takes what cannot seek, and then writes sizes behind each file
    with ZipFile(cast(IO[bytes], file), "w") as archive:
        for item in items:
            entry = ZipInfo(item.name)  # of 1980
            entry.create_system, entry.external_attr, entry.file_size = 3, MODE << 16, item.size
            if item.open is None:
                archive.writestr(entry, b"")
                continue
            with item.open() as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, PART_BYTES)


@contextmanager
def packed(items: Iterable[Item], what: str, sha256: str | None = None) -> Iterator[IO[bytes]]:
    """Give the archive as an open file, which goes with the block.

    Args:
        items: what goes into it.
        what: the configuration's key, and the folder, for messages.
        sha256: what it must have; not checked when None.

    Raises:
        DataError: it is another archive, since the folder changed; or there is no room for it.
    """
    with tempfile.NamedTemporaryFile() as file:
        digest = Digest(cast(IO[bytes], file))
        try:
            write(items, digest)
            file.seek(0)
        except OSError as error:
            raise DataError(f"{what} cannot be packed: {error}. Make room, or set TMPDIR.") from error
        if sha256 not in (None, digest.sha256):
            raise DataError(f"{what} changed while it was packed. Leave it alone, and try again.")
        yield cast(IO[bytes], file)
