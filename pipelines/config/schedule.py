"""`schedule`: when the pipeline runs by itself."""

from typing import Self
from zoneinfo import available_timezones

from pydantic import Field, field_validator, model_validator

from modelyard.components.settings import Settings
from modelyard.pipelines.config.durations import PATTERN
from modelyard.pipelines.config.problems import did_you_mean
from modelyard.pipelines.schedule.cron import Cron


class Schedule(Settings):
    """When the pipeline runs by itself. It does not belong to what identifies a run."""

    cron: str = Field(
        description='Five fields in quotes: minute, hour, day of the month, month, weekday, as "0 3 * * 1" '
        "for Mondays at 3:00."
    )
    time_zone: str = Field(
        default="UTC", description="The zone of `cron`, as Europe/Berlin or America/New_York."
    )
    concurrency: int = Field(
        default=1,
        ge=1,
        le=10,
        description="Most runs at the same time; one that is due beyond it waits, "
        "and is left out on this machine, where it must be 1.",
    )
    catch_up: bool = Field(
        default=False,
        description="Make up for what was missed while this was paused or nothing ran: on Kubeflow "
        "Pipelines each of the runs, with systemd one.",
    )
    paused: bool = Field(default=False, description="Start no runs.")
    skip_unchanged: bool = Field(
        default=True,
        description="End a run early when the champion was made of the same data, configuration and code.",
    )
    force_after: str | None = Field(
        default=None,
        pattern=PATTERN,
        description="Train again all the same when the champion is older than this, as 12h, 30d or 8w.",
    )

    @field_validator("cron")
    @classmethod
    def _fires(cls, line: str) -> str:
        """Refuse a line that means nothing or never fires."""
        Cron.parse(line)
        return line

    @field_validator("time_zone")
    @classmethod
    def _known(cls, name: str) -> str:
        """Refuse a zone that nobody knows."""
        return known_zone(name)

    @model_validator(mode="after")
    def _together(self) -> Self:
        """Refuse an age that nothing looks at."""
        if self.force_after and not self.skip_unchanged:
            raise ValueError(
                "schedule.force_after is for schedule.skip_unchanged, and without that every run trains: "
                "remove one of the two"
            )
        return self


def known_zone(name: str) -> str:
    """Return the name of a time zone.

    Raises:
        ValueError: nobody knows it.
    """
    if name != "UTC" and name not in (known := available_timezones()):
        near = did_you_mean(name, sorted(known)) or ". Write it as Europe/Berlin, or UTC"
        raise ValueError(f'"{name}" is no time zone that this machine knows{near}'.rstrip("?."))
    return name
