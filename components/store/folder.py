"""Objects in a folder, for a laptop or a shared disk.

A write goes to a hidden file beside its place and is moved there when it is on the disk: by a hard link
for `create`, which fails when the name is taken, and by a rename otherwise. What a killed writer leaves
is hidden and never listed. The generation of an object is the SHA-256 of its bytes.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from modelyard.components.errors import ConflictError, NotFoundError, StoreError
from modelyard.components.store.objects import Entry, checked

PART_BYTES = 2**20


class Folder:
    """Objects below one folder, which is made by the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def read(self, key: str) -> tuple[bytes, str]:
        """See Objects."""
        with self._translate_errors("read", key):
            data = self._path(key).read_bytes()
        return data, _generation(data)

    def create(self, key: str, data: bytes) -> None:
        """See Objects."""
        path = self._path(key)
        with self._translate_errors("write", key), _hidden(path) as (hidden, file):
            file.write(data)
            _flush(file)
            _link(hidden, path)

    def replace(self, key: str, data: bytes, generation: str) -> str:
        """See Objects."""
        path = self._path(key)
        with self._translate_errors("write", key), self._locked(path), _hidden(path) as (hidden, file):
            if not path.is_file() or _generation(path.read_bytes()) != generation:
                raise ConflictError(f"{path} was changed by somebody else meanwhile.")
            file.write(data)
            _flush(file)
            hidden.replace(path)
            _flush_folder(path.parent)
        return _generation(data)

    def upload(self, key: str, path: Path) -> None:
        """See Objects."""
        target = self._path(key)
        with self._translate_errors("write", key), _hidden(target) as (hidden, file):
            with path.open("rb") as source:
                shutil.copyfileobj(source, file, PART_BYTES)
            _flush(file)
            hidden.replace(target)
            _flush_folder(target.parent)

    def add(self, key: str, file: IO[bytes], size: int) -> None:  # noqa: ARG002 - for buckets
        """See Objects."""
        target = self._path(key)
        with self._translate_errors("write", key), _hidden(target) as (hidden, written):
            shutil.copyfileobj(file, written, PART_BYTES)
            _flush(written)
            _link(hidden, target)

    def touch(self, key: str) -> bool:
        """See Objects."""
        with self._translate_errors("write", key):
            try:
                os.utime(self._path(key))
            except FileNotFoundError:
                return False
        return True

    def delete(self, seen: Entry) -> bool:
        """See Objects."""
        path = self._path(seen.key)
        hidden = path.with_name(f".{path.name}.{uuid4().hex}")
        with self._translate_errors("delete", seen.key):
            try:
                path.rename(hidden)  # looked at where nobody writes any more
            except FileNotFoundError:
                return True
            changed = str(hidden.stat().st_mtime_ns) != seen.generation
            if changed:
                with suppress(FileExistsError):
                    os.link(hidden, path)
            hidden.unlink()
            self._prune(path.parent)
        return not changed

    def download(self, key: str, path: Path) -> None:
        """See Objects."""
        with self._translate_errors("read", key):
            shutil.copyfile(self._path(key), path)

    def exists(self, key: str) -> bool:
        """See Objects."""
        with self._translate_errors("read", key):
            try:
                self._path(key).stat()
            except FileNotFoundError:
                return False
        return True

    def keys(self, prefix: str) -> list[str]:
        """See Objects."""
        keys = []
        with self._translate_errors("list", prefix):
            for folder, folders, files in os.walk(self._below(prefix), onerror=_raise_unless_missing):
                folders[:] = [name for name in folders if not name.startswith(".")]
                inside = Path(folder).relative_to(self.root)
                keys += [(inside / name).as_posix() for name in files if not name.startswith(".")]
        return sorted(keys)

    def entries(self, prefix: str) -> list[Entry]:
        """See Objects."""
        found = []
        with self._translate_errors("list", prefix):
            for key in self.keys(prefix):
                with suppress(FileNotFoundError):  # gone meanwhile
                    status = self._path(key).stat()
                    found.append(Entry(key, status.st_size, status.st_mtime, str(status.st_mtime_ns)))
        return found

    def folders(self, prefix: str) -> list[str]:
        """See Objects."""
        with self._translate_errors("list", prefix):
            try:
                entries = list(os.scandir(self._below(prefix)))
            except FileNotFoundError:
                return []
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))

    def _path(self, key: str) -> Path:
        return self.root / checked(key)

    def _below(self, prefix: str) -> Path:
        return self._path(prefix.removesuffix("/")) if prefix else self.root

    def _prune(self, folder: Path) -> None:
        """Remove the folders that are empty now, as a bucket has none; but not the root."""
        while folder != self.root:
            try:
                folder.rmdir()
            except OSError:  # something is in it
                return
            folder = folder.parent

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        with path.with_name(f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # given up by the kernel, however this process ends
            yield

    @contextmanager
    def _translate_errors(self, verb: str, key: str) -> Iterator[None]:
        """Turn what the system says into errors of the store."""
        try:
            yield
        except FileNotFoundError as error:
            if verb == "read":
                raise NotFoundError(f"The model store {self.url} has no {key}.") from error
            raise self._unusable(verb, key, error) from error
        except OSError as error:
            raise self._unusable(verb, key, error) from error

    def _unusable(self, verb: str, key: str, error: OSError) -> StoreError:
        return StoreError(
            f"Cannot {verb} {key or 'anything'} in the model store {self.url}: {error.strerror or error} "
            f"({error.filename}). Give this user permission to read and write there, make room, or set "
            "store.url to another folder."
        )


def _generation(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _link(hidden: Path, path: Path) -> None:
    """Give what is on the disk its name, unless something has it."""
    try:
        os.link(hidden, path)
    except FileExistsError as error:
        raise ConflictError(f"{path} exists already.") from error
    _flush_folder(path.parent)


@contextmanager
def _hidden(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Give a new hidden file beside `path`, with the permissions that the umask says; remove its name."""
    hidden = path.with_name(f".{path.name}.{uuid4().hex}")
    with _opened(hidden) as file:
        try:
            yield hidden, file
        finally:
            hidden.unlink(missing_ok=True)


def _opened(path: Path) -> IO[bytes]:
    """Make a file in a folder that is made for it, and again if somebody finds that folder empty."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            return path.open("xb")


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
