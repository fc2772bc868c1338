"""What a configuration asks for and what is there, in the same words for every place that runs schedules."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Protocol
from zoneinfo import ZoneInfo

from modelyard.components.artifacts import Record
from modelyard.components.errors import ConfigError, ConflictError, NotFoundError
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.config.schedule import Schedule
from modelyard.pipelines.runners.differences import Change
from modelyard.pipelines.schedule.cron import Cron
from modelyard.pipelines.schedule.mark import Mark

CODE = "code or environment"


class Plan(Record):
    """What `apply` does, or did: `next` are the next fires, `notes` what one must know beside."""

    name: str
    action: Literal["create", "replace", "pause", "resume", "nothing"]
    changes: tuple[Change, ...] = ()
    next: tuple[str, ...] = ()
    where: str
    notes: tuple[str, ...] = ()


class Scheduled(Record):
    """A schedule that is there; `id` is its name or number in its place, `where` that in words."""

    name: str
    store: str
    cron: str
    time_zone: str
    paused: bool
    next: tuple[str, ...]
    id: str
    where: str


class Scheduler(Protocol):
    """What starts runs: Kubeflow Pipelines, systemd or cron.

    Its methods raise ConfigError for what it cannot do, NotFoundError for a schedule that is not there,
    ConflictError for a name that belongs to somebody else, and BackendError when it fails.
    """

    def plan(self, config: Config) -> Plan:
        """Return what `apply` would do; nothing is changed."""

    def apply(self, config: Config) -> Plan:
        """Make the schedule be what the configuration says; runs in flight go on."""

    def all(self) -> list[Scheduled]:
        """Return modelyard's schedules."""

    def pause(self, name: str) -> None:
        """Start no more runs; one in flight goes on."""

    def resume(self, name: str) -> None:
        """Start runs again from the next fire on."""

    def delete(self, name: str) -> None:
        """Remove a schedule; a run in flight goes on."""

    def run_now(self, name: str) -> str:
        """Start a run as the schedule would, and return where to look for it."""


def schedule_of(config: Config) -> Schedule:
    """Return the section `schedule`.

    Raises:
        ConfigError: there is none.
    """
    if config.schedule is None:
        raise ConfigError(
            f"The configuration of {config.name} has no section `schedule`. Add one with the key cron, as in "
            'schedule: {cron: "0 3 * * 1"}, or --set schedule.cron="0 3 * * 1".'
        )
    return config.schedule


def mark_of(config: Config, contents: Mapping[str, Any]) -> Mark:
    """Return the mark of what a configuration asks for, of the first generation.

    Args:
        config: the configuration.
        contents: all that a run is made of, as JSON.
    """
    schedule = schedule_of(config)
    asked = [schedule.model_dump(exclude={"paused"}), contents]
    return Mark(
        name=config.name,
        store=config.store.url,
        sha256=hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32],
        schedule=schedule.model_dump(mode="json"),
    )


def check_owner(there: Mark, wanted: Mark, where: str) -> None:
    """Refuse a name that models of another store have.

    Args:
        there: the mark of what has the name.
        wanted: that of what is asked for.
        where: what has the name.

    Raises:
        ConflictError: it is not of this store.
    """
    if there.store != wanted.store:
        raise ConflictError(
            f"There is {where}, for models in the store {there.store}, and this configuration's store is "
            f"{wanted.store}. Remove it with `modelyard schedule delete {there.name}` if it is yours, or "
            "give the model another name."
        )


def next_fires(schedule: Mapping[str, Any], paused: bool = False) -> tuple[str, ...]:
    """Return the next three times in the schedule's own zone; none when it is paused."""
    if paused:
        return ()
    now = datetime.now(ZoneInfo(schedule["time_zone"]))
    return tuple(fire.isoformat() for fire in Cron.parse(schedule["cron"]).fires(now))


def absent(name: str, others: list[str]) -> NotFoundError:
    """Return the error for a schedule that is not there."""
    there = f"there are those of {', '.join(sorted(others))}" if others else "modelyard has made none here"
    return NotFoundError(
        f"There is no schedule of {name}; {there}. `modelyard schedule apply CONFIG` makes one, and "
        "-e names where."
    )
