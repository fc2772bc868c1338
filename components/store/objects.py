"""The interface of object storage, which several processes use at the same time.

A key is a relative path such as `digits/versions/000007/manifest.json`. All writes are atomic. `create` fails
if the key exists, and `replace` if the object changed since it was read.
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
    """An object in a listing, with its size in bytes and the time of its last change in epoch seconds.

    A write changes `generation` and `revision`; `touch` changes `revision`, in a folder also `generation`.
    """

    key: str
    size: int
    mtime: float
    generation: str
    revision: str


class Objects(Protocol):
    """The objects below a URL or path. Every method raises StoreError if the storage cannot be used."""

    url: str

    def read(self, key: str) -> tuple[bytes, str]:
        """Return the content and the generation of an object.

        Raises:
            NotFoundError: there is no such object.
        """

    def create(self, key: str, data: bytes) -> None:
        """Write a new object.

        Raises:
            ConflictError: the object exists.
        """

    def replace(self, key: str, data: bytes, generation: str) -> str:
        """Overwrite an object with this generation, from `read`; return the new generation.

        Raises:
            ConflictError: the object has another generation, or was deleted.
        """

    def upload(self, key: str, path: Path) -> None:
        """Write an object from a file; overwrite an existing object."""

    def create_from_file(self, key: str, file: IO[bytes], size: int) -> None:
        """Write a new object of `size` bytes from an open file.

        Raises:
            ConflictError: the object exists.
        """

    def touch(self, key: str) -> bool:
        """Set the time of the last change to now; return whether the object exists."""

    def delete(self, entry: Entry) -> bool:
        """Delete an object unless it changed since it was listed; return whether it no longer exists."""

    def download(self, key: str, path: Path, generation: str | None = None) -> None:
        """Write an object to a file in an existing folder.

        Raises:
            NotFoundError: there is no such object, or it does not have the generation of an Entry.
        """

    def find(self, key: str) -> Entry | None:
        """Return the object with this key, or None."""

    def keys(self, prefix: str) -> list[str]:
        """Return the keys below `prefix`, which ends with `/` or is empty, sorted."""

    def entries(self, prefix: str) -> list[Entry]:
        """Return the objects below `prefix`, sorted by key."""

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below `prefix`, sorted."""


def check_key(key: str) -> str:
    """Return `key`; raise StoreError if it is not relative, or has hidden parts or special characters."""
    parts = key.split("/")
    if any(not part or part.startswith(".") or "\\" in part or not part.isprintable() for part in parts):
        raise StoreError(
            f"{key!r} is not a valid file name in a store: it must be a relative path whose parts are not "
            "empty, do not start with a dot, and have no backslashes or unprintable characters. Rename the "
            "file and publish it again."
        )
    return key


def delete_all(objects: Objects, entries: Iterable[Entry]) -> bool:
    """Delete objects in parallel, except changed ones; return whether none exists any longer."""
    with ThreadPoolExecutor(CONNECTIONS) as workers:
        return all(list(workers.map(objects.delete, entries)))
