"""What a run needs of this machine, put where pods see it: the dataset and the model's own code.

    <store>/uploads/data/<sha256>        the file that data.source names
    <store>/uploads/data/<sha256>.zip    the folder that data.source names
    <store>/uploads/code/<sha256>.zip    the folder that model.code names; its fingerprint, not the archive's

    uploads = prepare_uploads(config, environment)    # reads, sends nothing
    uploads.send(console)
    arguments(uploads.config, environment)

Each is named after its content: what is there already is not sent again, and a second run with the same
content has the same configuration, and so the same fingerprint. A folder becomes a .zip without times and
compression, so that the same files give the same bytes.
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
from modelyard.components.ingest.members import members
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

DATA, CODE = "uploads/data", "uploads/code"
PART_BYTES = 2**20
MODE = 0o100644
Opener = Callable[[], AbstractContextManager[IO[bytes]]]
Item = tuple[str, int, Opener | None]
"""A file of an archive: name, size, opener. The name of a folder ends with a slash; it has no opener."""


@dataclass(frozen=True)
class Upload:
    """A file or a folder of this machine, the configuration's key that names it, and its place in the store.

    `size` is in bytes, of a folder's files without the archive around them; `open` gives what is sent.
    """

    key: str
    path: Path
    name: str
    size: int
    open: Opener


@dataclass(frozen=True)
class Uploads:
    """The configuration as pods read it, and what has to be in the store for that."""

    config: Config
    files: tuple[Upload, ...]

    def send(self, console: "Console") -> None:
        """Put into the store what is not there yet, and show on `console` how far that is.

        Raises:
            ConfigError: the folder of model.code cannot become an archive.
            DataError: the dataset changed while it was sent.
            StoreError: the store cannot be written.
        """
        if not self.files:
            return
        objects = open_objects(self.config.store)
        for one in self.files:
            if not objects.touch(one.name):  # touched, it counts as new for `modelyard gc`
                _send(one, objects, console)


def prepare_uploads(config: Config, environment: Environment) -> Uploads:
    """Return what a run in an environment needs of this machine; nothing on the local one.

    Args:
        config: the configuration; its store is where uploads go.
        environment: where the run will be.

    Raises:
        ConfigError: the folder of model.code is too large.
        DataError: the dataset is missing, too large, or not what its SHA-256 says.
    """
    uploads, source = prepare_code(config, environment), config.data.source
    if not environment.on_cluster or not source or not local_path(source, "data.source"):
        return uploads
    data, digest = _data(config.source())
    url = f"{config.store.url.rstrip('/')}/{data.name}"
    there = {
        "source": url,
        "sha256": digest,
        "endpoint": environment.for_pods(config.store).endpoint,
        "user_project": config.store.user_project,
    }
    config = uploads.config.model_copy(update={"data": config.data.model_copy(update=there)})
    return Uploads(config, (data, *uploads.files))


def prepare_code(config: Config, environment: Environment) -> Uploads:
    """Return the configuration for pods and the upload of model.code, without the dataset."""
    code = config.model.code
    path = local_path(code, "model.code") if code and environment.on_cluster else None
    if path is None:
        return Uploads(config, ())
    folder = _code(path)
    there = {"code": f"{config.store.url.rstrip('/')}/{folder.name}"}
    return Uploads(config.model_copy(update={"model": config.model.model_copy(update=there)}), (folder,))


def _data(source: Source) -> tuple[Upload, str]:
    """Return the dataset, and the SHA-256 of what is sent for it."""
    path = locate(source).fetch(Path())  # looks whether it is what the configuration says
    if path.is_file():
        size = path.stat().st_size
        check_size(str(path), size, source.max_bytes)
        digest = sha256(path)
        return Upload("data.source", path, f"{DATA}/{digest}", size, partial(_unchanged, path)), digest
    if source.kind == "npz":
        raise DataError(f"data.source is {path}, a folder, and npz is a file. Name the .npz file.")
    archive = DigestWriter()
    _write_archive(_example_files(path, source.max_bytes), archive)
    check_size(str(path), archive.size, source.max_bytes)

    def archived() -> AbstractContextManager[IO[bytes]]:
        return _packed(_example_files(path, source.max_bytes), f"data.source {path}", archive.sha256)

    name = f"{DATA}/{archive.sha256}.zip"
    return Upload("data.source", path, name, archive.size, archived), archive.sha256


def _code(folder: Path) -> Upload:
    size = sum(path.stat().st_size for _, path in tree_files(folder))
    if size > MAX_BYTES // 2:  # names and gaps come on top
        raise ConfigError(
            f"model.code is {folder}, with {size:,} bytes of files, and at most {MAX_BYTES // 2:,} are sent. "
            "Keep data and models out of that folder."
        )
    digest = tree_sha256(folder)
    return Upload("model.code", folder, f"{CODE}/{digest}.zip", size, partial(_code_archive, folder, digest))


@contextmanager
def _unchanged(path: Path) -> Iterator[IO[bytes]]:
    """Give an open file that is the same when the block ends."""
    before = path.stat()
    with path.open("rb") as file:
        yield file
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(f"data.source {path} changed while it was sent. Leave it alone, and try again.")


@contextmanager
def _code_archive(folder: Path, digest: str) -> Iterator[IO[bytes]]:
    """Give the archive of a folder, once what train will make of it has the fingerprint."""
    with _packed(_code_files(folder), f"model.code {folder}") as file:
        with tempfile.TemporaryDirectory() as there:
            unpack(Path(file.name), Path(there))
            if tree_sha256(Path(there)) != digest:
                raise ConfigError(f"model.code {folder} changed while it was packed. Try again.")
        yield file


def _send(one: Upload, objects: "Objects", console: "Console") -> None:
    from rich.progress import Progress

    try:
        with one.open() as file, Progress(console=console, transient=True) as progress:
            size = file.seek(0, 2)
            file.seek(0)
            read = progress.wrap_file(cast(BinaryIO, file), size, description=f"sending {one.path.name}")
            with suppress(ConflictError):  # another command was faster
                objects.add(one.name, read, size)
    except DataError:
        if entry := objects.find(one.name):  # what got there is not what its name says
            objects.delete(entry)
        raise


class DigestWriter:
    """A file that counts and hashes what is written, and passes it on to another file if there is one."""

    def __init__(self, file: IO[bytes] | None = None) -> None:
        self.size = 0
        self._digest = hashlib.sha256()
        self._file = file

    @property
    def sha256(self) -> str:
        """The SHA-256 of what was written, in hex."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> int:
        """Write bytes."""
        self._digest.update(data)
        self.size += len(data)
        return self._file.write(data) if self._file else len(data)

    def flush(self) -> None:
        """Do nothing: the owner of the other file flushes it."""


def _example_files(folder: Path, max_bytes: int) -> Iterator[Item]:
    """Yield what ingest reads of a folder.

    Raises:
        DataError: it holds what ingest refuses.
    """
    for member in members(folder, max_bytes):
        yield (f"{member.name}/", 0, None) if member.folder else (member.name, member.size, member.open)


def _code_files(folder: Path) -> Iterator[Item]:
    """Yield what the fingerprint of a folder of code covers."""
    return ((name, path.stat().st_size, partial(_open, path)) for name, path in tree_files(folder))


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _write_archive(items: Iterable[Item], file: DigestWriter) -> None:
    """Write the archive, a part at a time."""
    # zipfile takes what cannot seek, and then writes sizes behind each file
    with ZipFile(cast(IO[bytes], file), "w") as archive:
        for name, size, opened in items:
            entry = ZipInfo(name)  # of 1980
            entry.create_system, entry.external_attr, entry.file_size = 3, MODE << 16, size
            if opened is None:
                archive.writestr(entry, b"")
                continue
            with opened() as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, PART_BYTES)


@contextmanager
def _packed(items: Iterable[Item], what: str, sha256: str | None = None) -> Iterator[IO[bytes]]:
    """Yield the archive as an open temporary file.

    Args:
        items: what goes into it.
        what: the configuration's key, and the folder, for messages.
        sha256: what it must have; not checked when None.

    Raises:
        DataError: it is another archive, since the folder changed; or there is no room for it.
    """
    with tempfile.NamedTemporaryFile() as file:
        digest = DigestWriter(cast(IO[bytes], file))
        try:
            _write_archive(items, digest)
            file.seek(0)
        except OSError as error:
            raise DataError(f"{what} cannot be packed: {error}. Make room, or set TMPDIR.") from error
        if sha256 not in (None, digest.sha256):
            raise DataError(f"{what} changed while it was packed. Leave it alone, and try again.")
        yield cast(IO[bytes], file)
