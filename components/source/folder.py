"""The files in a folder: the same for fingerprint, which identifies them, and ingest, which reads them."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from modelyard.components.errors import DataError

MAX_ENTRIES = 2_000_000
SYSTEM_FILES = {
    *("__macosx", "icon\r"),  # macOS
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),  # Windows
    *("lost+found", "@eadir"),  # file systems, Synology
}
"""What systems leave in folders, in lower case."""


def is_ignored(name: str) -> bool:
    """Say whether a file or folder is hidden, or one that systems leave behind: neither is data."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES or name.endswith("_$folder$")  # Hadoop


def walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield everything below a folder: its path there, with `/`, and what the system knows about it.

    Links are followed, also to folders; of a link to nothing, it is what the system knows about the link. Of
    each folder the files come first, in the order of their names, then what is in its folders.

    Raises:
        DataError: a link leads back to a folder around it, or there are more than MAX_ENTRIES entries.
        OSError: a folder cannot be read.
    """
    status = os.stat(root)  # noqa: PTH116 - here and below: of 10^5 files
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ((status.st_dev, status.st_ino),))]
    count = 0
    while pending:
        path, ancestors = pending.pop()
        folders = []
        with os.scandir(os.path.join(root, path)) as scan:  # noqa: PTH118
            entries = sorted(
                (entry for entry in scan if not is_ignored(entry.name)), key=lambda one: one.name
            )
        for entry in entries:
            name = f"{path}/{entry.name}" if path else entry.name
            try:
                status = entry.stat()
            except OSError:
                status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                identity = (status.st_dev, status.st_ino)
                if identity in ancestors:
                    raise DataError(
                        f"{name!r} in {root} is a link to a folder around it, so there is no end. Remove it."
                    )
                folders.append((name, (*ancestors, identity)))
            count += 1
            if count > MAX_ENTRIES:
                raise DataError(
                    f"{root} has more than {MAX_ENTRIES:,} entries, which is more than is read. Split the "
                    "dataset, or give it as npz."
                )
            yield name, status
        pending.extend(reversed(folders))
