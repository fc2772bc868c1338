"""A source in object storage: an object, or all objects below a prefix as a folder.

Each object is read in the generation that was listed.
"""

import errno
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from modelyard.components import artifacts
from modelyard.components.errors import DataError, NotFoundError, StoreError
from modelyard.components.source.checks import check_sha256, check_size, safe_file_name
from modelyard.components.source.folder import is_ignored
from modelyard.components.source.settings import Source
from modelyard.components.store.objects import CONNECTIONS, Entry, Objects
from modelyard.components.store.storage import Connection, Storage, unusable_url

NAME_ERRORS = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
"""Errors for a file name that is not allowed or exists; some file systems ignore the case of names."""


class ObjectLocation:
    """An object or a prefix in a storage; raise ValueError if the URL is not valid for the storage.

    Requests are retried for `retry_seconds` seconds.
    """

    def __init__(self, storage: Storage, url: str, source: Source, retry_seconds: float = 30.0) -> None:
        self._storage, self._url, self._source, self._retry_seconds = storage, url, source, retry_seconds
        self._root, self._name = storage.split(url)

    def identity(self) -> str:
        if self._source.sha256:
            return self._source.sha256
        with self._translate_errors():
            if entry := self._find_object():
                return entry.generation
            lines = (f"{path}\0{entry.generation}\n" for path, entry in self._list_objects())
            return hashlib.sha256("".join(lines).encode()).hexdigest()

    def fetch(self, scratch: Path) -> Path:
        target = scratch / safe_file_name(self._url.rstrip("/"))
        with self._translate_errors():
            if entry := self._find_object():
                self._fetch_file(entry, target)
            else:
                self._fetch_folder(target)
        return target

    def _fetch_file(self, entry: Entry, target: Path) -> None:
        check_size(self._url, entry.size, self._source.max_bytes)
        partial = target.with_name(f"{target.name}.partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._objects.download(entry.key, partial, entry.generation)
            if self._source.sha256:
                check_sha256(self._url, artifacts.sha256(partial), self._source.sha256)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _fetch_folder(self, target: Path) -> None:
        if self._source.sha256:
            raise DataError(
                f"data.sha256 is for one file, but {self._url} has many. Remove data.sha256, or pack "
                "the files into an archive."
            )
        objects = self._list_objects()
        check_size(self._url, sum(entry.size for _, entry in objects), self._source.max_bytes)

        with artifacts.replace_folder(target) as folder, ThreadPoolExecutor(CONNECTIONS) as pool:

            def fetch_one(item: tuple[str, Entry]) -> None:
                name, entry = item
                path = folder / name
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch(exist_ok=False)
                except OSError as error:
                    if error.errno not in NAME_ERRORS:
                        raise
                    raise self._name_error(entry.key, error.strerror or str(error)) from error
                self._objects.download(entry.key, path, entry.generation)

            list(pool.map(fetch_one, objects))  # an error cancels the downloads that have not started

    def _find_object(self) -> Entry | None:
        """Return the object with exactly this name, if it exists and is not an empty folder marker."""
        if not self._name or self._name.endswith("/"):
            return None
        entry = self._objects.find(self._name)
        return None if entry and not entry.size and self._objects.entries(f"{self._name}/") else entry

    def _list_objects(self) -> list[tuple[str, Entry]]:
        """Return the objects below the name, in order, each with its relative path."""
        prefix = f"{self._name.rstrip('/')}/" if self._name else ""
        entries = self._objects.entries(prefix)
        if not entries:
            raise self._read_error("there is no such object or prefix (404). Correct data.source.")
        paths = ((self._relative_path(entry.key, prefix), entry) for entry in entries)
        return [(path, entry) for path, entry in paths if not any(map(is_ignored, path.split("/")))]

    def _relative_path(self, name: str, prefix: str) -> str:
        """Return the path of an object relative to the prefix, inside the target folder."""
        path = name.removeprefix(prefix)
        if any(part in ("", ".", "..") or "\0" in part for part in path.split("/")):
            raise self._name_error(name, "its name has an empty part, `.` or `..`")
        return path

    @cached_property
    def _objects(self) -> Objects:
        source = self._source
        timeouts = source.timeout, self._retry_seconds
        connection = Connection(source.endpoint, source.user_project, *timeouts, "data.source")
        try:
            return self._storage.open(self._root, connection)
        except ValueError as error:
            raise unusable_url(self._url, "data.source", str(error)) from error

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except NotFoundError as error:
            raise self._read_error(
                f"{error} The object was replaced or deleted during the download. Run again."
            ) from error
        except StoreError as error:
            raise DataError(str(error)) from error
        except OSError as error:
            raise self._read_error(f"{error}. Free disk space on this machine.") from error

    def _name_error(self, key: str, why: str) -> DataError:
        return self._read_error(f"the object {key!r} cannot be saved as a file ({why}). Rename the object.")

    def _read_error(self, reason: str) -> DataError:
        return DataError(f"Cannot read {self._url} (data.source): {reason}")
