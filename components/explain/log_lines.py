"""The lines that a step itself wrote, to be shown to people. Nothing is concluded from what they say."""

import re
from collections.abc import Iterable, Iterator, Sequence

LAST = 5  # lines of a log that are quoted
# Lines of KFP's executor and launcher and of Argo, by their prefixes, and empty ones.
_FRAMING = re.compile(r"\[KFP Executor|time=|[IWEF]\d{4} \d\d:\d\d:\d\d|Error: exit status \d+$|\s*$")
_DUMP = re.compile(
    r"(?:\[KFP Executor|[IWEF]\d{4} ).*(?:Got executor_input:|\{)$"
)  # before JSON on many lines


def step_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a log that the step itself wrote, as they come."""
    within_json = False
    for line in lines:
        if within_json:
            within_json = line != "}"
        elif _DUMP.match(line):
            within_json = True
        elif not _FRAMING.match(line):
            yield line


def has_traceback(lines: Iterable[str]) -> bool:
    """Say whether a Python program ended with an exception; otherwise something ended it from outside."""
    return any(line.startswith("Traceback ") for line in lines)


def last_line(lines: Iterable[str]) -> str:
    """Return the last line that the step itself wrote; empty if it wrote none."""
    return next(reversed(list(step_lines(lines))), "")


def quote_end(lines: Sequence[str]) -> str:
    """Return the last lines of a log verbatim: the step's own, or, if it wrote none, those around them."""
    last = list(step_lines(lines))[-LAST:] or [line for line in lines if line.strip()][-LAST:]
    return "\n".join(["Its log ends:", *last]) if last else "It wrote no log."
