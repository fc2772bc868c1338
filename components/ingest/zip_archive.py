"""The members of a .zip, at any of which one can look at any time."""

import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from zipfile import ZipFile

from modelyard.components.ingest.member import Member, Names, inside
from modelyard.components.source.checks import check_size

ENCRYPTED = 1


def zip_members(archive: ZipFile, source: Path, max_bytes: int) -> Iterator[Member]:
    """Yield the members, which can be read as long as the archive is open.

    Their sizes are believed here: what has more bytes than it says is damaged for the reader of zipfile.

    Raises:
        DataError: see `members.members`.
    """
    names = Names(source)
    total = 0
    for entry in archive.infolist():
        total += entry.file_size
        check_size(f"{source}, unpacked,", total, max_bytes)
        folder = entry.filename.endswith(("/", "\\"))
        opener = None if folder else partial(archive.open, entry)
        member = Member(source, inside(source, entry.filename), entry.file_size, opener)
        if entry.flag_bits & ENCRYPTED:
            raise member.refused("is encrypted. Make the archive without a password.")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise member.special()
        names.add(member)
        yield member
