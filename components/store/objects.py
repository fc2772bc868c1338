"""The interface of a storage: objects with keys, shared by processes.

A key is a relative path with `/` (`digits/versions/000007/manifest.json`). Two writes are conditional:
`create` fails when the key exists, and `replace` fails when the object changed since it was read. Both are
atomic: a reader sees a complete object or none.
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
    """An object in a listing: its size in bytes, and its last write or touch (`changed`, epoch seconds).

    A write changes `generation` and `revision`; a touch changes `revision` only.
    """

    key: str
    size: int
    changed: float
    generation: str
    revision: str


class Objects(Protocol):
    """The objects below a URL. Every method raises StoreError when the storage cannot be used.

    Attributes:
        url: the URL or path.
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
        """Overwrite the object if it still has `generation`, which `read` returned; return the new one.

        Raises:
            ConflictError: the object was written or deleted since.
        """

    def upload(self, key: str, path: Path) -> None:
        """Write the file at `path`; overwrite an existing object."""

    def add(self, key: str, file: IO[bytes], size: int) -> None:
        """Write a new object of `size` bytes from an open file, in parts.

        Raises:
            ConflictError: the object exists.
        """

    def touch(self, key: str) -> bool:
        """Set the time of the last change to now; return whether the object exists."""

    def delete(self, seen: Entry) -> bool:
        """Delete an object unless it changed since it was listed; return whether it is gone."""

    def download(self, key: str, path: Path, generation: str | None = None) -> None:
        """Write the object into a file at `path`, whose folder exists.

        Args:
            key: the object.
            path: the file.
            generation: the required generation, from its Entry; any when None.

        Raises:
            NotFoundError: there is no such object, or its generation is another.
        """

    def find(self, key: str) -> Entry | None:
        """Return the object with this key; None when there is none."""

    def keys(self, prefix: str) -> list[str]:
        """Return the keys below `prefix` (which ends with `/`, or is empty), in order."""

    def entries(self, prefix: str) -> list[Entry]:
        """Return the objects below `prefix`, in the order of their keys."""

    def folders(self, prefix: str) -> list[str]:
        """Return the names directly below `prefix` that have keys below them, in order."""


def check_key(key: str) -> str:
    """Return `key` after a check that it does not leave the store and is not hidden.

    Raises:
        StoreError: the key is absolute, or has an empty, hidden or `..` part.
    """
    parts = key.split("/")
    if any(not part or part.startswith(".") or "\\" in part or not part.isprintable() for part in parts):
        raise StoreError(
            f"{key!r} is not a valid key of the store: it must be a relative path whose parts are not empty "
            "and do not start with a dot. Rename the file and publish it again."
        )
    return key


def delete_all(objects: Objects, entries: Iterable[Entry]) -> bool:
    """Delete objects in parallel; return whether all are gone. Objects that changed meanwhile are not."""
    with ThreadPoolExecutor(CONNECTIONS) as workers:
        return all(list(workers.map(objects.delete, entries)))
