"""The files in a directory, a .zip or a .tar.gz, one after the other, read where they are.

    for member in members(Path("flowers.tar.gz"), max_bytes):
        with member.open() as file: ...

Nothing is unpacked, so nothing can be written where it does not belong. Names that lead elsewhere, links in
archives, devices, duplicates, encryption and bombs are refused, as a harmless source has none of them. In a
folder, links are followed. Hidden files, and what systems leave in folders, are left out.
"""

import gzip
import lzma
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast
from zipfile import ZipFile, ZipInfo

from modelyard.components.errors import DataError
from modelyard.components.source.checks import check_size
from modelyard.components.source.folder import MAX_ENTRIES, is_ignored, walk

MAX_FILE_BYTES = 64 * 2**20
MAX_READ = 64 * 2**20
CHUNK = 2**20
ENCRYPTED, UTF8 = 1, 1 << 11  # flags of a member of a zip
UNICODE_PATH = 0x7075  # an extra field of a member of a zip
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# What the readers of archives raise for damaged bytes. zipfile raises NotImplementedError for a compression
# method that it does not know. The last three were found by fuzzing.
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
        except (FileNotFoundError, PermissionError) as error:
            raise self.error(f"cannot be opened ({error.strerror}). Correct or remove it.") from error
        except DAMAGE as error:
            raise self.error(f"is damaged or cut off ({error}). Get it again.") from error

    def content(self) -> bytes:
        """Return the whole file.

        Raises:
            DataError: it is damaged, or larger than any file that is read as a whole.
        """
        if self.size > MAX_FILE_BYTES:
            raise self.error(
                f"has {self.size:,} bytes, and at most {MAX_FILE_BYTES:,} are read. Make it smaller, or "
                "remove it."
            )
        with self.open() as file:
            return file.read(self.size)

    def error(self, why: str) -> DataError:
        """Return the error that says why it cannot be used, and what to do."""
        return DataError(f"{self.name!r} in {self.source} {why}")

    def special_file_error(self) -> DataError:
        """Return the error for what is neither a file nor a folder."""
        return self.error("is a link, a device or another special file. Put a plain file there.")


def inside(source: Path, name: str) -> str:
    """Return a member's name with `/` between its parts, in Unicode's form NFC: macOS writes names in NFD.

    Raises:
        DataError: the name leads out of the source, or cannot be shown.
    """
    parts = re.split(r"[/\\]", name)
    if not parts[0] or ".." in parts or re.match("[A-Za-z]:", name):
        raise DataError(
            f"{source} has a member named {name!a}, which leads out of it. Do not use it, or pack it again."
        )
    if CONTROL.search(name.removesuffix("Icon\r")):  # what macOS calls a folder's icon, which is left out
        raise DataError(f"{source} has a member named {name!a}, with control characters. Rename it.")
    return unicodedata.normalize("NFC", "/".join(part for part in parts if part not in ("", ".")))


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
            if member.name and not any(map(is_ignored, member.name.split("/"))):
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
    names = Names(source)
    for raw, status in walk(source):
        name, folder = inside(source, raw), stat.S_ISDIR(status.st_mode)
        opener = None if folder else partial(_open, source / raw)
        member = Member(source, name, 0 if folder else status.st_size, opener)
        if not (folder or stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            raise member.special_file_error()
        names.add(member)
        yield member


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


class Names:
    """The names in a source, which must be different and not too many."""

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
        if self._count > MAX_ENTRIES:
            raise DataError(
                f"{self._source} has more than {MAX_ENTRIES:,} entries, which is more than is read. Split "
                "the dataset, or give it as npz."
            )
        if member.name in self._files:
            raise member.error("is there twice. Keep one of them.")
        if not member.folder:
            self._files.add(member.name)


def zip_members(archive: ZipFile, source: Path, max_bytes: int) -> Iterator[Member]:
    """Yield the members, which can be read as long as the archive is open.

    Their sizes are believed here: what has more bytes than it says is damaged for the reader of zipfile.

    Raises:
        DataError: see `members`.
    """
    names = Names(source)
    total = 0
    for entry in archive.infolist():
        total += entry.file_size
        check_size(f"{source}, unpacked,", total, max_bytes)
        name = _zip_name(entry)
        folder = name.endswith(("/", "\\"))
        opener = None if folder else partial(archive.open, entry)
        member = Member(source, inside(source, name), entry.file_size, opener)
        if entry.flag_bits & ENCRYPTED:
            raise member.error("is encrypted. Make the archive without a password.")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise member.special_file_error()
        names.add(member)
        yield member


def _zip_name(entry: ZipInfo) -> str:
    """Return the name of a member.

    Without the flag for UTF-8, zipfile takes it for code page 437. Info-ZIP writes UTF-8 anyway on
    Linux and macOS, so bytes that are valid UTF-8 are UTF-8; on Windows it writes an extra field.
    """
    if entry.flag_bits & UTF8:
        return entry.filename
    raw, extra = entry.orig_filename.encode("cp437"), entry.extra
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        # APPNOTE.TXT 4.6.9: version, CRC of the name that it replaces, name
        if kind == UNICODE_PATH and field[:5] == struct.pack("<BL", 1, zlib.crc32(raw)):
            return field[5:].decode()
    with suppress(UnicodeError):
        return entry.filename.encode("cp437").decode()
    return entry.filename


def tar_members(source: Path, max_bytes: int) -> Iterator[Member]:
    """Yield the members, each of which can be read until the next is asked for.

    Raises:
        DataError: see `members`.
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
                raise member.special_file_error()
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
