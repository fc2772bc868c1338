"""The section `schedule`: cron expressions and time zones."""

from datetime import UTC, datetime
from typing import Self
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator, model_validator

from modelyard.components.settings import Settings
from modelyard.pipelines.config.text import DURATION
from modelyard.pipelines.config.validation import did_you_mean

FIELDS = "minute, hour, day of the month, month, weekday, such as 0 3 * * 1 for Mondays at 3:00"
MAX_LENGTH = 189
"""Characters of a cron expression: the database of KFP allows 191, including the seconds."""


class Schedule(Settings):
    """The recurring run on Kubeflow Pipelines. Not part of a run's fingerprint."""

    cron: str = Field(
        description="Cron expression in quotes: minute, hour, day of month, month, weekday; such as "
        '"0 3 * * 1" for Mondays at 3:00.'
    )
    time_zone: str = Field(
        default="UTC",
        description="Time zone of `cron`. Must be that of the KFP server, environment.kfp.time_zone.",
    )
    concurrency: int = Field(
        default=1, ge=1, le=10, description="Maximum number of concurrent runs; further runs wait."
    )
    catch_up: bool = Field(
        default=False, description="After a pause, also start the runs that were due during the pause."
    )
    paused: bool = Field(default=False, description="Create the recurring run, but do not start runs.")
    skip_unchanged: bool = Field(
        default=True,
        description="End a run without training if the champion has the same data, configuration and code.",
    )
    force_after: str | None = Field(
        default=None,
        pattern=DURATION,
        description="With skip_unchanged: train anyway if the champion is older than this, such as 12h or "
        "30d.",
    )

    @field_validator("cron")
    @classmethod
    def _check_cron(cls, line: str) -> str:
        to_numeric_cron(line)
        return line

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, name: str) -> str:
        return check_time_zone(name)

    @model_validator(mode="after")
    def _check_force_after(self) -> Self:
        if self.force_after and not self.skip_unchanged:
            raise ValueError(
                "schedule.force_after requires schedule.skip_unchanged: true: set it, or remove "
                "schedule.force_after"
            )
        return self


def to_numeric_cron(line: str) -> str:
    """Return a cron expression with numbers only, which has the same meaning in all cron implementations.

    Raises:
        ValueError: it is not a cron expression, cron implementations disagree about it, or it is never due.
    """
    fields = line.upper().split()
    if len(fields) != 5:
        hint = ": remove the seconds" if len(fields) == 6 else ""
        raise ValueError(f'"{line}" does not have five fields{hint}. The fields are {FIELDS}')
    day, weekday = fields[2], fields[4]
    if set("L#") & set(day + weekday):
        raise ValueError(f'"{line}" uses L or #, which not every cron implementation supports. List the days')
    if "*" not in (day, weekday) and (day.startswith("*") or weekday.startswith("*")):
        raise ValueError(
            f'"{line}" restricts days of the month and weekdays, one of them with */n, which cron '
            "implementations read differently. List the days, or restrict only one of them"
        )
    try:
        parsed = CronSim(line, datetime.now(UTC))
    except CronSimError as error:
        raise ValueError(
            f'"{line}" is not a cron expression, or is never due: {error}. The fields are {FIELDS}'
        ) from error
    weekdays = {day % 7 for day in parsed.weekdays if isinstance(day, int)}  # 0 and 7 are Sunday
    numbers = (parsed.minutes, parsed.hours, parsed.days, parsed.months, weekdays)
    numeric = " ".join(
        field if field.startswith("*") else ",".join(map(str, sorted(values)))
        for field, values in zip(fields, numbers, strict=True)
    )
    if len(numeric) > MAX_LENGTH:
        raise ValueError(
            f'"{line}" has {len(numeric)} characters when written as numbers; KFP allows {MAX_LENGTH}. '
            "Use fewer times"
        )
    return numeric


def check_time_zone(name: str) -> str:
    """Return the name of a time zone, or raise ValueError if there is no such time zone."""
    try:
        ZoneInfo(name)
    except (ValueError, KeyError, OSError) as error:  # OSError: a folder of the database, such as Europe
        hint = (
            did_you_mean(name, sorted(available_timezones())) or ". Use a name such as Europe/Berlin or UTC"
        )
        raise ValueError(f'"{name}" is not a known time zone{hint}') from error
    return name
