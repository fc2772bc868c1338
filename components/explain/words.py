"""What the log of a step says: the error that it ended with, its last words, the decision."""

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from modelyard.components.errors import ModelyardError, StoreError, from_log

# What the system says, and what numpy.save makes of it.
NO_ROOM = re.compile(rf"{os.strerror(errno.ENOSPC)}|OSError: \d+ requested and \d+ written")
DECISION = re.compile(r"^(?:promote|hold|reject|unchanged): .+")
DECIDING = ("deploy", "evaluate", "fingerprint")  # the later has the last word
# What KFP's executor and launcher and Argo's write around a step's own lines, and the marks of tracebacks.
NOISE = re.compile(
    r"^\[KFP Executor|^time=|^[IWEF]\d{4} \d\d:\d\d:\d\d|^\s*[\^~]+\s*$|^Error: exit status \d+$|^\s*$"
)
VALUES = re.compile(r"Got executor_input:$|^I\d{4} .*\{$")  # behind them comes a value as JSON on many lines
KILLED = re.compile(r"exit status 137|signal: killed")
FAULT = re.compile(r"^[EF]\d{4} [^\]]*\] (.*)")
LAST, MOST = 3, 5


def error_in(lines: Sequence[str]) -> ModelyardError | None:
    """Return the error that a step raised on purpose."""
    return from_log(list(lines))


def no_room(lines: Sequence[str]) -> bool:
    """Say whether a step found no room on a disk; a StoreError says itself where."""
    return any(map(NO_ROOM.search, lines)) and not isinstance(error_in(lines), StoreError)


def killed(lines: Sequence[str]) -> bool:
    """Say whether KFP's launcher saw its step killed, as the kernel does that is short of memory."""
    return any(FAULT.match(line) and KILLED.search(line) for line in lines)


def silent(lines: Sequence[str]) -> bool:
    """Say whether a step left no message: something ended it from outside."""
    return not any(line.lstrip().startswith("Traceback") for line in lines)


def last_words(lines: Sequence[str]) -> str:
    """Return on one line what a step said last: its exception, else its last lines, else KFP's launcher's."""
    mine = own(lines)
    faults = [found[1] for line in lines if (found := FAULT.match(line))]
    said = _exception(mine) or mine[-LAST:] or faults[-1:]
    return " | ".join(line.strip() for line in said[:MOST])


def own(lines: Iterable[str]) -> list[str]:
    """Return the lines that a step itself wrote."""
    return list(spoken(lines))


def spoken(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines that a step itself writes, as they come."""
    within = False
    for line in lines:
        if within:
            within = line != "}"
        elif VALUES.search(line):
            within = True
        elif not NOISE.match(line):
            yield line


def whole(lines: Sequence[str]) -> Sequence[str]:
    """Return the last lines of a log without the rest of a value that began before them."""
    for number, line in enumerate(lines):
        if VALUES.search(line):
            break
        if line == "}":
            return lines[number + 1 :]
    return lines


def _exception(lines: Sequence[str]) -> Sequence[str]:
    """Return the lines of the last exception that was not caught, below its traceback."""
    starts = [number for number, line in enumerate(lines) if line.startswith("Traceback ")]
    if not starts:
        return ()
    below = lines[starts[-1] + 1 :]
    first = next((number for number, line in enumerate(below) if not line.startswith(" ")), len(below))
    return below[first:]


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
