"""Uploads the local data and code of a run to the store, for pods.

    <store>/uploads/data/<sha256>        the file of data.source
    <store>/uploads/data/<sha256>.zip    the folder of data.source
    <store>/uploads/code/<sha256>.zip    the folder of model.code; <sha256> is the fingerprint of the folder

    uploads = prepare_uploads(config, environment)  # reads files, sends nothing
    uploads.send(console)
    create_arguments(uploads.config, environment)

Names contain the hash of the content, so existing content is not sent again, and equal content gives an equal
configuration. The .zip file of a folder has no times and no compression, so equal files give equal bytes.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast
from zipfile import ZipFile, ZipInfo

from modelyard.components.artifacts import sha256, tree_files, tree_sha256
from modelyard.components.errors import ConfigError, ConflictError, DataError
from modelyard.components.ingest.members import Member, iterate_members
from modelyard.components.source.checks import check_size
from modelyard.components.source.location import locate
from modelyard.components.source.settings import Source
from modelyard.components.store.storage import local_path, open_objects
from modelyard.components.train.code_archive import MAX_BYTES, unpack
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment

if TYPE_CHECKING:
    from rich.console import Console

    from modelyard.components.store.objects import Objects

DATA_PREFIX, CODE_PREFIX = "uploads/data", "uploads/code"
CHUNK_BYTES = 2**20
FILE_MODE = 0o100644


@dataclass(frozen=True)
class Upload:
    """A local file or folder, and the key of the configuration that names it.

    `name` is the name of the object in the store, and `open` opens its content. `size` is the size in bytes
    of the file or of all files in the folder.
    """

    key: str
    path: Path
    name: str
    size: int
    open: Callable[[], AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True)
class Uploads:
    """The configuration for pods, and the files that it needs in the store."""

    config: Config
    files: tuple[Upload, ...]

    def send(self, console: "Console") -> None:
        """Upload the missing files; `console` shows the progress.

        Raises:
            ConfigError: the folder of model.code cannot be packed.
            DataError: the data changed during the upload.
            StoreError: the store cannot be written.
        """
        if not self.files:
            return
        objects = open_objects(self.config.store)
        for upload in self.files:
            if not objects.touch(upload.name):  # `modelyard gc` keeps recently touched objects
                _send(upload, objects, console)


def prepare_uploads(config: Config, environment: Environment) -> Uploads:
    """Return the configuration for pods and the uploads of a run; without uploads for a local environment.

    Raises:
        ConfigError: the folder of model.code is too large.
        DataError: the data is missing or too large, or its SHA-256 is not that of the configuration.
    """
    uploads, source = prepare_code(config, environment), config.data.source
    if not environment.on_cluster or not source or not local_path(source, "data.source"):
        return uploads
    data, digest = _create_data_upload(config.source())
    update = {
        "source": f"{config.store.url.rstrip('/')}/{data.name}",
        "sha256": digest,
        "endpoint": environment.for_pods(config.store).endpoint,
        "user_project": config.store.user_project,
    }
    config = uploads.config.model_copy(update={"data": config.data.model_copy(update=update)})
    return Uploads(config, (data, *uploads.files))


def prepare_code(config: Config, environment: Environment) -> Uploads:
    """Return the configuration for pods and the upload of model.code, without the dataset."""
    code = config.model.code
    folder = local_path(code, "model.code") if code and environment.on_cluster else None
    if folder is None:
        return Uploads(config, ())
    size = sum(path.stat().st_size for _, path in tree_files(folder))
    if size > MAX_BYTES // 2:  # the archive is larger
        raise ConfigError(
            f"model.code is {folder}, with {size:,} bytes of files; the maximum is {MAX_BYTES // 2:,}. "
            "Keep data and models out of that folder."
        )
    digest = tree_sha256(folder)
    name = f"{CODE_PREFIX}/{digest}.zip"
    upload = Upload("model.code", folder, name, size, partial(_open_code_archive, folder, digest))
    model = config.model.model_copy(update={"code": f"{config.store.url.rstrip('/')}/{name}"})
    return Uploads(config.model_copy(update={"model": model}), (upload,))


def _create_data_upload(source: Source) -> tuple[Upload, str]:
    """Return the upload of the data, and its SHA-256."""
    path = locate(source).fetch(Path())  # checks the SHA-256 of the configuration
    if path.is_file():
        size = path.stat().st_size
        check_size(str(path), size, source.max_bytes)
        digest = sha256(path)
        return Upload("data.source", path, f"{DATA_PREFIX}/{digest}", size, partial(_open_file, path)), digest
    if source.kind == "npz":
        raise DataError(f"data.source is {path}, a folder, but npz requires a file. Set it to the .npz file.")
    archive = DigestWriter()
    _write_archive(iterate_members(path, source.max_bytes), archive)
    check_size(str(path), archive.size, source.max_bytes)

    def open_archive() -> AbstractContextManager[IO[bytes]]:
        return _open_archive(iterate_members(path, source.max_bytes), f"data.source {path}", archive.sha256)

    name = f"{DATA_PREFIX}/{archive.sha256}.zip"
    return Upload("data.source", path, name, archive.size, open_archive), archive.sha256


@contextmanager
def _open_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, and check at the end of the block that it has not changed."""
    old_stat = path.stat()
    with path.open("rb") as file:
        yield file
    new_stat = path.stat()
    if (old_stat.st_size, old_stat.st_mtime_ns) != (new_stat.st_size, new_stat.st_mtime_ns):
        raise DataError(f"data.source {path} changed during the upload. Try again when it is complete.")


@contextmanager
def _open_code_archive(folder: Path, digest: str) -> Iterator[IO[bytes]]:
    """Open the archive of a folder with code, after checking the fingerprint of the unpacked files."""
    files = (
        Member(folder, name, path.stat().st_size, partial(_open, path)) for name, path in tree_files(folder)
    )
    with _open_archive(files, f"model.code {folder}") as file:
        with tempfile.TemporaryDirectory() as unpack_folder:
            unpack(Path(file.name), Path(unpack_folder))
            if tree_sha256(Path(unpack_folder)) != digest:
                raise ConfigError(f"model.code {folder} changed while it was packed. Try again.")
        yield file


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _send(upload: Upload, objects: "Objects", console: "Console") -> None:
    from rich.progress import Progress

    try:
        with upload.open() as file, Progress(console=console, transient=True) as progress:
            size = file.seek(0, 2)
            file.seek(0)
            reader = progress.wrap_file(cast(BinaryIO, file), size, description=f"sending {upload.path.name}")
            with suppress(ConflictError):  # another command sent it
                objects.create_from_file(upload.name, reader, size)
    except DataError:
        if entry := objects.find(upload.name):  # its content does not match its name
            objects.delete(entry)
        raise


class DigestWriter:
    """A writable file that counts and hashes bytes, and copies them to another file if there is one."""

    def __init__(self, file: IO[bytes] | None = None) -> None:
        self.size = 0
        self._digest = hashlib.sha256()
        self._file = file

    @property
    def sha256(self) -> str:
        """The SHA-256 of the written bytes, in hex."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> int:
        """Write bytes."""
        self._digest.update(data)
        self.size += len(data)
        return self._file.write(data) if self._file else len(data)

    def flush(self) -> None:
        """Do nothing; ZipFile requires this method."""


def _write_archive(files: Iterable[Member], target: DigestWriter) -> None:
    # ZipFile writes the size after each file, because the target cannot seek.
    with ZipFile(cast(IO[bytes], target), "w") as archive:
        for member in files:
            entry = ZipInfo(f"{member.name}/" if member.is_folder else member.name)  # dated 1980
            entry.create_system, entry.external_attr = 3, FILE_MODE << 16
            if member.is_folder:
                archive.writestr(entry, b"")
                continue
            entry.file_size = member.size
            with member.open() as source, archive.open(entry, "w") as file:
                shutil.copyfileobj(source, file, CHUNK_BYTES)


@contextmanager
def _open_archive(files: Iterable[Member], label: str, sha256: str | None = None) -> Iterator[IO[bytes]]:
    """Yield the archive of files as an open temporary file, after comparing its SHA-256 if one is given."""
    with tempfile.NamedTemporaryFile() as file:
        target = DigestWriter(cast(IO[bytes], file))
        try:
            _write_archive(files, target)
            file.seek(0)
        except OSError as error:
            raise DataError(f"{label} cannot be packed: {error}. Free disk space, or set TMPDIR.") from error
        if sha256 not in (None, target.sha256):
            raise DataError(f"{label} changed while it was packed. Try again when it is complete.")
        yield cast(IO[bytes], file)
