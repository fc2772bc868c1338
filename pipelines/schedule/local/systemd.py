"""A timer of the user's systemd, with the service that it starts: two files, both with the mark."""

import os
from getpass import getuser
from pathlib import Path
from shutil import which

from modelyard.components.errors import ConfigError, ConflictError
from modelyard.pipelines.schedule import mark as marks
from modelyard.pipelines.schedule.cron import Cron
from modelyard.pipelines.schedule.local.files import changing, write
from modelyard.pipelines.schedule.local.job import Job
from modelyard.pipelines.schedule.local.table import Entry, call

BOOTED = Path("/run/systemd/system")
LINGER = Path("/var/lib/systemd/linger")
PREFIX = "modelyard-"
WHERE = "XDG_CONFIG_HOME"
SERVICE = """\
# {mark}
[Unit]
Description=modelyard run of {name}

[Service]
Type=oneshot
WorkingDirectory={folder}
Environment={home}
ExecStart={words}
TimeoutStartSec={deadline}
"""
TIMER = """\
# {mark}
[Unit]
Description=modelyard schedule of {name}

[Timer]
{calendars}
Persistent={catch_up}
AccuracySec=1s

[Install]
WantedBy=timers.target
"""


class Timers:
    """The user's timers; a `Table`, whose methods say what each does."""

    def __init__(self) -> None:
        self.where = f"the timers of {getuser()} in systemd"

    def check(self, job: Job) -> None:
        """Look whether a job can be kept."""
        for path in (_path(job.name, "timer"), _path(job.name, "service")):
            if path.exists() and marks.find(path.read_text(encoding="utf-8")) is None:
                raise ConflictError(
                    f"There is {path}, and modelyard did not make it, so it is left alone. Remove it, or "
                    "give the model another name."
                )

    def entries(self) -> dict[str, Entry]:
        """Return modelyard's jobs by the model's name."""
        found = (marks.find(path.read_text(encoding="utf-8")) for path in _folder().glob(f"{PREFIX}*.timer"))
        return {mark.name: Entry(mark, _on(mark.name)) for mark in found if mark}

    def put(self, job: Job, *, on: bool) -> None:
        """Write a job in the place of the one of its name."""
        for kind, text in (("service", _service(job)), ("timer", _timer(job))):
            write(_path(job.name, kind), text, WHERE)
        _systemctl("daemon-reload")
        self.switch(job.name, on=on)

    def switch(self, name: str, *, on: bool) -> None:
        """Let a job be started, or not."""
        timer = f"{PREFIX}{name}.timer"
        if on:
            _systemctl("enable", timer)
            _systemctl("restart", timer)
        else:
            _systemctl("disable", "--now", timer)

    def remove(self, name: str) -> None:
        """Remove a job."""
        self.switch(name, on=False)
        with changing(_folder(), WHERE):
            for kind in ("service", "timer"):  # the timer last: without it nobody would know of the service
                _path(name, kind).unlink(missing_ok=True)
        _systemctl("daemon-reload")

    def start(self, name: str) -> str:
        """Start a job now, unless it runs."""
        service = f"{PREFIX}{name}.service"
        _systemctl("start", "--no-block", service)
        return f"journalctl --user -u {service}"

    def notes(self) -> tuple[str, ...]:
        """Return what one must know beside."""
        if (LINGER / getuser()).exists():
            return ()
        return ("systemd starts it only while you are logged in; `loginctl enable-linger` changes that.",)


def runs_here() -> bool:
    """Say whether the user has a systemd."""
    if not BOOTED.is_dir() or which("systemctl") is None:
        return False
    try:
        _systemctl("show-environment")
    except ConfigError:
        return False
    return True


def _on(name: str) -> bool | None:
    """Say whether a timer is started, now and after the next boot; None when it is not one like the other."""
    kinds = ("ActiveState", "UnitFileState", "NeedDaemonReload")
    said = _systemctl("show", *(f"--property={kind}" for kind in kinds), f"{PREFIX}{name}.timer")
    state = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    active, enabled = state.get("ActiveState") == "active", state.get("UnitFileState") == "enabled"
    return active if active == enabled and state.get("NeedDaemonReload") != "yes" else None


def _service(job: Job) -> str:
    return SERVICE.format(
        mark=job.mark.text(),
        name=job.name,
        folder=str(job.folder).replace("%", "%%"),
        home=_quoted(f"MODELYARD_HOME={job.home}"),
        words=" ".join(_quoted(word).replace("$", "$$") for word in job.words),
        deadline=job.deadline,
    )


def _timer(job: Job) -> str:
    calendars = Cron.parse(job.schedule.cron).calendars(job.schedule.time_zone)
    return TIMER.format(
        mark=job.mark.text(),
        name=job.name,
        calendars="\n".join(f"OnCalendar={one}" for one in calendars),
        catch_up="true" if job.schedule.catch_up else "false",
    )


def _quoted(word: str) -> str:
    """Return a word as systemd.syntax(7) reads it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _folder() -> Path:
    return Path(os.environ.get(WHERE) or Path.home() / ".config") / "systemd" / "user"


def _path(name: str, kind: str) -> Path:
    return _folder() / f"{PREFIX}{name}.{kind}"


def _systemctl(*words: str) -> str:
    return call("systemctl", "--user", *words)
