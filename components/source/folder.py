"""The files in a folder, as fingerprint identifies them and ingest reads them."""

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
"""Names of files and folders that operating systems create, in lower case."""


def is_ignored(name: str) -> bool:
    """Return whether a file or folder is hidden or a system file: neither is data."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES or name.endswith("_$folder$")  # Hadoop


def walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the relative path, with `/`, and the stat result of each file and folder below a folder.

    Links are followed, also to folders; a broken link has the stat result of the link. The entries of a
    folder come first, sorted by name, then the entries of its folders.

    Raises:
        DataError: a link leads to a parent folder, or there are more than MAX_ENTRIES entries.
    """
    status = os.stat(root)  # noqa: PTH116 - os functions are faster for 10^5 files
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ((status.st_dev, status.st_ino),))]
    count = 0
    while pending:
        path, ancestors = pending.pop()
        folders = []
        with os.scandir(os.path.join(root, path)) as scan:  # noqa: PTH118
            entries = [entry for entry in scan if not is_ignored(entry.name)]
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = f"{path}/{entry.name}" if path else entry.name
            try:
                status = entry.stat()
            except OSError:
                status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                identity = (status.st_dev, status.st_ino)
                if identity in ancestors:
                    raise DataError(
                        f"{name!r} in {root} is a link to one of its parent folders. Remove the link."
                    )
                folders.append((name, (*ancestors, identity)))
            count += 1
            if count > MAX_ENTRIES:
                raise DataError(
                    f"{root} has more than {MAX_ENTRIES:,} entries, the maximum. Split the dataset, or "
                    "convert it to npz."
                )
            yield name, status
        pending.extend(reversed(folders))
