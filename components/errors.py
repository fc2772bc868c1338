"""What can go wrong, as one family.

    ModelyardError                 exit code
    ├── ConfigError                2   the configuration or the command line is wrong
    ├── DataError                  3   the data is missing, malformed or not what the config says
    ├── TrainError                 4   the model cannot be built, trained or exported
    │   └── TooLargeError          4   it needs more memory than there is
    ├── EvaluateError              5   the model cannot be scored
    ├── DeployError                6   the version cannot be verified or promoted
    ├── StoreError                 7   the model store cannot be reached, read or written
    │   ├── NotFoundError          7   no such model, version or object
    │   ├── ConflictError          7   somebody else changed it meanwhile
    │   ├── DamagedError           7   a version is not what was published
    │   └── UnreachableError       7   it does not answer; later it may
    ├── ServeError                 8   the server cannot start, or does not answer
    ├── ClusterError               9   the cluster cannot be reached, or refuses what is asked
    ├── BackendError              10   Kubeflow Pipelines cannot be reached, or refuses what is asked
    ├── StuckError                11   a pod of a run cannot start
    │   ├── UnschedulableError    11   no node has room for it
    │   └── ImageError            11   its image cannot be pulled
    ├── CancelledError            12   the run was cancelled
    ├── PlanError                 13   no node can take a step, or the plan says that it cannot succeed
    ├── KilledError               14   the process of a step was ended from outside
    │   ├── OutOfMemoryError      14   it needed more memory than there is
    │   └── DeadlineError         14   it took longer than it may
    └── MachineError              15   a disk is full, or a file or a limit of this machine is in the way

A message is one paragraph: what was found (the bad value), what is wrong with it, what to do next.
An exception outside the family is a bug and ends with exit code 1. A step runs in its own process; it
leaves a record from which `records.Failure` makes the same error again.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


class ModelyardError(Exception):
    """Base of every error that modelyard raises on purpose."""

    exit_code = 1

    @classmethod
    def public_class(cls) -> "type[ModelyardError]":
        """Return the class of this module that this one is, or is derived from."""
        return next(
            kind for kind in cls.__mro__ if kind.__module__ == __name__ and issubclass(kind, ModelyardError)
        )


class ConfigError(ModelyardError):
    """The configuration or the command line is wrong."""

    exit_code = 2


class DataError(ModelyardError):
    """The data is missing, malformed or not what the configuration says."""

    exit_code = 3


class TrainError(ModelyardError):
    """The model cannot be built, trained or exported."""

    exit_code = 4


class TooLargeError(TrainError):
    """The model, or a batch of it, needs more memory than there is."""


class EvaluateError(ModelyardError):
    """The model cannot be scored."""

    exit_code = 5


class DeployError(ModelyardError):
    """The version cannot be verified or promoted."""

    exit_code = 6


class StoreError(ModelyardError):
    """The model store cannot be reached, read or written."""

    exit_code = 7


class NotFoundError(StoreError):
    """No such model, version or object."""


class ConflictError(StoreError):
    """Somebody else changed the object meanwhile."""


class DamagedError(StoreError):
    """A file of a version is missing, or is not what was published."""


class UnreachableError(StoreError):
    """The store does not answer; later it may."""


class ServeError(ModelyardError):
    """The server cannot start, or does not answer."""

    exit_code = 8


class ClusterError(ModelyardError):
    """The cluster cannot be reached, or refuses what is asked."""

    exit_code = 9


class BackendError(ModelyardError):
    """Kubeflow Pipelines cannot be reached, or refuses what is asked."""

    exit_code = 10


class StuckError(ModelyardError):
    """A pod of a run cannot start."""

    exit_code = 11


class UnschedulableError(StuckError):
    """No node has room for a pod, or may take it."""


class ImageError(StuckError):
    """The image of a pod cannot be pulled, or its container cannot be created."""


class CancelledError(ModelyardError):
    """The run was cancelled, or a rollout was told to end."""

    exit_code = 12


class PlanError(ModelyardError):
    """No node can take a step, or the plan says that it cannot succeed: memory, budget or deadline."""

    exit_code = 13


class KilledError(ModelyardError):
    """The process of a step was ended from outside, or crashed outside of Python."""

    exit_code = 14


class OutOfMemoryError(KilledError):
    """A step needed more memory than there is."""


class DeadlineError(KilledError):
    """A step took longer than it may."""


class MachineError(ModelyardError):
    """A disk is full, or a file or a limit of this machine is in the way."""

    exit_code = 15


_ANSI = re.compile(r"\x1b\[[0-9;]*m")  # Keras prints in bold
_MAXIMUM_LENGTH = 400


def error_classes() -> dict[str, type[ModelyardError]]:
    """Return the classes of the family by their names."""
    return {kind.__name__: kind for kind in _descendants(ModelyardError)}


def _descendants(kind: type[ModelyardError]) -> Iterator[type[ModelyardError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _descendants(each)


def describe(error: BaseException) -> str:
    """Return the class and text of a library's exception as one bounded line that ends with a full stop."""
    text = str(error.args[0] if len(error.args) == 1 else error)  # str() of a KeyError is a repr
    text = " ".join(_ANSI.sub("", text).split())
    if len(text) > _MAXIMUM_LENGTH:
        text = text[:_MAXIMUM_LENGTH] + " …"
    return f"{type(error).__name__}: {text}".rstrip(".: ") + "."


_ROOM = (
    "Make room there, or use another disk: MODELYARD_HOME for runs, store.url for models, TMPDIR for "
    "temporary files."
)
_PERMISSION = "Let this user read and write there, or use another folder."
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "Raise the limit for the size of a file (`ulimit -f`), or use another disk.",
    errno.EMFILE: "Raise the limit for open files: `ulimit -n 1024`.",
    errno.ENFILE: "End other processes, or raise the kernel's limit for open files (fs.file-max).",
    errno.EROFS: _PERMISSION,
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENAMETOOLONG: "Use a folder with a shorter path.",
    errno.EISDIR: "Use another name.",
    errno.ENOTDIR: "Use another name.",
    errno.ENOLCK: "Use a folder on a file system with locks (flock), such as a local disk.",
    errno.EIO: "Check the disk.",
}
EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)  # by whatever file
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # of NumPy, which does not say why
_FULL_BYTES = 2**20  # free, below which a disk counts as full


def machine_error(error: BaseException | None, folder: Path | None = None) -> MachineError | None:
    """Return what an exception says about this machine; None when it is about something else.

    TensorFlow and NumPy raise exceptions without a number for what the system said.

    Args:
        error: the exception, or one that was raised while it was handled.
        folder: where files are written, for an exception that names none; by default that of temporary files.
    """
    while error:
        text = str(error)
        name = getattr(error, "filename2", None) or getattr(error, "filename", None)
        number = error.errno if isinstance(error, OSError) else None
        if text.startswith(f"[Errno {errno.ENOENT}] No usable temporary directory"):
            return MachineError(f"{error}. Set TMPDIR to a folder that this user may write.")
        if number is None:
            said = (one for one in EXHAUSTED if os.strerror(one) in text)
            number = errno.ENOSPC if _SHORT_WRITE.search(text) else next(said, None)
        if number in EXHAUSTED or (number in _REMEDIES and name):
            path = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else folder
            return _describe_machine_error(number, path or Path(os.environ.get("TMPDIR", "/tmp")))  # noqa: S108
        error = error.__cause__ or error.__context__
    return None


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|\{\{\$")


def unusable_path(path: Path | str) -> str | None:
    """Return why a path cannot be recorded, as the end of a sentence; None when it can."""
    if not (found := _CONTROL.search(str(path))):
        return None
    if found[0] == "{{$":
        return "has {{$, which Kubeflow Pipelines takes for a placeholder"
    return "is not UTF-8" if "\ud800" <= found[0] <= "\udfff" else "has control characters"


def full_disk(folder: Path) -> MachineError | None:
    """Return the error for a folder on a disk that is full; None when it is not."""
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
