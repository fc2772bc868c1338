"""Named bytes that processes share: what modelyard needs of a storage.

A key is a relative path with `/` (`digits/versions/000007/manifest.json`). Two writes make everything else
safe: `create` fails when the key exists, and `replace` fails when the object is no longer the one that was
read. Both are atomic: a reader sees all of an object or nothing of it.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from modelyard.components.errors import StoreError

CONNECTIONS = 8


@dataclass(frozen=True)
class Entry:
    """An object as it was listed: its size in bytes, and when it was written or touched last (epoch seconds).

    `generation` is different once it was written again, `revision` also once it was touched.
    """

    key: str
    size: int
    changed: float
    generation: str
    revision: str


class Objects(Protocol):
    """A place with named bytes. Every method raises StoreError when the place cannot be used.

    Attributes:
        url: the place, as a person would write it.
    """

    url: str

    def read(self, key: str) -> tuple[bytes, str]:
        """Return the bytes at `key` and their generation, which `replace` takes.

        Raises:
            NotFoundError: there is no such object.
        """

    def create(self, key: str, data: bytes) -> None:
        """Write a new object.

        Raises:
            ConflictError: the object exists.
        """

    def replace(self, key: str, data: bytes, generation: str) -> str:
        """Write over the object that `read` saw as `generation`; return the new generation.

        Raises:
            ConflictError: somebody else wrote or removed the object meanwhile.
        """

    def upload(self, key: str, path: Path) -> None:
        """Write the file at `path`, over an older object if there is one."""

    def add(self, key: str, file: IO[bytes], size: int) -> None:
        """Write a new object of `size` bytes from an open file, a part at a time.

        Raises:
            ConflictError: the object exists.
        """

    def touch(self, key: str) -> bool:
        """Make an object count as written now, for `entries` and `delete`; say whether there is one."""

    def delete(self, seen: Entry) -> bool:
        """Delete an object unless it was written or touched since it was listed; say whether it is gone."""

    def download(self, key: str, path: Path, generation: str | None = None) -> None:
        """Write the object into a file at `path`, whose folder exists.

        Args:
            key: of the object.
            path: of the file.
            generation: that of its Entry, when only these bytes will do.

        Raises:
            NotFoundError: there is no such object, or it was written again.
        """

    def find(self, key: str) -> Entry | None:
        """Return the object with exactly this key, if there is one."""

    def keys(self, prefix: str) -> list[str]:
        """Return the keys below `prefix` (which ends with `/`, or is empty), in order."""

    def entries(self, prefix: str) -> list[Entry]:
        """Return the objects below `prefix`, in the order of their keys."""

    def folders(self, prefix: str) -> list[str]:
        """Return the names directly below `prefix` that have keys below them, in order."""


def check_key(key: str) -> str:
    """Return `key` when it cannot lead out of its store and is not hidden.

    Raises:
        StoreError: the key is absolute, or has an empty, hidden or `..` part.
    """
    parts = key.split("/")
    if any(not part or part.startswith(".") or "\\" in part or not part.isprintable() for part in parts):
        raise StoreError(
            f"{key!r} is not a name for an object in the model store: it must be a relative path, and no "
            "part of it may be empty or start with a dot. Rename the file and publish again."
        )
    return key


def delete_all(objects: Objects, entries: Iterable[Entry]) -> bool:
    """Delete objects in parallel; say whether all are gone, which those changed meanwhile are not."""
    with ThreadPoolExecutor(CONNECTIONS) as workers:
        return all(list(workers.map(objects.delete, entries)))
