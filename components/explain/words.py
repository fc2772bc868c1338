"""What the log of a step says: the error that it ended with, its last words, the decision."""

import errno
import os
import re
from collections.abc import Callable, Sequence

from components.errors import ModelyardError, StoreError, from_log

# What the system says, and what numpy.save makes of it.
NO_ROOM = re.compile(rf"{os.strerror(errno.ENOSPC)}|OSError: \d+ requested and \d+ written")
DECISION = re.compile(r"^(?:promote|hold|reject|unchanged): .+")
DECIDING = ("deploy", "evaluate", "fingerprint")  # the later has the last word
# What KFP's executor and launcher and Argo's executor write around a step's own lines.
NOISE = re.compile(
    r"^\[KFP Executor|^time=\"|^[IWEF]\d{4} \d\d:\d\d:\d\d|^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d "
    r"|^\s*(?:\^+|~+\^*~*)\s*$|^Error: exit status \d+$"
)
LAST = 3


def error_in(lines: Sequence[str]) -> ModelyardError | None:
    """Return the error that a step raised on purpose."""
    return from_log(list(lines))


def no_room(lines: Sequence[str]) -> bool:
    """Say whether a step found no room on a disk; a StoreError says itself where."""
    return any(map(NO_ROOM.search, lines)) and not isinstance(error_in(lines), StoreError)


def silent(lines: Sequence[str]) -> bool:
    """Say whether a step left no message: something ended it from outside."""
    return not any(line.lstrip().startswith("Traceback") for line in lines)


def last_words(lines: Sequence[str], count: int = LAST) -> str:
    """Return the last lines that a step itself wrote, on one line."""
    return " | ".join(line.strip() for line in own(lines)[-count:])


def own(lines: Sequence[str]) -> list[str]:
    """Return the lines that a step itself wrote."""
    return [line for line in lines if line.strip() and not NOISE.match(line)]


def decision(log: Callable[[str], Sequence[str]]) -> str | None:
    """Return what a run decided, and why, as the last step that decided said it.

    Args:
        log: gives the lines of a step; none when it did not run.
    """
    for step in DECIDING:
        for line in reversed(log(step)):
            if DECISION.match(line):
                return line.rstrip().rstrip(".")
    return None
