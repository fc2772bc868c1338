"""The files in a folder, a .zip or a .tar.gz, read one after the other without unpacking.

    for member in iterate_members(Path("flowers.tar.gz"), max_bytes):
        with member.open() as file: ...

Nothing is written, so an archive cannot write outside of its folder. Errors are: names that lead outside of
the source, links in archives, devices, duplicate names, encrypted files and archive bombs. Links in a folder
are followed. Hidden files and system files are ignored.
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

from modelyard.components.errors import EXHAUSTION_ERRNOS, DataError
from modelyard.components.source.checks import check_size
from modelyard.components.source.folder import MAX_ENTRIES, is_ignored, walk

MAX_FILE_BYTES = 64 * 2**20
MAX_READ_BYTES = 64 * 2**20
CHUNK_BYTES = 2**20
ENCRYPTED, UTF8 = 1, 1 << 11  # flags of a zip member
UNICODE_PATH = 0x7075  # an extra field of a zip member
CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# The errors of zipfile, tarfile and gzip for damaged bytes. zipfile raises NotImplementedError for an unknown
# compression method. Fuzzing found the last three.
DAMAGE_ERRORS = (
    *(OSError, EOFError, NotImplementedError, zlib.error, lzma.LZMAError),
    *(tarfile.TarError, zipfile.BadZipFile),
    *(ValueError, OverflowError, struct.error),
)

Opener = Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Member:
    """A file or a folder in a source.

    `name` is its path in the source, with `/`; `opener` is None for a folder. A file of a .tar.gz is readable
    until the iterator advances.
    """

    source: Path
    name: str
    size: int
    opener: Opener | None

    @property
    def is_folder(self) -> bool:
        """Whether the member is a folder."""
        return self.opener is None

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the file for reading; raise DataError if it cannot be read, also within the block."""
        if self.opener is None:
            raise IsADirectoryError(self.name)
        try:
            with self.opener() as file:
                yield file
        except (FileNotFoundError, PermissionError) as error:
            raise self.error(f"cannot be opened ({error.strerror}). Correct or remove it.") from error
        except DAMAGE_ERRORS as error:
            if isinstance(error, OSError) and error.errno in EXHAUSTION_ERRNOS:  # where the block writes to
                raise
            raise self.error(f"is damaged or truncated ({error}). Download it again.") from error

    def content(self) -> bytes:
        """Return the content of the file, which has at most MAX_FILE_BYTES."""
        if self.size > MAX_FILE_BYTES:
            raise self.error(
                f"has {self.size:,} bytes, but the maximum is {MAX_FILE_BYTES:,}. Make it smaller, or "
                "remove it."
            )
        with self.open() as file:
            return file.read(self.size)

    def error(self, reason: str) -> DataError:
        """Return the error for an unusable member; `reason` ends with the remedy."""
        return DataError(f"{self.name!r} in {self.source} {reason}")

    def special_file_error(self) -> DataError:
        """Return the error for a member that is neither a file nor a folder."""
        return self.error("is a link, a device or another special file. Replace it with a regular file.")


def normalize_name(source: Path, name: str) -> str:
    """Return the name of a member with `/` between its parts, in Unicode form NFC; macOS writes NFD.

    Raises:
        DataError: the name is outside of the source, is not UTF-8, or has control characters.
    """
    parts = re.split(r"[/\\]", name)
    if not parts[0] or ".." in parts or re.match("[A-Za-z]:", name):
        raise DataError(
            f"{source} has a member named {name!a}, which is outside of the source. Rename it, or "
            "create the archive again."
        )
    plain_name = name.removesuffix("Icon\r")  # the icon of a folder on macOS, which is ignored
    if match := CONTROL_CHARACTERS.search(plain_name):
        reason = "which is not UTF-8" if "\ud800" <= match[0] <= "\udfff" else "with control characters"
        raise DataError(f"{source} has a member named {name!a}, {reason}. Rename it.")
    return unicodedata.normalize("NFC", "/".join(part for part in parts if part not in ("", ".")))


def iterate_members(source: Path, max_bytes: int) -> Iterator[Member]:
    """Yield the members of a folder, sorted by name, or of an archive, in its order.

    Args:
        source: folder, .zip or .tar.gz; the first bytes identify an archive.
        max_bytes: maximum size of an unpacked archive.

    Raises:
        DataError: the source is something else, is damaged, or has an invalid member.
    """
    position = ""
    try:
        for member in _iterate_members(source, max_bytes):
            if member.name and not any(map(is_ignored, member.name.split("/"))):
                yield member
            position = f" after {member.name!r}"
    except DAMAGE_ERRORS as error:
        raise DataError(
            f"{source} is damaged or truncated{position} ({error}). Download it again."
        ) from error


def _iterate_members(source: Path, max_bytes: int) -> Iterator[Member]:
    if source.is_dir():
        yield from _iterate_folder(source)
        return
    with source.open("rb") as file:
        magic = file.read(4)
    if magic.startswith(b"PK"):
        with ZipFile(source) as archive:
            yield from iterate_zip(archive, source, max_bytes)
    elif magic.startswith(b"\x1f\x8b"):
        yield from _iterate_tar(source, max_bytes)
    else:
        raise DataError(
            f"{source} is neither a folder nor a .zip nor a .tar.gz: it begins with the bytes "
            f"{magic.hex(' ')}. Set data.source to one of these."
        )


def _iterate_folder(source: Path) -> Iterator[Member]:
    names = UniqueNames(source)
    for raw_name, status in walk(source):
        name, is_folder = normalize_name(source, raw_name), stat.S_ISDIR(status.st_mode)
        opener = None if is_folder else cast(Opener, partial((source / raw_name).open, "rb"))
        member = Member(source, name, 0 if is_folder else status.st_size, opener)
        if not (is_folder or stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            raise member.special_file_error()
        names.add(member)
        yield member


class UniqueNames:
    """Checks that the names in a source are unique, and limits their number."""

    def __init__(self, source: Path) -> None:
        self._source, self._count = source, 0
        self._files: set[str] = set()

    def add(self, member: Member) -> None:
        """Add the name of a member; raise DataError for a duplicate and for too many names."""
        self._count += 1
        if self._count > MAX_ENTRIES:
            raise DataError(
                f"{self._source} has more than {MAX_ENTRIES:,} entries, the maximum. Split the dataset, or "
                "convert it to npz."
            )
        if member.name in self._files:
            raise member.error("exists twice. Remove one of them.")
        if not member.is_folder:
            self._files.add(member.name)


def iterate_zip(archive: ZipFile, source: Path, max_bytes: int) -> Iterator[Member]:
    """Yield the members, which are readable while the archive is open; see `iterate_members`.

    The declared sizes are trusted, because zipfile fails for a member with more bytes than declared.
    """
    names, total = UniqueNames(source), 0
    for entry in archive.infolist():
        total += entry.file_size
        check_size(f"{source}, unpacked,", total, max_bytes)
        name = _decode_zip_name(entry)
        is_folder = name.endswith(("/", "\\"))
        opener = None if is_folder else partial(archive.open, entry)
        member = Member(source, normalize_name(source, name), entry.file_size, opener)
        if entry.flag_bits & ENCRYPTED:
            raise member.error("is encrypted. Create the archive without a password.")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise member.special_file_error()
        names.add(member)
        yield member


def _decode_zip_name(entry: ZipInfo) -> str:
    """Return the name of a member.

    Without the UTF-8 flag, zipfile decodes it as code page 437. Info-ZIP writes UTF-8 without the flag on
    Linux and macOS, so valid UTF-8 is decoded as UTF-8; on Windows it writes an extra field.
    """
    if entry.flag_bits & UTF8:
        return entry.filename
    raw_name, extra = entry.orig_filename.encode("cp437"), entry.extra
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        # APPNOTE.TXT 4.6.9: version, CRC of the replaced name, name
        if kind == UNICODE_PATH and field[:5] == struct.pack("<BL", 1, zlib.crc32(raw_name)):
            return field[5:].decode()
    with suppress(UnicodeError):
        return entry.filename.encode("cp437").decode()
    return entry.filename


def _iterate_tar(source: Path, max_bytes: int) -> Iterator[Member]:
    """Yield the members, each of which is readable until the iterator advances; see `iterate_members`."""
    names = UniqueNames(source)
    with gzip.open(source) as file:
        stream = BoundedTarStream(file, source, max_bytes)
        archive = tarfile.TarFile(fileobj=cast(IO[bytes], stream))
        while (entry := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # else tarfile keeps every entry in memory
            opener = None if entry.isdir() else cast(Opener, partial(archive.extractfile, entry))
            member = Member(source, normalize_name(source, entry.name), entry.size, opener)
            if not (entry.isdir() or entry.isreg()) or entry.issparse():
                raise member.special_file_error()
            check_size(f"{source}, unpacked,", stream.tell() + entry.size, max_bytes)
            names.add(member)
            yield member
        stream.finish()


class BoundedTarStream:
    """The bytes of the .tar in a .tar.gz, for tarfile: forward only, and at most `max_bytes`.

    A forged header can make tarfile read gigabytes at once, seek beyond the end, or seek back forever: these
    are errors. `source` is the path of the archive.
    """

    def __init__(self, file: gzip.GzipFile, source: Path, max_bytes: int) -> None:
        self._file, self._source, self._max_bytes = file, source, max_bytes

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, or fewer at the end."""
        if not 0 <= size <= MAX_READ_BYTES:
            raise self._damage_error("the entry is forged or damaged")
        data = self._file.read(size)
        check_size(f"{self._source}, unpacked,", self.tell(), self._max_bytes)
        return data

    def seek(self, offset: int) -> int:
        """Seek forward to `offset`."""
        if offset < self.tell():
            raise self._damage_error("the entry is forged or damaged")
        check_size(f"{self._source}, unpacked,", offset, self._max_bytes)
        return self._file.seek(offset)

    def finish(self) -> None:
        """Read to the end to verify the checksum; tarfile takes a damaged header for the end."""
        while rest := self.read(CHUNK_BYTES):
            if rest.strip(b"\0"):
                raise self._damage_error("the data is not a member of the archive")

    def _damage_error(self, reason: str) -> DataError:
        return DataError(
            f"{self._source} is damaged: near byte {self.tell():,} of its content, {reason}. Download it "
            "again."
        )
