"""Objects in a folder, for a laptop or a shared disk.

Each file is written in the hidden folder `.partial`, flushed, and then moved: by a hard link for `create`,
which fails if the name exists, otherwise by a rename. On a file system without hard links, `create` takes the
lock of `replace` and renames. Partial files of killed processes are never listed; the first write after a day
deletes them. The generation that `read` returns is the SHA-256 of the content.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO
from urllib.parse import unquote
from uuid import uuid4

from modelyard.components import lifeline
from modelyard.components.errors import (
    ConflictError,
    NotFoundError,
    StoreError,
    describe_unusable_path,
    find_machine_error,
)
from modelyard.components.store.objects import Entry, Objects, check_key
from modelyard.components.store.storage import Connection, Setting, Storage, is_path

PART_BYTES = 2**20
PARTIAL = ".partial"
MOUNTS = Path("/proc/self/mountinfo")
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3")
LOCAL_LOCK_OPTIONS = ("nolock", "local_lock=all", "local_lock=flock", "nobrl")
NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV)
NO_FOLDER_FLUSH = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)
ABANDONED_SECONDS = 86400.0  # age of a partial file after which its process counts as killed


class LocalDisk(Storage):
    """The storage of paths and of file://."""

    form = "file:///path"

    def open(self, url: str, connection: Connection) -> "Folder":
        return Folder(self.path(url), connection.setting)

    def split(self, url: str) -> tuple[str, str]:
        path = self.path(url)
        return str(path.parent), path.name

    def path(self, url: str) -> Path:
        if is_path(url):
            try:
                folder = Path(url).expanduser().absolute()
            except RuntimeError as error:
                raise ValueError("whose user has no home directory on this machine") from error
        else:
            host, _, path = url.partition("://")[2].partition("/")
            if host not in ("", "localhost") or not path:
                raise ValueError("which is not a path of this machine")
            folder = Path("/", unquote(path, errors="surrogateescape"))
        if reason := describe_unusable_path(folder):
            raise ValueError(f"which {reason}")
        return folder

    def unreachable_from_pods(self, url: str) -> str:  # noqa: ARG002
        return "a path of this machine"


class Folder(Objects):
    """The objects below a folder, which the first write creates."""

    def __init__(self, root: Path, setting: Setting = "store.url") -> None:
        self.root, self._setting = root, setting
        self.url = str(root)

    def read(self, key: str) -> tuple[bytes, str]:
        with self._translate_errors("read", key):
            data = self._path(key).read_bytes()
        return data, _compute_generation(data)

    def create(self, key: str, data: bytes) -> None:
        self.create_from_file(key, BytesIO(data), len(data))

    def replace(self, key: str, data: bytes, generation: str) -> str:
        path = self._path(key)
        with self._translate_errors("write", key), self._lock(key), self._partial() as (partial, file):
            if not path.is_file() or _compute_generation(path.read_bytes()) != generation:
                raise ConflictError(f"{path} was changed by another process.")
            file.write(data)
            _flush(file)
            _move(os.replace, partial, path)
        return _compute_generation(data)

    def upload(self, key: str, path: Path) -> None:
        target = self._path(key)
        with self._translate_errors("write", key), self._partial() as (partial, file):
            with path.open("rb") as source:
                shutil.copyfileobj(source, file, PART_BYTES)
            _flush(file)
            _move(os.replace, partial, target)

    def create_from_file(self, key: str, file: IO[bytes], size: int) -> None:  # noqa: ARG002
        with self._translate_errors("write", key), self._partial() as (partial, target):
            shutil.copyfileobj(file, target, PART_BYTES)
            _flush(target)
            self._create(key, partial)

    def touch(self, key: str) -> bool:
        with self._translate_errors("write", key):
            try:
                os.utime(self._path(key))
            except FileNotFoundError:
                return False
        return True

    def delete(self, entry: Entry) -> bool:
        path = self._path(entry.key)
        with self._translate_errors("delete", entry.key):
            partial = self._new_partial()
            try:
                path.rename(partial)  # other writers cannot change it now
            except FileNotFoundError:
                return True
            changed = str(partial.stat().st_mtime_ns) != entry.revision
            if changed:
                with suppress(ConflictError):
                    self._create(entry.key, partial)
            partial.unlink(missing_ok=True)
            self._prune(path.parent)
        return not changed

    def download(self, key: str, path: Path, generation: str | None = None) -> None:
        with self._translate_errors("read", key), self._path(key).open("rb") as source:
            if generation not in (None, str(os.fstat(source.fileno()).st_mtime_ns)):
                raise NotFoundError(f"{self.url}/{key} was overwritten.")
            with path.open("wb") as target:
                shutil.copyfileobj(source, target, PART_BYTES)

    def find(self, key: str) -> Entry | None:
        with self._translate_errors("read", key):
            try:
                status = self._path(key).stat()
            except FileNotFoundError:
                return None
        if not stat.S_ISREG(status.st_mode):
            return None
        generation = str(status.st_mtime_ns)
        return Entry(key, status.st_size, status.st_mtime, generation, generation)

    def keys(self, prefix: str) -> list[str]:
        keys = []
        with self._translate_errors("list", prefix):
            for folder, folders, files in os.walk(self._prefix_path(prefix), onerror=_raise_unless_missing):
                folders[:] = [name for name in folders if not name.startswith(".")]
                parent = Path(folder).relative_to(self.root)
                keys += [(parent / name).as_posix() for name in files if not name.startswith(".")]
        return sorted(keys)

    def entries(self, prefix: str) -> list[Entry]:
        return [entry for key in self.keys(prefix) if (entry := self.find(key))]

    def folders(self, prefix: str) -> list[str]:
        with self._translate_errors("list", prefix):
            try:
                entries = list(os.scandir(self._prefix_path(prefix)))
            except FileNotFoundError:
                return []
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _prefix_path(self, prefix: str) -> Path:
        return self._path(prefix.removesuffix("/")) if prefix else self.root

    def _prune(self, folder: Path) -> None:
        """Remove empty folders, except the root: a bucket has no empty folders."""
        while folder != self.root:
            try:
                folder.rmdir()
            except OSError:  # not empty
                return
            folder = folder.parent

    def _create(self, key: str, partial: Path) -> None:
        """Move a partial file to its name; raise ConflictError if that exists."""
        path = self._path(key)
        try:
            _move(os.link, partial, path)
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            with self._lock(key):
                if path.exists():
                    raise ConflictError(f"{path} already exists.") from error
                _move(os.replace, partial, path)

    @contextmanager
    def _partial(self) -> Iterator[tuple[Path, IO[bytes]]]:
        """Yield a new file with the permissions of the umask; delete it at the end of the block."""
        partial = self._new_partial()
        with partial.open("xb") as file:
            try:
                yield partial, file
            finally:
                partial.unlink(missing_ok=True)

    def _new_partial(self) -> Path:
        """Return the path of a new partial file; delete those of killed processes."""
        folder = self.root / PARTIAL
        folder.mkdir(parents=True, exist_ok=True)
        oldest = time.time() - ABANDONED_SECONDS
        for entry in os.scandir(folder):
            with suppress(FileNotFoundError, PermissionError):  # deleted, or another user's
                if entry.stat().st_ctime < oldest:
                    Path(entry).unlink()
        return folder / uuid4().hex

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        name = self._new_partial().with_name(f"{_compute_generation(key.encode())}.lock")
        if option := find_machine_local_locks(name.parent.stat().st_dev, MOUNTS):
            raise StoreError(
                f"{self.url} ({self._setting}) is mounted with {option}, so other machines ignore its locks "
                f"and could overwrite the champion. Remove the option, or set {self._setting} to another "
                "folder."
            )
        with ExitStack() as stack:
            while True:
                lock = stack.enter_context(name.open("w"))
                lifeline.lock(lock, fcntl.LOCK_EX)  # released when this process ends
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(lock.fileno()), name.stat()):
                        break  # otherwise its owner has deleted the file
            try:
                yield
            finally:
                name.unlink(missing_ok=True)

    @contextmanager
    def _translate_errors(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if verb == "read":
                raise NotFoundError(f"{self.url} has no {key}.") from error
            raise self._create_error(verb, key, error) from error
        except OSError as error:
            raise self._create_error(verb, key, error) from error

    def _create_error(self, verb: str, key: str, error: OSError) -> StoreError:
        url = f"{self.url}/{key}".rstrip("/")
        reason: Exception | str | None = find_machine_error(error, self.root)
        if reason is None:
            reason = f"{error.strerror or error} ({error.filename}). Set {self._setting} to another folder."
        return StoreError(f"Cannot {verb} {url} ({self._setting}): {reason}")


def _compute_generation(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _move(link_or_rename: Callable[[Path, Path], None], partial: Path, path: Path) -> None:
    """Move a flushed partial file to its name; raise ConflictError if a link with that name exists."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                link_or_rename(partial, path)
            except FileExistsError as error:
                if not path.exists() or not path.samefile(partial):  # NFS may repeat requests
                    raise ConflictError(f"{path} already exists.") from error
            break
        except FileNotFoundError:  # another process deleted the empty folder
            if not partial.exists():
                raise
    _flush_folder(path.parent)


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_FLUSH:  # SMB and some FUSE file systems
            raise
    finally:
        os.close(descriptor)


def find_machine_local_locks(device: int, mounts: Path) -> str | None:
    """Return the mount option that makes locks of a network file system local to this machine, if any.

    `device` is its `st_dev`; `mounts` is the kernel's list of mounts, which is missing outside Linux.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(FileNotFoundError):
        for line in mounts.read_text(errors="replace").splitlines():
            mount, _, system = line.partition(" - ")
            kind, *_, options = system.split(" ")
            if mount.split(" ")[2] == number and kind in NETWORK_FILE_SYSTEMS:
                return next((option for option in options.split(",") if option in LOCAL_LOCK_OPTIONS), None)
    return None


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
