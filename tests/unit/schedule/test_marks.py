"""How a schedule says whose it is, and what it is."""

from types import SimpleNamespace

import pytest

from modelyard.pipelines.config import durations
from modelyard.pipelines.schedule import mark as marks
from modelyard.pipelines.schedule.mark import Mark
from modelyard.pipelines.schedule.recurring import stamp

SCHEDULE = {
    "cron": "0 3 * * 1",
    "time_zone": "Europe/Berlin",
    "concurrency": 2,
    "catch_up": False,
    "skip_unchanged": True,
    "force_after": "30d",
}
MARK = Mark(name="pets", store="gs://bucket/models", sha256="5f" * 16, generation=7, schedule=SCHEDULE)


def recurring_run(description: str | None) -> SimpleNamespace:
    """Return what a server has of a recurring run; its numbers come back as floats and texts."""
    parameters = {"store": '{"url": "gs://bucket/models"}', "skip_unchanged": True, "force_after": 2592000.0}
    return SimpleNamespace(
        display_name="pets",
        description=description,
        max_concurrency="2",
        no_catchup=True,
        runtime_config=SimpleNamespace(parameters=parameters),
    )


def test_a_mark_is_read_back() -> None:
    assert marks.find(f"# {MARK.text()}\n[Timer]\n") == MARK
    assert stamp.read(recurring_run(stamp.text(MARK))) == MARK


@pytest.mark.parametrize(
    "text", ["", "nightly", "modelyard.dev/schedule", 'modelyard.dev/schedule {"name": "pets"}', None]
)
def test_what_has_no_whole_mark_is_other_peoples(text: str | None) -> None:
    assert marks.find(text or "") is None
    assert stamp.read(recurring_run(text)) is None


def test_a_later_modelyard_may_say_more() -> None:
    assert marks.find(MARK.text().replace('{"name"', '{"more":1,"name"')) == MARK


@pytest.mark.parametrize("text", ["90m", "12h", "30d", "8w"])
def test_a_duration_is_read_back(text: str) -> None:
    assert durations.seconds(durations.text(durations.seconds(text, "key")), "key") == durations.seconds(
        text, "key"
    )
