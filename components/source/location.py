"""The place that a source names: on this machine, or in a storage.

place = locate(source)
place.identity()        # looks at it, and fetches nothing
place.fetch(scratch)    # the file or directory, on this machine
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
from modelyard.components.store.storage import Location, find_storage, is_path, unusable

HASHED_BYTES = 256 * 2**20
"""A file up to this size is identified by its content: a copy or a touched file is the same data."""


def locate(source: Source) -> Location:
    """Return the place that `source.source` names; a relative path starts at the working directory.

    What scikit-learn ships is found without importing it.

    Raises:
        ConfigError: the address is of another kind, or incomplete.
        DataError: scikit-learn is not installed.
    """
    if bundled := KINDS[source.kind].bundled_files:
        return BundledLocation(source.kind, bundled)
    url = source.source or ""
    display_url = repr(url) if is_path(url) else redact_url(url)
    storage = find_storage(url, "data.source", display_url)
    if source.endpoint and not re.match("https?://", source.endpoint):
        raise ConfigError(f"data.endpoint is {source.endpoint!r}: give it with its scheme, http://host:port.")
    try:
        if path := storage.path(url):
            return DiskLocation(path, source.sha256)
        return storage.location(url, source) or ObjectLocation(storage, url, source)
    except ValueError as error:
        raise unusable(display_url, "data.source", str(error)) from None  # it may show a secret


class BundledLocation:
    """See Location.

    Args:
        kind: what it is called in an error.
        names: files of scikit-learn's data folder; `fetch` returns the folder.
    """

    def __init__(self, kind: str, names: tuple[str, ...]) -> None:
        try:
            package = metadata.distribution("scikit-learn")
        except metadata.PackageNotFoundError as error:
            raise DataError(f"{kind} ships with scikit-learn, which is not installed: install it.") from error
        self._folder = Path(str(package.locate_file("sklearn/datasets/data")))
        self._names = names

    def identity(self) -> str:
        """See Location."""
        identities = [DiskLocation(self._folder / name).identity() for name in self._names]
        return (
            identities[0]
            if len(identities) == 1
            else hashlib.sha256("\n".join(identities).encode()).hexdigest()
        )

    def fetch(self, scratch: Path) -> Path:
        """See Location."""
        for name in self._names:
            DiskLocation(self._folder / name).fetch(scratch)
        return self._folder


class DiskLocation:
    """See Location.

    Args:
        path: the file or directory.
        sha256: what the file must have; None when it is not known.
    """

    def __init__(self, path: Path, sha256: str | None = None) -> None:
        self._path = path
        self._sha256 = sha256

    def identity(self) -> str:
        """See Location."""
        with self._translate_errors():
            status = self._status()
            if stat.S_ISDIR(status.st_mode):
                return _hash_listing(self._path)
            if self._sha256:
                return self._sha256
            if status.st_size > HASHED_BYTES:
                return f"{status.st_size} {status.st_mtime_ns}"
            return artifacts.sha256(self._path)

    def fetch(self, scratch: Path) -> Path:  # noqa: ARG002 - it is here already
        """See Location."""
        with self._translate_errors():
            self._status()
            if self._sha256:
                check_sha256(str(self._path), artifacts.sha256(self._path), self._sha256)
        return self._path

    def _status(self) -> os.stat_result:
        """Return what the system knows about the path, when it is something that can be read."""
        status = self._path.stat()
        if stat.S_ISDIR(status.st_mode):
            if self._sha256:
                raise DataError(
                    f"data.sha256 is for one file and {self._path} is a directory: remove data.sha256, or "
                    "make an archive of the directory."
                )
        elif not stat.S_ISREG(status.st_mode):
            raise self._unusable("it is neither a file nor a directory. Correct data.source.")
        return status

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Turn what the system says into errors about the data."""
        try:
            yield
        except FileNotFoundError as error:
            raise self._unusable(f"there is no {error.filename}. Correct data.source.") from error
        except OSError as error:
            raise self._unusable(
                f"{error.strerror or error} ({error.filename}). Correct data.source, or let this user "
                "read it."
            ) from error

    def _unusable(self, why: str) -> DataError:
        return DataError(f"Cannot read {self._path} (data.source): {why}")


def _hash_listing(root: Path) -> str:
    """Return one SHA-256 over what ingest reads of a directory: names, and the files' sizes and times."""
    digest = hashlib.sha256()
    for name, status in walk(root):
        version = "" if stat.S_ISDIR(status.st_mode) else f"\0{status.st_size} {status.st_mtime_ns}"
        digest.update(os.fsencode(f"{name}{version}\n"))
    return digest.hexdigest()
