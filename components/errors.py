"""The errors that modelyard raises on purpose; each class has the exit code of a command that fails with it.

A message has two sentences: what is wrong, with the value and its origin; and what to do. Any other exception
is a bug and ends with exit code 1. A step runs in its own process and writes a record of its error
(step.py), from which `records.Failure` creates the same error in the parent process.
"""

import errno
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


class ModelyardError(Exception):
    """The base class."""

    exit_code = 1

    @classmethod
    def public_class(cls) -> "type[ModelyardError]":
        """Return this class if this module defines it, else the first base class that this module defines."""
        return next(
            kind for kind in cls.__mro__ if kind.__module__ == __name__ and issubclass(kind, ModelyardError)
        )


class ConfigError(ModelyardError):
    """The configuration or the command line is wrong."""

    exit_code = 2


class DataError(ModelyardError):
    """The data is missing, malformed or does not match the configuration."""

    exit_code = 3


class TrainError(ModelyardError):
    """The model cannot be built, trained or exported."""

    exit_code = 4


class TooLargeError(TrainError):
    """The model, or a batch of it, does not fit into memory."""


class EvaluateError(ModelyardError):
    """The model cannot be evaluated."""

    exit_code = 5


class DeployError(ModelyardError):
    """The version cannot be verified or promoted."""

    exit_code = 6


class StoreError(ModelyardError):
    """The model store cannot be reached, read or written."""

    exit_code = 7


class NotFoundError(StoreError):
    """There is no such model, version or object."""


class ConflictError(StoreError):
    """Another process changed the object."""


class DamagedError(StoreError):
    """A file of a version is missing, or a file of the store differs from the one that was written."""


class UnreachableError(StoreError):
    """The store does not respond; a retry may succeed."""


class ServeError(ModelyardError):
    """The server cannot start, or does not respond."""

    exit_code = 8


class ClusterError(ModelyardError):
    """The cluster cannot be reached, or refuses a request."""

    exit_code = 9


class BackendError(ModelyardError):
    """Kubeflow Pipelines cannot be reached, or refuses a request."""

    exit_code = 10


class StuckError(ModelyardError):
    """A pod of a run cannot start."""

    exit_code = 11


class UnschedulableError(StuckError):
    """A pod cannot be scheduled on any node."""


class ImageError(StuckError):
    """The image of a pod cannot be pulled, or its container cannot be created."""


class CancelledError(ModelyardError):
    """A run or a rollout was cancelled."""

    exit_code = 12


class PlanError(ModelyardError):
    """According to its plan, a run exceeds memory, budget or deadline, or no node is large enough for it."""

    exit_code = 13


class KilledError(ModelyardError):
    """The process of a step was killed, or crashed outside of Python."""

    exit_code = 14


class OutOfMemoryError(KilledError):
    """A step ran out of memory."""


class DeadlineError(KilledError):
    """A step exceeded its timeout."""


class MachineError(ModelyardError):
    """A disk is full, access to a file is denied, or a limit of this machine is too low."""

    exit_code = 15


_ANSI = re.compile(r"\x1b\[[0-9;]*m")  # Keras' messages have bold text
_MAX_LENGTH = 400


def error_classes() -> dict[str, type[ModelyardError]]:
    """Return the classes of this module by name."""
    types = [value for value in globals().values() if isinstance(value, type)]
    return {cls.__name__: cls for cls in types if issubclass(cls, ModelyardError)}


def describe(error: BaseException) -> str:
    """Return the class and message of an exception as one line of limited length, with a full stop."""
    text = str(error.args[0] if len(error.args) == 1 else error)  # str() of a KeyError is a repr
    text = " ".join(_ANSI.sub("", text).split())
    if len(text) > _MAX_LENGTH:
        text = text[:_MAX_LENGTH] + " …"
    return f"{type(error).__name__}: {text}".rstrip(".: ") + "."


def pluralize(number: int, noun: str) -> str:
    """Return a number with its noun, as "1 file" or "2,000 files"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def summarize_names(names: Sequence[str], limit: int = 5) -> str:
    """Return the first names and the number of the others."""
    rest = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


_FREE_SPACE = (
    "Free space there, or set MODELYARD_HOME (runs), store.url (models) or TMPDIR (temporary files) to a "
    "folder on another disk."
)
_PERMISSION = "Give this user read and write access, or use another folder."
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _FREE_SPACE),
    errno.EFBIG: "Raise the maximum file size (`ulimit -f`), or use another disk.",
    errno.EMFILE: "Raise the maximum number of open files: `ulimit -n 1024`.",
    errno.ENFILE: "End other processes, or raise the kernel's maximum number of open files (fs.file-max).",
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _PERMISSION),
    errno.ENAMETOOLONG: "Use a folder with a shorter path.",
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR), "Use another name."),
    errno.ENOLCK: "Use a folder on a file system with locks (flock), such as a local disk.",
    errno.EIO: "Check the disk.",
}
EXHAUSTION_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)
"""Errors whose cause is the machine, even if the exception names no file."""
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # NumPy's message when a disk is full
_FULL_BYTES = 2**20  # a disk with less free space counts as full


def find_machine_error(error: BaseException | None, folder: Path | None = None) -> MachineError | None:
    """Return the MachineError for an exception or one of its causes; None if the machine is not the cause.

    Args:
        error: the exception; those of TensorFlow and NumPy contain the message of the system, but no errno.
        folder: the folder to name if the exception names no file; default: the folder of temporary files.
    """
    while error:
        text = str(error)
        name = getattr(error, "filename2", None) or getattr(error, "filename", None)
        number = error.errno if isinstance(error, OSError) else None
        if text.startswith(f"[Errno {errno.ENOENT}] No usable temporary directory"):
            reason = getattr(error, "strerror", None) or error
            return MachineError(f"{reason}. Set TMPDIR to a folder in which this user can write.")
        if number is None:
            in_text = (code for code in EXHAUSTION_ERRNOS if os.strerror(code) in text)
            number = errno.ENOSPC if _SHORT_WRITE.search(text) else next(in_text, None)
        if number in EXHAUSTION_ERRNOS or (number in _REMEDIES and name):
            path = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else folder
            return _describe_machine_error(number, path or Path(os.environ.get("TMPDIR", "/tmp")))  # noqa: S108
        error = error.__cause__ or error.__context__
    return None


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|\{\{\$")


def describe_unusable_path(path: Path | str) -> str | None:
    """Return why a path is not supported, as the end of a sentence; None if it is supported."""
    if not (match := _CONTROL.search(str(path))):
        return None
    if match[0] == "{{$":
        return "contains {{$, which Kubeflow Pipelines interprets as a placeholder"
    return "is not UTF-8" if "\ud800" <= match[0] <= "\udfff" else "contains control characters"


def find_full_disk_error(folder: Path) -> MachineError | None:
    """Return the error if the disk of a folder is full, else None."""
    with suppress(OSError):
        if shutil.disk_usage(folder).free < _FULL_BYTES:
            return _describe_machine_error(errno.ENOSPC, folder)
    return None


def _describe_machine_error(number: int, path: Path) -> MachineError:
    free = ""
    if number in (errno.ENOSPC, errno.EDQUOT):
        with suppress(OSError):
            free = f" ({shutil.disk_usage(path if path.is_dir() else path.parent).free / 1e6:.1f} MB free)"
    return MachineError(f"{path}: {os.strerror(number)}{free}. {_REMEDIES[number]}")
