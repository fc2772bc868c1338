"""What a schedule does on this machine, whatever starts it."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelyard.components.errors import ConfigError
from modelyard.pipelines.config import text as config_text
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners import runs
from modelyard.pipelines.runners.differences import Change, differences, flat
from modelyard.pipelines.schedule.local import systemd
from modelyard.pipelines.schedule.local.crontab import Crontab
from modelyard.pipelines.schedule.local.files import changing
from modelyard.pipelines.schedule.local.job import Job
from modelyard.pipelines.schedule.local.table import Entry, Table
from modelyard.pipelines.schedule.state import (
    CODE,
    Plan,
    Scheduled,
    absent,
    check_owner,
    next_fires,
)


class LocalScheduler:
    """The schedules of this machine; a `Scheduler`, whose methods say what each does."""

    def __init__(self, table: Table, deadline: int) -> None:
        self.table, self.deadline = table, deadline

    def plan(self, config: Config) -> Plan:
        """Return what `apply` would do."""
        return self._plan(self._job(config))

    def apply(self, config: Config) -> Plan:
        """Make the job be what the configuration says."""
        job = self._job(config)
        with _alone():
            plan, paused = self._plan(job), job.schedule.paused
            before = self.table.entries().get(job.name)
            if plan.action in ("create", "replace"):
                job.keep(before.mark.config if before and before.mark else None)
                self.table.put(job, on=not paused)
            elif plan.action != "nothing":
                self.table.switch(job.name, on=not paused)
        return plan

    def all(self) -> list[Scheduled]:
        """Return modelyard's jobs."""
        return [self._shown(one.mark, on=bool(one.on)) for one in self.table.entries().values() if one.mark]

    def pause(self, name: str) -> None:
        """Start no more runs."""
        with _alone():
            self._known(name)
            self.table.switch(name, on=False)

    def resume(self, name: str) -> None:
        """Start runs again."""
        with _alone():
            self._known(name)
            self.table.switch(name, on=True)

    def delete(self, name: str) -> None:
        """Remove the job, and its configurations; what a run in flight holds and writes stays."""
        with _alone():
            entry = self._known(name)
            self.table.remove(name)
            if entry.mark and entry.mark.config:
                folder = Path(entry.mark.config).parent
                with changing(folder, "MODELYARD_HOME"):
                    for path in folder.glob("*.yaml"):
                        path.unlink()

    def run_now(self, name: str) -> str:
        """Start a run as the job would, unless one is in flight."""
        self._known(name)
        return self.table.start(name)

    def _job(self, config: Config) -> Job:
        job = Job.of(config, runs.home(), self.deadline)
        self.table.check(job)
        return job

    def _plan(self, job: Job) -> Plan:
        entry, paused = self.table.entries().get(job.name), job.schedule.paused
        common: dict[str, Any] = {
            "name": job.name,
            "where": self.table.where,
            "next": next_fires(job.mark.schedule, paused),
            "notes": self.table.notes(),
        }
        if entry is None:
            return Plan(action="create", **common)
        if entry.mark is None:
            return Plan(action="replace", changes=(Change(key=CODE),), **common)
        check_owner(entry.mark, job.mark, f"a schedule in {self.table.where}")
        changes = _changes(entry, job)
        if entry.mark.sha256 != job.mark.sha256 or not job.path.is_file():
            return Plan(action="replace", changes=changes or (Change(key=CODE),), **common)
        if entry.on == (not paused):
            return Plan(action="nothing", **common)
        return Plan(action="pause" if paused else "resume", changes=changes, **common)

    def _known(self, name: str) -> Entry:
        there = self.table.entries()
        if name not in there:
            raise absent(name, list(there))
        return there[name]

    def _shown(self, mark: Any, *, on: bool) -> Scheduled:
        return Scheduled(
            name=mark.name,
            store=mark.store,
            cron=mark.schedule["cron"],
            time_zone=mark.schedule["time_zone"],
            paused=not on,
            next=next_fires(mark.schedule, paused=not on),
            id=mark.name,
            where=self.table.where,
        )


def find_scheduler(environment: Environment) -> LocalScheduler:
    """Return what starts runs on this machine: systemd where the user has one, else cron.

    Raises:
        ConfigError: there is neither.
    """
    if systemd.runs_here():
        return LocalScheduler(systemd.Timers(), environment.active_deadline)
    if shutil.which("crontab"):
        return LocalScheduler(Crontab(), environment.active_deadline)
    raise ConfigError(
        "Nothing on this machine starts runs by the clock: your user has no systemd, and there is no "
        "crontab. Install cron, or start `modelyard run CONFIG --skip-unchanged` from what you have."
    )


def _changes(entry: Entry, job: Job) -> tuple[Change, ...]:
    mark = entry.mark
    path = Path(mark.config) if mark and mark.config else None
    kept = path.read_text(encoding="utf-8") if path and path.is_file() else "{}"
    before = {**(mark.schedule if mark else {}), "paused": not entry.on}
    return differences(
        flat({**config_text.parse(kept, str(path)).value, "schedule": before}),
        flat({**config_text.parse(job.text, str(job.path)).value, "schedule": job.mark.schedule}),
    )


@contextmanager
def _alone() -> Iterator[None]:
    """Let one command of the user at a time change the schedules of this machine."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "modelyard"
    lock = folder / "schedule.lock"
    with changing(folder, "XDG_STATE_HOME"):
        folder.mkdir(parents=True, exist_ok=True)
        lock.touch()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
