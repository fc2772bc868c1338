"""The location of a source: on this machine, or in a storage.

location = locate(source)
location.identity()        # inspects the source, downloads nothing
location.fetch(scratch)    # returns the local file or folder
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from modelyard.components import artifacts
from modelyard.components.errors import ConfigError, DataError
from modelyard.components.source.checks import check_sha256, redact_url
from modelyard.components.source.folder import walk
from modelyard.components.source.objects import ObjectLocation
from modelyard.components.source.settings import KINDS, Source
from modelyard.components.store.storage import Location, find_storage, is_path, unusable_url

HASHED_BYTES = 256 * 2**20
"""Larger files are identified by size and modification time, others by their content."""


def locate(source: Source) -> Location:
    """Return the location of a source; a relative path is relative to the working directory.

    Raises:
        ConfigError: the URL has an unknown scheme, or is incomplete.
        DataError: the source ships with scikit-learn, which is not installed.
    """
    if files := KINDS[source.kind].bundled_files:
        return BundledLocation(source.kind, files)
    url = source.source or ""
    display_url = repr(url) if is_path(url) else redact_url(url)
    storage = find_storage(url, "data.source", display_url)
    if source.endpoint and not re.match("https?://", source.endpoint):
        raise ConfigError(f"data.endpoint is {source.endpoint!r}: add the scheme, http://host:port.")
    try:
        if path := storage.path(url):
            return DiskLocation(path, source.sha256)
        return storage.location(url, source) or ObjectLocation(storage, url, source)
    except ValueError as error:
        raise unusable_url(display_url, "data.source", str(error)) from None  # the cause may contain a secret


class BundledLocation:
    """Files in scikit-learn's data folder; `fetch` returns the folder. `kind` is for error messages."""

    def __init__(self, kind: str, names: tuple[str, ...]) -> None:
        try:
            package = metadata.distribution("scikit-learn")
        except metadata.PackageNotFoundError as error:
            raise DataError(
                f"{kind} ships with scikit-learn, which is not installed. Install scikit-learn."
            ) from error
        self._folder = Path(str(package.locate_file("sklearn/datasets/data")))
        self._names = names

    def identity(self) -> str:
        first, *others = [DiskLocation(self._folder / name).identity() for name in self._names]
        return hashlib.sha256("\n".join([first, *others]).encode()).hexdigest() if others else first

    def fetch(self, scratch: Path) -> Path:
        for name in self._names:
            DiskLocation(self._folder / name).fetch(scratch)
        return self._folder


class DiskLocation:
    """A file or folder on this machine. `sha256` is the expected SHA-256 of the file, if known."""

    def __init__(self, path: Path, sha256: str | None = None) -> None:
        self._path = path
        self._sha256 = sha256

    def identity(self) -> str:
        with self._translate_errors():
            status = self._status()
            if stat.S_ISDIR(status.st_mode):
                return _hash_listing(self._path)
            if self._sha256:
                return self._sha256
            if status.st_size > HASHED_BYTES:
                return f"{status.st_size} {status.st_mtime_ns}"
            return artifacts.sha256(self._path)

    def fetch(self, scratch: Path) -> Path:  # noqa: ARG002 - the data is local
        with self._translate_errors():
            self._status()
            if self._sha256:
                check_sha256(str(self._path), artifacts.sha256(self._path), self._sha256)
        return self._path

    def _status(self) -> os.stat_result:
        """Return the stat result; raise DataError for a special file, or a folder with data.sha256."""
        status = self._path.stat()
        if stat.S_ISDIR(status.st_mode):
            if self._sha256:
                raise DataError(
                    f"data.sha256 is for one file, but {self._path} is a folder. Remove data.sha256, or "
                    "pack the folder into an archive."
                )
        elif not stat.S_ISREG(status.st_mode):
            raise self._read_error("it is neither a file nor a folder. Correct data.source.")
        return status

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            missing = "it" if error.filename == str(self._path) else error.filename
            raise self._read_error(f"{missing} does not exist. Correct data.source.") from error
        except OSError as error:
            raise self._read_error(
                f"{error.strerror or error} ({error.filename}). Correct data.source, or give this user "
                "read permission."
            ) from error

    def _read_error(self, reason: str) -> DataError:
        return DataError(f"Cannot read {self._path} (data.source): {reason}")


def _hash_listing(root: Path) -> str:
    """Return the SHA-256 of the listing of a folder: names, and sizes and modification times of files."""
    digest = hashlib.sha256()
    for name, status in walk(root):
        version = "" if stat.S_ISDIR(status.st_mode) else f"\0{status.st_size} {status.st_mtime_ns}"
        digest.update(os.fsencode(f"{name}{version}\n"))
    return digest.hexdigest()
