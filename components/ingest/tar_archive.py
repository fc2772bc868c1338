"""The members of a .tar.gz, one after the other."""

import gzip
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, cast

from modelyard.components.errors import DataError
from modelyard.components.ingest.member import Member, Names, inside
from modelyard.components.source.checks import check_size

MAX_READ = 64 * 2**20
CHUNK = 2**20


def tar_members(source: Path, max_bytes: int) -> Iterator[Member]:
    """Yield the members, each of which can be read until the next is asked for.

    Raises:
        DataError: see `members.members`.
    """
    names = Names(source)
    with gzip.open(source) as file:
        stream = Unpacked(file, source, max_bytes)
        archive = tarfile.TarFile(fileobj=cast(IO[bytes], stream))
        while (entry := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # or tarfile remembers every entry
            opener = None if entry.isdir() else partial(_extract, archive, entry)
            member = Member(source, inside(source, entry.name), entry.size, opener)
            if not (entry.isdir() or entry.isreg()) or entry.issparse():
                raise member.special()
            check_size(f"{source}, unpacked,", stream.tell() + entry.size, max_bytes)
            names.add(member)
            yield member
        stream.finish()


def _extract(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    return cast(IO[bytes], archive.extractfile(entry))  # None only for folders


class Unpacked:
    """The bytes of the .tar in a .tar.gz, for tarfile: forward only, and no further than `max_bytes`.

    A forged header can make tarfile read gigabytes at once, skip behind any end, or go back for ever.

    Args:
        file: the open .tar.gz.
        source: its path, for messages.
        max_bytes: most bytes that it may have.
    """

    def __init__(self, file: gzip.GzipFile, source: Path, max_bytes: int) -> None:
        self._file = file
        self._source = source
        self._max_bytes = max_bytes

    def tell(self) -> int:
        """Return the number of bytes before the next one."""
        return self._file.tell()

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, less only at the end.

        Raises:
            DataError: there are more than `max_bytes`, or no honest archive leads to such a `size`.
        """
        if not 0 <= size <= MAX_READ:
            raise self._damaged("is forged or damaged")
        data = self._file.read(size)
        check_size(f"{self._source}, unpacked,", self.tell(), self._max_bytes)
        return data

    def seek(self, offset: int) -> int:
        """Skip to `offset`, which lies ahead; see `read`."""
        if offset < self.tell():
            raise self._damaged("is forged or damaged")
        check_size(f"{self._source}, unpacked,", offset, self._max_bytes)
        return self._file.seek(offset)

    def finish(self) -> None:
        """Read to the end, where the checksum is; tarfile takes a damaged header for the archive's end.

        Raises:
            DataError: see `read`; or there is something else than padding.
        """
        while rest := self.read(CHUNK):
            if rest.strip(b"\0"):
                raise self._damaged("is no file")

    def _damaged(self, what: str) -> DataError:
        return DataError(
            f"{self._source} is damaged: what is near byte {self.tell():,} of its content {what}. Get it "
            "again."
        )
