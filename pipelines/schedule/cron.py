"""A cron line of five fields, as people write it: when it fires, and how other programs are told.

    cron = Cron.parse("0 3 * * 1-5")
    cron.fires(datetime.now(ZoneInfo("Europe/Berlin")))     # the next three
    cron.in_zone(ZoneInfo("Asia/Tokyo"), UTC).with_seconds()  # "0 0 18 * * 0-4", for Kubeflow Pipelines

What the programs disagree about is refused: they all are told plain numbers.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import groupby, islice, pairwise

from cronsim import CronSim, CronSimError

MINUTES, HOURS, DAYS, MONTHS, WEEKDAYS = (
    frozenset(range(*bounds)) for bounds in ((60,), (24,), (1, 32), (1, 13), (7,))
)
NAMES = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
FIELDS = "minute, hour, day of the month, month, weekday, as in 0 3 * * 1 for Mondays at 3:00"
RAREST = timedelta(days=5 * 366)  # Kubeflow Pipelines looks no further, and then never stops firing
AHEAD = timedelta(days=3 * 366)


@dataclass(frozen=True)
class Cron:
    """When something fires, as the numbers of each field; Sunday is 0.

    Where days of the month and weekdays are both restricted, either is enough, as in every cron.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    @classmethod
    def parse(cls, line: str) -> "Cron":
        """Return what a line means.

        Raises:
            ValueError: it means nothing, or not the same to all programs, or fires never or hardly ever.
        """
        fields = line.upper().split()
        if len(fields) != 5:
            hint = ": leave the seconds out" if len(fields) == 6 else ""
            raise ValueError(f'"{line}" is not five fields{hint}. They are {FIELDS}')
        try:
            parsed = CronSim(" ".join([*fields[:2], "*", fields[3], fields[4]]), datetime.now(UTC))
            days = CronSim(f"0 0 {fields[2]} * *", datetime.now(UTC)).days
        except CronSimError as error:
            wrong = str(error).removeprefix("Bad ").replace("-", " ")
            raise ValueError(f'"{line}" has a wrong {wrong}. The fields are {FIELDS}') from error
        weekdays = {day % 7 for day in parsed.weekdays if isinstance(day, int)}
        cron = cls(*map(frozenset, (parsed.minutes, parsed.hours, days, parsed.months, weekdays)))
        if "L" in fields[2] or "L" in fields[4] or "#" in fields[4]:
            raise ValueError(f'"{line}" uses L or #, which not every cron knows. Write the days out')
        if cron._either and (fields[2].startswith("*") or fields[4].startswith("*")):
            raise ValueError(
                f'"{line}" restricts days of the month and weekdays, one of them by */n: crons disagree '
                "about that. Write the days out, or restrict one of the two"
            )
        cron._check(line)
        return cron

    def fires(self, after: datetime, count: int = 3) -> list[datetime]:
        """Return when it fires next, in the zone of `after`.

        Args:
            after: an aware time.
            count: how many times; fewer come back when it fires less often in fifty years.
        """
        return list(islice(CronSim(self.line(), after), count))

    def in_zone(self, here: tzinfo, there: tzinfo) -> "Cron":
        """Return the line that says in the zone `there` what this one says in the zone `here`.

        Raises:
            ValueError: no line does.
        """
        now = datetime.now(UTC)
        days = (now + timedelta(days=day) for day in range(AHEAD.days))
        apart = {_offset(there, day) - _offset(here, day) for day in days}
        lines = {self._moved(by) for by in apart}
        if len(lines) > 1:
            raise ValueError("its clock is changed in summer when the other is not, or at other times")
        return lines.pop()

    def line(self) -> str:
        """Return the five fields, as crontab(5) has them."""
        return " ".join(
            (
                _text(self.minutes, MINUTES, step=True),
                _text(self.hours, HOURS, step=True),
                _text(self.days, DAYS),
                _text(self.months, MONTHS),
                _text(self.weekdays, WEEKDAYS),
            )
        )

    def with_seconds(self) -> str:
        """Return the six fields of Kubeflow Pipelines, with the seconds first."""
        return f"0 {self.line()}"

    def calendars(self, zone: str) -> list[str]:
        """Return what systemd.time(7) calls calendar events; any of them fires."""
        clock = f"{_text(self.hours, HOURS, '..')}:{_text(self.minutes, MINUTES, '..')}:00 {zone}"
        months = _text(self.months, MONTHS, "..")
        by_date = f"*-{months}-{_text(self.days, DAYS, '..')} {clock}"
        names = ",".join(NAMES[day] for day in sorted(self.weekdays))
        if self._either:
            return [by_date, f"{names} *-{months}-* {clock}"]
        return [by_date if self.weekdays == WEEKDAYS else f"{names} {by_date}"]

    @property
    def _either(self) -> bool:
        return self.days != DAYS and self.weekdays != WEEKDAYS

    def _check(self, line: str) -> None:
        now = datetime.now(UTC)
        try:
            fires = [now, *self.fires(now)]
        except CronSimError:  # no such day in those months
            fires = [now]
        if len(fires) < 2:
            raise ValueError(
                f'"{line}" never fires: those months have no such day. Correct the day or the month'
            )
        if any(later - earlier > RAREST for earlier, later in pairwise(fires)):
            raise ValueError(
                f'"{line}" fires more rarely than every five years. Correct the day, the month or the weekday'
            )

    def _moved(self, by: timedelta) -> "Cron":
        """Return the line that fires `by` later by the clock.

        Raises:
            ValueError: no line does.
        """
        shift = round(by.total_seconds() / 60)
        moved = [(hour * 60 + minute + shift) for hour in self.hours for minute in self.minutes]
        minutes, hours = frozenset(one % 60 for one in moved), frozenset(one // 60 % 24 for one in moved)
        if len(minutes) * len(hours) != len(moved):
            raise ValueError("the minutes that it asks for are not the same in each hour there")
        over = {one // 1440 for one in moved}
        if over == {0} or (self.days, self.months, self.weekdays) == (DAYS, MONTHS, WEEKDAYS):
            return replace(self, minutes=minutes, hours=hours)
        if self.days != DAYS or self.months != MONTHS or len(over) > 1:
            raise ValueError("it falls on another day there")
        weekdays = frozenset((day + min(over)) % 7 for day in self.weekdays)
        return replace(self, minutes=minutes, hours=hours, weekdays=weekdays)


def _offset(zone: tzinfo, at: datetime) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta()


def _text(values: frozenset[int], every: frozenset[int], to: str = "-", *, step: bool = False) -> str:
    """Return a field: `*`, `*/15`, or the numbers with `to` between the ends of a run of three or more."""
    if values == every:
        return "*"
    numbers = sorted(values)
    if step and len(numbers) > 2 and set(range(0, len(every), numbers[1] or len(every))) == values:
        return f"*/{numbers[1]}"
    runs = ([one for _, one in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]))
    return ",".join(f"{run[0]}{to}{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)
