"""What starts jobs at their time on this machine: cron or systemd."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from modelyard.components.errors import ConfigError
from modelyard.pipelines.schedule.local.job import Job
from modelyard.pipelines.schedule.mark import Mark

LONGEST = 60.0  # seconds that such a program may take


@dataclass(frozen=True)
class Entry:
    """A job of modelyard's: its mark, None when it was damaged; whether it is started, None when half."""

    mark: Mark | None
    on: bool | None


class Table(Protocol):
    """The jobs of a user; `where` is in words.

    Its methods raise ConfigError when the program behind it fails.
    """

    where: str

    def check(self, job: Job) -> None:
        """Look whether a job can be kept.

        Raises:
            ConfigError: not as asked for.
            ConflictError: somebody else has its name.
        """

    def entries(self) -> dict[str, Entry]:
        """Return modelyard's jobs by the model's name."""

    def put(self, job: Job, *, on: bool) -> None:
        """Write a job in the place of the one of its name; what that started goes on."""

    def switch(self, name: str, *, on: bool) -> None:
        """Let a job be started, or not."""

    def remove(self, name: str) -> None:
        """Remove a job; what it started goes on."""

    def start(self, name: str) -> str:
        """Start a job now, unless it runs, and return where to read what it says.

        Raises:
            NotFoundError: it is not there any more.
        """

    def notes(self) -> tuple[str, ...]:
        """Return what one must know beside."""


def call(*words: str, given: str | None = None, unless: str = "") -> str:
    """Run a program and return what it prints.

    Args:
        words: the program and its arguments.
        given: its standard input.
        unless: what it complains about when nothing is wrong.

    Raises:
        ConfigError: it fails, or does not end.
    """
    try:
        ended = subprocess.run(
            words,
            input=given,
            capture_output=True,
            check=False,
            timeout=LONGEST,
            encoding="utf-8",
            errors="surrogateescape",  # whatever bytes others wrote come back as they were
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(words, f"it has not ended after {error.timeout:g} s") from error
    except OSError as error:
        raise _failed(words, error.strerror or str(error)) from error
    if ended.returncode and not (unless and unless in ended.stderr):
        raise _failed(words, ended.stderr.strip() or f"it ends with {ended.returncode}")
    return ended.stdout


def _failed(words: Sequence[str], why: str) -> ConfigError:
    return ConfigError(f"`{' '.join(words)}` fails on this machine: {why}. Try it by hand.")
