"""The section `schedule`: cron lines and time zones."""

from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from modelyard.components.errors import ConfigError
from modelyard.pipelines.compile.compiler import create_arguments
from modelyard.pipelines.config.config import load
from modelyard.pipelines.config.schedule import to_numeric_cron


def error_text(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(None, [f"schedule.{override}" for override in ("cron=0 3 * * 1", *overrides)], {})
    return str(error.value)


def test_no_schedule_by_default() -> None:
    assert load(None, (), {}).schedule is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cron=0 0 31 2 *", '--set schedule.cron: "0 0 31 2 *"'),
        ("time_zone=Europe/Berln", "Europe/Berlin"),
        ("time_zone=Moonbase", "Moonbase"),
        ("time_zone=Europe", "Europe"),
        ("time_zone=../UTC", "../UTC"),
        ("concurrency=0", "schedule.concurrency is 0 and must be at least 1"),
        ("concurrency=11", "at most 10"),
        ("force_after=soon", "schedule.force_after"),
        ("skip_unchange=true", "schedule.skip_unchanged"),
    ],
)
def test_error_has_the_key_of_an_invalid_value(override: str, message: str) -> None:
    assert message in error_text(override)


def test_force_after_without_skip_unchanged_is_refused() -> None:
    assert "schedule.force_after" in error_text("skip_unchanged=false", "force_after=30d")


def test_schedule_does_not_change_the_arguments_of_a_run() -> None:
    unscheduled, scheduled = (load(None, overrides, {}) for overrides in ((), ('schedule.cron="* * * * *"',)))
    assert create_arguments(unscheduled) == create_arguments(scheduled)


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ("0 3 * * 1", "0 3 * * 1"),
        ("*/15 * * * *", "*/15 * * * *"),
        ("0 9-12 * * mon-FRI", "0 9,10,11,12 * * 1,2,3,4,5"),
        ("0  0 * * 7", "0 0 * * 0"),
        ("5/15 2 * jan,feb *", "5,20,35,50 2 * 1,2 *"),
        ("0 0 1,15 * 1", "0 0 1,15 * 1"),
        ("0 0 29 2 *", "0 0 29 2 *"),
        ("0 0 */2 * *", "0 0 */2 * *"),
    ],
)
def test_cron_numbers_keep_the_due_times(line: str, numbers: str) -> None:
    assert to_numeric_cron(line) == numbers
    now = datetime.now(UTC)
    assert list(islice(CronSim(line, now), 9)) == list(islice(CronSim(numbers, now), 9))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 3 * *", "five fields"),
        ("@daily", "five fields"),
        ("0 0 3 * * 1", "remove the seconds"),
        ("60 3 * * *", "Bad minute"),
        ("0 24 * * *", "Bad hour"),
        ("0 3 32 * *", "Bad day-of-month"),
        ("0 3 * 13 *", "Bad month"),
        ("0 3 * * 8", "Bad day-of-week"),
        ("0 3 * * fry", "Bad day-of-week"),
        ("0 3-1 * * *", "Bad hour"),
        ("*/0 * * * *", "Bad minute"),
        ("0 0 31 2 *", "Bad day-of-month"),
        ("0 0 31 4,6 *", "never due"),
        ("0 0 L * *", "L or #"),
        ("0 0 * * 1#2", "L or #"),
        ("0 0 */2 * 1", "read differently"),
        ("0 0 1 * */2", "read differently"),
        (
            f"{','.join(map(str, range(60)))} {','.join(map(str, range(24)))} * * 1-3,5",
            "characters when written as numbers",
        ),
    ],
)
def test_invalid_or_ambiguous_cron_line_is_refused(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_numeric_cron(line)


def test_due_times_follow_daylight_saving_time() -> None:
    before_summer = datetime(2027, 3, 27, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    assert [due.isoformat() for due in islice(CronSim("30 3 * * *", before_summer), 3)] == [
        "2027-03-28T03:30:00+02:00",
        "2027-03-29T03:30:00+02:00",
        "2027-03-30T03:30:00+02:00",
    ]
