"""What kfp.local prints, sorted: each step's lines go to its own log, and its state is kept.

kfp.local has no events; it tells in lines of a fixed form when a task starts, ends or comes from the cache
(the cache says so through `logging`, everything else through `sys.stdout`). Output of a step is indented,
so that no step can forge such a line.
"""

import io
import logging
import re
import time
from pathlib import Path

from modelyard.pipelines.runners.runs import State, Step

_COLOUR = re.compile(r"\x1b\[\d+m")
_EVENT = re.compile(
    r"^\d\d:\d\d:\d\d\.\d+ - (?:INFO|ERROR) - Task '(?P<ended>[\w-]+)' finished with status (?P<status>\w+)"
    r"|^\d\d:\d\d:\d\d\.\d+ - INFO - Executing task '(?P<started>[\w-]+)'"
)
_CACHED = re.compile(r"^Task (?P<task>[\w-]+) cache hit \(key=(?P<key>\w+)\)")


class StepLog(io.TextIOBase):
    """A text stream for kfp.local to print to.

    Args:
        steps: the steps' names, in order.
        logs: folder for one `<step>.log` each.

    Attributes:
        last_line: what the step at work said last.
        hits: for each step whose outputs came from the cache, with what the name of its entry begins.
    """

    def __init__(self, steps: tuple[str, ...], logs: Path) -> None:
        self.last_line = ""
        self.hits: dict[str, str] = {}
        self._steps = {name: _Timer() for name in steps}
        self._logs = logs
        self._current: str | None = None
        self._rest = ""
        self._file: io.TextIOBase | None = None

    def writable(self) -> bool:
        """Say that this is a stream to write to."""
        return True

    def write(self, text: str) -> int:
        """Take text as it comes and handle each whole line."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(_COLOUR.sub("", line))
        return len(text)

    def cached(self, step: str, key: str) -> None:
        """Note that the step's outputs came from the cache, from the entry whose name begins with `key`."""
        self._steps[step].end("succeeded", cached=True)
        self.hits[step] = key

    def steps(self) -> tuple[Step, ...]:
        """Return every step as it is now."""
        return tuple(
            Step(name=name, state=timer.state, seconds=round(timer.seconds(), 3), cached=timer.cached)
            for name, timer in self._steps.items()
        )

    def settle(self) -> None:
        """Say that nothing runs any more: what never started was skipped."""
        for timer in self._steps.values():
            if timer.state == "waiting":
                timer.state = "skipped"
            elif timer.state == "running":
                timer.end("failed")
        if self._file:
            self._file.close()

    def path(self, step: str) -> Path:
        """Return the step's log file."""
        return self._logs / f"{step}.log"

    def lines(self, step: str) -> list[str]:
        """Return the lines that the step printed, without kfp.local's own."""
        if not self.path(step).exists():
            return []
        return self.path(step).read_text(encoding="utf-8", errors="replace").splitlines()

    def _line(self, line: str) -> None:
        if found := _EVENT.match(line):
            if found["started"]:
                self._start(found["started"])
            else:
                self._steps[found["ended"]].end("succeeded" if found["status"] == "SUCCESS" else "failed")
                self._current = None
        elif self._current and self._file and line.startswith("    "):
            self._file.write(line[4:] + "\n")
            self._file.flush()
            self.last_line = line.strip() or self.last_line

    def _start(self, step: str) -> None:
        if self._file:
            self._file.close()
        self._current, self.last_line = step, ""
        self._file = self.path(step).open("w", encoding="utf-8")
        self._steps[step].start()


class CacheHits(logging.Handler):
    """Hands the cache's hits on to a `StepLog`."""

    def __init__(self, log: StepLog) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Look for a hit in the record."""
        if found := _CACHED.match(record.getMessage()):
            self._log.cached(found["task"], found["key"])


class _Timer:
    """The state of one step and its wall time."""

    def __init__(self) -> None:
        self.state: State = "waiting"
        self.cached = False
        self._started = self._ended = 0.0

    def start(self) -> None:
        self.state, self._started = "running", time.monotonic()

    def end(self, state: State, *, cached: bool = False) -> None:
        self.state, self.cached, self._ended = state, cached, time.monotonic()
        self._started = self._ended if cached else self._started

    def seconds(self) -> float:
        if self.state == "running":
            return time.monotonic() - self._started
        return self._ended - self._started
