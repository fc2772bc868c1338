"""The section `schedule`: cron lines and time zones."""

from datetime import UTC, datetime
from typing import Self
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator, model_validator

from modelyard.components.settings import Settings
from modelyard.pipelines.config.errors import did_you_mean
from modelyard.pipelines.config.text import DURATION

FIELDS = "minute, hour, day of the month, month, weekday, as in 0 3 * * 1 for Mondays at 3:00"
MAX_LENGTH = 189
"""Kubeflow Pipelines' database takes 191 characters, seconds included."""


class Schedule(Settings):
    """When Kubeflow Pipelines starts runs. It is not part of what identifies a run."""

    cron: str = Field(
        description='Five fields in quotes: minute, hour, day of the month, month, weekday, as "0 3 * * 1" '
        "for Mondays at 3:00."
    )
    time_zone: str = Field(
        default="UTC",
        description="Time zone of `cron`. It must be that of the server, environment.kfp.time_zone.",
    )
    concurrency: int = Field(
        default=1,
        ge=1,
        le=10,
        description="Maximum number of runs at the same time; a run that is due beyond it waits.",
    )
    catch_up: bool = Field(
        default=False, description="Start the runs that were due while the schedule was paused, too."
    )
    paused: bool = Field(default=False, description="Start no runs.")
    skip_unchanged: bool = Field(
        default=True,
        description="End a run early when the champion was made of the same data, configuration and code.",
    )
    force_after: str | None = Field(
        default=None,
        pattern=DURATION,
        description="With skip_unchanged: train again when the champion is older than this, as 12h or 30d.",
    )

    @field_validator("cron")
    @classmethod
    def _check_cron(cls, line: str) -> str:
        numeric_cron(line)
        return line

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, name: str) -> str:
        return check_time_zone(name)

    @model_validator(mode="after")
    def _check_force_after(self) -> Self:
        if self.force_after and not self.skip_unchanged:
            raise ValueError(
                "schedule.force_after needs schedule.skip_unchanged, and without that every run trains: "
                "remove one of the two"
            )
        return self


def numeric_cron(line: str) -> str:
    """Return a cron line of five fields with numbers only, which every cron reads in the same way.

    Raises:
        ValueError: it is not a cron line, crons disagree about it, or it is never due.
    """
    fields = line.upper().split()
    if len(fields) != 5:
        hint = ": remove the seconds" if len(fields) == 6 else ""
        raise ValueError(f'"{line}" does not have five fields{hint}. They are {FIELDS}')
    day, weekday = fields[2], fields[4]
    if set("L#") & set(day + weekday):
        raise ValueError(f'"{line}" uses L or #, which not every cron knows. List the days')
    if "*" not in (day, weekday) and (day.startswith("*") or weekday.startswith("*")):
        raise ValueError(
            f'"{line}" restricts days of the month and weekdays, one of them by */n: crons disagree about '
            "that. List the days, or restrict one of the two"
        )
    try:
        parsed = CronSim(line, datetime.now(UTC))
    except CronSimError as error:
        raise ValueError(
            f'"{line}" is never due, or not a cron line: {error}. The fields are {FIELDS}'
        ) from error
    weekdays = {day % 7 for day in parsed.weekdays if isinstance(day, int)}  # 0 and 7 are Sunday
    numbers = (parsed.minutes, parsed.hours, parsed.days, parsed.months, weekdays)
    numeric = " ".join(
        field if field.startswith("*") else ",".join(map(str, sorted(values)))
        for field, values in zip(fields, numbers, strict=True)
    )
    if len(numeric) > MAX_LENGTH:
        raise ValueError(
            f'"{line}" is {len(numeric)} characters long as numbers; Kubeflow Pipelines takes {MAX_LENGTH}. '
            "Use fewer times"
        )
    return numeric


def check_time_zone(name: str) -> str:
    """Return the name of a time zone.

    Raises:
        ValueError: it is unknown.
    """
    try:
        ZoneInfo(name)
    except (ValueError, KeyError, OSError) as error:  # OSError: a directory of the database, such as Europe
        near = did_you_mean(name, sorted(available_timezones())) or ". Write it as Europe/Berlin, or UTC"
        raise ValueError(f'"{name}" is not a known time zone{near}') from error
    return name
