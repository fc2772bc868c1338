"""A lifeline: child processes exit when their parent exits, even after `kill -9`.

The parent holds an exclusive lock on a file (`hold`). A thread of the child waits for this lock (`follow`).
The kernel releases the lock when the parent exits; then the thread ends the child, so that no step continues
and no server holds a port. Without the variable MODELYARD_LIFELINE, as on a cluster, `follow` does nothing.

    with lifeline.hold(run / "lifeline") as environment:
        subprocess.run(command, env={**os.environ, **environment})
"""

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

VARIABLE = "MODELYARD_LIFELINE"


def lock(file: IO[Any], operation: int) -> None:
    """Lock an open file with fcntl.flock; raise OSError with ENOLCK if the file system has no locks."""
    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        raise
    except OSError as error:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), file.name) from error


@contextmanager
def hold(path: Path) -> Iterator[dict[str, str]]:
    """Hold the lifeline at `path` during a block; yield the environment variables for child processes.

    The variables also set UTF-8 as the encoding of the child processes.
    """
    with path.open("w") as file:
        lock(file, fcntl.LOCK_EX)
        yield {VARIABLE: str(path), "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}


def is_held(path: Path) -> bool:
    """Return whether a process holds the lifeline at `path`."""
    try:
        with path.open() as file:
            lock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # another user's file may be held
        return True
    except FileNotFoundError:
        return False
    return False


def follow() -> None:
    """Exit when the process that holds the lifeline in MODELYARD_LIFELINE exits."""
    if path := os.environ.get(VARIABLE):
        threading.Thread(target=_exit_with_parent, args=(path,), name="lifeline", daemon=True).start()


def _exit_with_parent(path: str) -> None:
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH)
    except OSError:
        pass  # the run was deleted
    os._exit(1)
