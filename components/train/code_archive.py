"""Fetches and unpacks the archive with the user's code that a run on a cluster uploaded.

The archive is a .zip without compression, so that it cannot grow when it is unpacked. The fingerprint of the
unpacked folder is checked before its code is imported (user_code.py).
"""

import re
import shutil
import stat
import tempfile
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from modelyard.components.errors import NotFoundError, TrainError
from modelyard.components.store.storage import local_path, open_uri
from modelyard.components.train.settings import CodeLocation

MAX_BYTES = 64 * 2**20


def fetch_code(code: CodeLocation) -> Path:
    """Return the folder with the user's code: the local one, or a new one with the unpacked archive.

    Raises:
        TrainError: the archive is missing or was not made by modelyard.
    """
    if path := local_path(code.url, "model.code"):
        return path
    folder = Path(tempfile.mkdtemp(prefix="code-"))
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch, "code.zip")
        objects, key = open_uri(code.url, code.endpoint, "model.code", code.user_project)
        try:
            objects.download(key, archive)
        except NotFoundError as error:
            raise TrainError(
                f"The archive of model.code, {code.url}, no longer exists. Submit again to upload model.code."
            ) from error
        unpack(archive, folder)
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive into a folder; raise TrainError if it is too large, damaged or not from modelyard."""
    if archive.stat().st_size > MAX_BYTES:
        raise TrainError(
            f"The archive of model.code has {archive.stat().st_size:,} bytes; the limit is {MAX_BYTES:,}. "
            "Move data out of that folder."
        )
    try:
        with ZipFile(archive) as files:
            for entry in files.infolist():
                target = folder / _get_safe_name(entry)
                target.parent.mkdir(parents=True, exist_ok=True)
                with files.open(entry) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file)
    except (BadZipFile, OSError, ValueError, EOFError, RuntimeError) as error:  # RuntimeError: encrypted
        raise TrainError(f"The archive of model.code cannot be unpacked ({error}). Submit again.") from error


def _get_safe_name(entry: ZipInfo) -> str:
    """Return the path of an entry, relative to the folder."""
    parts = re.split(r"[/\\]", entry.filename)
    plain = stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG)
    if entry.compress_type != ZIP_STORED or not plain or any(part in ("", ".", "..") for part in parts):
        raise TrainError(
            f"The archive of model.code has {entry.filename!a}, which is not an uncompressed regular file "
            "inside the folder, so modelyard did not make it. Submit again, and check who may write to the "
            "store."
        )
    return entry.filename
