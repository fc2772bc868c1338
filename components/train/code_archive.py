"""The user's own code where no folder of theirs is: an archive in a bucket, and the folder that it was.

The archive is a .zip without compression, so that it cannot become larger than it is. What comes out of it is
compared with its fingerprint before anything in it runs (user_code.py).
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
    """Return the folder with the code: the user's own, or a new one with what its archive holds.

    Raises:
        TrainError: there is no such archive, or it is not one that modelyard makes.
        StoreError: the bucket cannot be read.
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
                f"The code of the model is not at {code.url} any more. Submit again from where model.code "
                "is: that uploads it."
            ) from error
        unpack(archive, folder)
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Write what is in an archive into a folder.

    Raises:
        TrainError: it is too large, or no archive of plain files that stay in the folder.
    """
    if archive.stat().st_size > MAX_BYTES:
        raise TrainError(
            f"The archive of model.code has {archive.stat().st_size:,} bytes, and at most {MAX_BYTES:,} are "
            "read. Keep data out of that folder."
        )
    try:
        with ZipFile(archive) as files:
            for entry in files.infolist():
                target = folder / _checked(entry)
                target.parent.mkdir(parents=True, exist_ok=True)
                with files.open(entry) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file)
    except (BadZipFile, OSError, ValueError, EOFError, RuntimeError) as error:  # RuntimeError: encrypted
        raise TrainError(f"The archive of model.code cannot be unpacked ({error}). Submit again.") from error


def _checked(entry: ZipInfo) -> str:
    """Return the name of a file in the archive."""
    parts = re.split(r"[/\\]", entry.filename)
    plain = stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG)
    if entry.compress_type != ZIP_STORED or not plain or any(part in ("", ".", "..") for part in parts):
        raise TrainError(
            f"The archive of model.code has {entry.filename!a}, which is no plain file in it: somebody else "
            "made it. Submit again, and see who may write to the store."
        )
    return entry.filename
