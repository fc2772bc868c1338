import pytest

from modelyard.components.errors import ConfigError
from modelyard.pipelines.compile.compiler import arguments
from modelyard.pipelines.config.config import load


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(None, [f"schedule.{one}" for one in ("cron=0 3 * * 1", *overrides)], {})
    return str(caught.value)


def test_there_is_no_schedule_unless_one_is_asked_for() -> None:
    assert load(None, (), {}).schedule is None


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("cron=0 0 31 2 *", '--set schedule.cron: schedule.cron: "0 0 31 2 *" never fires'),
        ("time_zone=Europe/Berln", "did you mean Europe/Berlin"),
        ("time_zone=Moonbase", "is no time zone"),
        ("concurrency=0", "schedule.concurrency is 0 and must be at least 1"),
        ("concurrency=11", "at most 10"),
        ("force_after=soon", "as 12h, 30d or 8w"),
        ("skip_unchange=true", "did you mean schedule.skip_unchanged"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(override: str, says: str) -> None:
    assert says in refused(override)


def test_an_age_that_nothing_looks_at_is_refused() -> None:
    assert "remove one of the two" in refused("skip_unchanged=false", "force_after=30d")


def test_a_schedule_does_not_belong_to_what_identifies_a_run() -> None:
    plain, often = (load(None, overrides, {}) for overrides in ((), ('schedule.cron="* * * * *"',)))
    assert arguments(plain) == arguments(often)
