"""Lines of the user's crontab; those of others stay as they are, byte for byte.

A job is two lines, a comment with its mark, and the command, whose end names it and which is a comment, too,
while it is paused:

    # modelyard.dev/schedule {"name": "digits", …}
    0 3 * * 1 cd /home/me && … flock … timeout … modelyard run … # modelyard.dev/schedule digits
"""

import re
import shlex
import subprocess
from getpass import getuser
from pathlib import Path
from shutil import which
from zoneinfo import ZoneInfo

from modelyard.components.errors import ConfigError
from modelyard.pipelines.schedule import mark as marks
from modelyard.pipelines.schedule.cron import Cron
from modelyard.pipelines.schedule.local.job import Job
from modelyard.pipelines.schedule.local.table import Entry, call
from modelyard.pipelines.schedule.mark import SIGN
from modelyard.pipelines.schedule.state import absent

PAUSED = "# paused: "
TAGGED = re.compile(
    rf"(?P<paused>{PAUSED})?(?P<when>(\S+ ){{5}})(?P<command>.*) # {re.escape(SIGN)} (?P<name>[a-z0-9-]+)\n"
)
LONGEST = 990  # Debian's cron takes 1000
KILL_AFTER = 60
LOCALTIME = Path("/etc/localtime")


class Crontab:
    """The user's crontab; a `Table`, whose methods say what each does."""

    def __init__(self) -> None:
        self.where = f"the crontab of {getuser()}"

    def check(self, job: Job) -> None:
        """Look whether a job can be kept."""
        for program, package in (("flock", "util-linux"), ("timeout", "coreutils")):
            if which(program) is None:
                raise ConfigError(
                    f"A line of the crontab needs the program {program}, which this machine lacks. Install "
                    f"it; it belongs to {package}."
                )
        if job.schedule.catch_up:
            raise ConfigError(
                "schedule.catch_up is true, and cron makes up for nothing; systemd would, and does not run "
                "here. Set schedule.catch_up to false."
            )
        line = _line(job, on=True)
        if len(line) > LONGEST or "\n" in line:
            raise ConfigError(
                f"cron takes one line of {LONGEST} characters, and the one for {job.name} has {len(line)}: "
                f"{line[:60]}… Set MODELYARD_HOME to a folder with a shorter name, and start there."
            )

    def entries(self) -> dict[str, Entry]:
        """Return modelyard's jobs by the model's name."""
        lines = _read()
        marked = {mark.name: mark for line in lines if line.startswith("#") and (mark := marks.find(line))}
        tagged = {found["name"]: found for line in lines if (found := TAGGED.fullmatch(line))}
        return {name: Entry(marked.get(name), not one["paused"]) for name, one in tagged.items()}

    def put(self, job: Job, *, on: bool) -> None:
        """Write a job in the place of the one of its name."""
        lines = _read()
        mine = [number for number, line in enumerate(lines) if _owner(line) == job.name]
        place = mine[0] if mine else len(lines)
        after = [line for line in lines[place:] if _owner(line) != job.name]
        _write([*lines[:place], f"# {job.mark.text()}\n", f"{_line(job, on=on)}\n", *after])

    def switch(self, name: str, *, on: bool) -> None:
        """Let a job be started, or not."""
        start = "" if on else PAUSED
        _write(
            [
                start + line.removeprefix(PAUSED)
                if (found := TAGGED.fullmatch(line)) and found["name"] == name
                else line
                for line in _read()
            ]
        )

    def remove(self, name: str) -> None:
        """Remove a job."""
        _write([line for line in _read() if _owner(line) != name])

    def start(self, name: str) -> str:
        """Start a job now, as cron would."""
        jobs = {found["name"]: found for line in _read() if (found := TAGGED.fullmatch(line))}
        if name not in jobs:  # somebody else removed it meanwhile
            raise absent(name, list(jobs))
        command = jobs[name]["command"].replace(r"\%", "%")
        subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=Path.home(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return shlex.split(command)[-2]

    def notes(self) -> tuple[str, ...]:
        """Return what one must know beside: nothing."""
        return ()


def _read() -> list[str]:
    return call("crontab", "-l", unless="no crontab for").splitlines(keepends=True)


def _write(lines: list[str]) -> None:
    call("crontab", "-", given="".join(lines))


def _owner(line: str) -> str | None:
    """Return the model whose job a line belongs to, if it is modelyard's."""
    if found := TAGGED.fullmatch(line):
        return found["name"]
    mark = marks.find(line) if line.startswith(f"# {SIGN} ") else None
    return mark.name if mark else None


def _line(job: Job, *, on: bool) -> str:
    log, lock = job.path.with_name("log.txt"), job.path.with_name("lock")
    alone = ("flock", "--nonblock", "--close", str(lock))
    in_time = ("timeout", f"--kill-after={KILL_AFTER}", str(job.deadline))
    command = (
        f"cd {shlex.quote(str(job.folder))} && MODELYARD_HOME={shlex.quote(str(job.home))} "
        f"{shlex.join([*alone, *in_time, *job.words])} >> {shlex.quote(str(log))} 2>&1"
    ).replace("%", r"\%")  # which cron takes for the end of the line
    return f"{'' if on else PAUSED}{_when(job)} {command} # {SIGN} {job.name}"


def _when(job: Job) -> str:
    """Return the fields in the zone of this machine, which is cron's."""
    schedule = job.schedule
    try:
        return Cron.parse(schedule.cron).in_zone(ZoneInfo(schedule.time_zone), _zone()).line()
    except ValueError as error:
        raise ConfigError(
            f'schedule.cron is "{schedule.cron}" in {schedule.time_zone}. cron reads it in the zone of this '
            f"machine ({LOCALTIME}), and there no cron line says that: {error}. Set schedule.time_zone to "
            "that zone."
        ) from error


def _zone() -> ZoneInfo:
    try:
        with LOCALTIME.open("rb") as file:
            return ZoneInfo.from_file(file)
    except FileNotFoundError:
        return ZoneInfo("UTC")
