"""A file or a folder in a source, and what its name and content must keep to."""

import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from modelyard.components.errors import DataError

MAX_FILE_BYTES = 64 * 2**20
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# What the readers of archives raise for damaged bytes; NotImplementedError is zipfile's, for a way of packing
# that it does not know. The last three were found by fuzzing.
DAMAGE = (
    *(OSError, EOFError, NotImplementedError, zlib.error, lzma.LZMAError),
    *(tarfile.TarError, zipfile.BadZipFile),
    *(ValueError, OverflowError, struct.error),
)


@dataclass(frozen=True)
class Member:
    """A file or a folder in a source.

    `name` is its path there, with `/`; `opener` is None for a folder. A file of a .tar.gz can be read until
    the next one is asked for.
    """

    source: Path
    name: str
    size: int
    opener: Callable[[], IO[bytes]] | None

    @property
    def folder(self) -> bool:
        """Say whether it is a folder."""
        return self.opener is None

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Give the file, open for reading.

        Raises:
            DataError: it turns out to be damaged or cut off while it is read.
        """
        if self.opener is None:
            raise IsADirectoryError(self.name)
        try:
            with self.opener() as file:
                yield file
        except DAMAGE as error:
            raise self.refused(f"is damaged or cut off ({error}). Get it again.") from error

    def content(self) -> bytes:
        """Return the whole file.

        Raises:
            DataError: it is damaged, or larger than any file that is read as a whole.
        """
        if self.size > MAX_FILE_BYTES:
            raise self.refused(
                f"has {self.size:,} bytes, and at most {MAX_FILE_BYTES:,} are read. Make it smaller, or "
                "remove it."
            )
        with self.open() as file:
            return file.read(self.size)

    def refused(self, why: str) -> DataError:
        """Return the error that says why it cannot be used, and what to do."""
        return DataError(f"{self.name!r} in {self.source} {why}")

    def special(self) -> DataError:
        """Return the error for what is neither a file nor a folder."""
        return self.refused("is a link, a device or another special file. Put a plain file there.")


def inside(source: Path, name: str) -> str:
    """Return a member's name with `/` between its parts.

    Raises:
        DataError: the name leads out of the source, or cannot be shown.
    """
    parts = re.split(r"[/\\]", name)
    if not parts[0] or ".." in parts or re.match("[A-Za-z]:", name):
        raise DataError(
            f"{source} has a member named {name!a}, which leads out of it. Do not trust it, or pack it anew."
        )
    if CONTROL.search(name):
        raise DataError(f"{source} has a member named {name!a}, with control characters. Rename it.")
    return "/".join(part for part in parts if part not in ("", "."))


class Names:
    """The names in an archive, which must be different and not too many."""

    MOST = 2_000_000

    def __init__(self, source: Path) -> None:
        self._source = source
        self._files: set[str] = set()
        self._count = 0

    def add(self, member: Member) -> None:
        """Take a member's name.

        Raises:
            DataError: another file has it, or there are too many.
        """
        self._count += 1
        if self._count > self.MOST:
            raise DataError(
                f"{self._source} has more than {self.MOST:,} entries, which is more than is read. Split the "
                "dataset, or give it as npz."
            )
        if member.name in self._files:
            raise member.refused("is there twice. Pack the archive anew.")
        if not member.folder:
            self._files.add(member.name)
