import subprocess
from datetime import UTC, datetime
from shutil import which
from zoneinfo import ZoneInfo

import pytest

from modelyard.pipelines.schedule.cron import Cron

BERLIN, TOKYO, INDIA = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Tokyo"), ZoneInfo("Asia/Kolkata")


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("0 3 * * 1", "0 3 * * 1"),
        ("*/15 * * * *", "*/15 * * * *"),
        ("0 9-17 * * mon-FRI", "0 9-17 * * 1-5"),
        ("0  0 * * 7", "0 0 * * 0"),
        ("5/15 2 * jan,feb *", "5,20,35,50 2 * 1,2 *"),
        ("0 0 1,15 * 1", "0 0 1,15 * 1"),
        ("0 0 29 2 *", "0 0 29 2 *"),
        ("0 0 */2 * *", "0 0 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31 * *"),
    ],
)
def test_the_line_that_all_programs_are_told_says_the_same(line: str, same: str) -> None:
    cron = Cron.parse(line)
    assert cron.line() == same
    assert cron.with_seconds() == f"0 {same}"
    assert Cron.parse(same) == cron


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 3 * *", "is not five fields"),
        ("@daily", "is not five fields"),
        ("0 0 3 * * 1", "leave the seconds out"),
        ("60 3 * * *", "wrong minute"),
        ("0 24 * * *", "wrong hour"),
        ("0 3 32 * *", "wrong day of month"),
        ("0 3 * 13 *", "wrong month"),
        ("0 3 * * 8", "wrong day of week"),
        ("0 3 * * fry", "wrong day of week"),
        ("0 3-1 * * *", "wrong hour"),
        ("*/0 * * * *", "wrong minute"),
        ("0 0 31 2 *", "never fires"),
        ("0 0 31 4,6 *", "never fires"),
        ("0 0 L * *", "uses L or #"),
        ("0 0 * * 1#2", "uses L or #"),
        ("0 0 */2 * 1", "crons disagree"),
        ("0 0 1 * */2", "crons disagree"),
    ],
)
def test_a_line_that_is_wrong_or_never_fires_is_refused(line: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Cron.parse(line)


def test_it_fires_by_the_clock_of_its_zone_also_when_the_clock_is_changed() -> None:
    before_summer = datetime(2027, 3, 27, 12, tzinfo=BERLIN)
    fires = Cron.parse("30 3 * * *").fires(before_summer)
    assert [fire.isoformat() for fire in fires] == [
        "2027-03-28T03:30:00+02:00",
        "2027-03-29T03:30:00+02:00",
        "2027-03-30T03:30:00+02:00",
    ]


def test_either_day_is_enough() -> None:
    fires = Cron.parse("0 0 1 * 1").fires(datetime(2026, 11, 27, tzinfo=UTC))
    assert [fire.day for fire in fires] == [30, 1, 7]  # Monday, the first, Monday


@pytest.mark.parametrize(
    ("line", "zone", "in_utc"),
    [
        ("0 3 * * 1", TOKYO, "0 18 * * 0"),
        ("0 9 1 * *", TOKYO, "0 0 1 * *"),
        ("30 5 * * *", INDIA, "0 0 * * *"),
        ("*/20 * * * *", INDIA, "10,30,50 * * * *"),
        ("10 * * * *", BERLIN, "10 * * * *"),
        ("0 3 * * 1", UTC, "0 3 * * 1"),
    ],
)
def test_it_is_said_in_another_zone(line: str, zone: ZoneInfo, in_utc: str) -> None:
    cron = Cron.parse(line)
    there = cron.in_zone(zone, UTC)
    assert there.line() == in_utc
    now = datetime.now(UTC)
    assert there.fires(now, 10) == cron.fires(now.astimezone(zone), 10)


@pytest.mark.parametrize(
    ("line", "zone", "says"),
    [
        ("0 3 * * 1", BERLIN, "its clock is changed"),
        ("0 8 1 * *", TOKYO, "another day"),
        ("0 8 * 6 *", TOKYO, "another day"),
        ("0,30 5 * * *", INDIA, "not the same in each hour"),
        ("0 8,10 * * 1", TOKYO, "another day"),
    ],
)
def test_what_another_zone_cannot_say_is_refused(line: str, zone: ZoneInfo, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Cron.parse(line).in_zone(zone, UTC)


@pytest.mark.skipif(which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.parametrize(
    "line", ["0 3 * * 1", "*/15 9-17 * jan-mar mon-fri", "0 0 1,15 * 1", "59 23 31 12 *"]
)
def test_systemd_reads_the_same_fires(line: str) -> None:
    cron = Cron.parse(line)
    now = datetime.now(BERLIN)
    analyzed = subprocess.run(
        ["systemd-analyze", "calendar", "--iterations=5", *cron.calendars("Europe/Berlin")],
        env={"TZ": "UTC", "LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = (line.strip().split() for line in analyzed.stdout.splitlines())
    read = {
        datetime.strptime(" ".join(words[-3:-1]), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        for words in lines
        if words and words[-1] == "UTC"
    }
    assert set(cron.fires(now, 5)) <= read
