"""A child process that ends when its parent does, however the parent dies.

The parent holds an exclusive lock on a file for as long as it lives (`hold`); a child waits for that
lock in a thread (`follow`) and leaves at once when it gets it. The kernel gives the lock up even after
`kill -9`, so no step goes on training, and no server holds a port, for a run that is gone. Nothing
polls, and on a cluster, where the variable is not set, nothing happens.

    with lifeline.hold(run / "lifeline") as environment:
        subprocess.run(command, env={**os.environ, **environment})

The body of each component and the `main` of each module that runs as a child process call `follow` first.
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


def lock(file: IO[Any], how: int) -> None:
    """Lock an open file, as fcntl.flock does.

    Raises:
        OSError: ENOLCK, whatever a file system without locks answers.
    """
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        raise
    except OSError as error:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), file.name) from error


@contextmanager
def hold(path: Path) -> Iterator[dict[str, str]]:
    """Hold the lifeline at `path`; yield the environment variables for child processes.

    Child processes write UTF-8 in any locale.
    """
    with path.open("w") as file:
        lock(file, fcntl.LOCK_EX)
        yield {VARIABLE: str(path), "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}


def is_held(path: Path) -> bool:
    """Return whether a process holds the lifeline at `path`."""
    try:
        with path.open() as file:
            lock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter: of another user, so it may be held
        return True
    except FileNotFoundError:
        return False
    return False


def follow() -> None:
    """Exit when the process exits that holds the lifeline in the environment, if there is one."""
    if path := os.environ.get(VARIABLE):
        threading.Thread(target=_exit_with, args=(path,), name="lifeline", daemon=True).start()


def _exit_with(path: str) -> None:
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH)
    except OSError:
        pass  # the file went with the run that it belonged to
    os._exit(1)
