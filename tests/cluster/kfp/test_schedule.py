"""`modelyard schedule`: scheduled runs, unchanged data, replacing and pausing."""

import time

import pytest

from tests.cluster.kfp.conftest import ENDED, QUICK, states

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

CRON = "* * * * *"
UNCHANGED_PODS = 7  # fingerprint and explain, two each; the root, the exit handler and the outer condition
MINUTE = 60


@pytest.fixture(scope="module")
def schedule(user):
    """The options of a schedule for the user's model."""

    def options(*more):
        return (*QUICK, "--set", f"name={user.model}", "--set", f"schedule={{cron: '{CRON}'}}", *more)

    yield options
    user("schedule", "delete", user.model)


@pytest.fixture(scope="module")
def applied(first, user, schedule):
    assert first.code == 0
    return user("schedule", "apply", *schedule(), "--output", "json")


def fired(user, before=()):
    """Return the names of scheduled runs, the latest first."""
    listed = user("runs", "list", "--model", user.model, "--output", "json").json
    return [run["name"] for run in listed if run["schedule"] and run["name"] not in before]


def next_fire(user, before=()):
    while not (runs := fired(user, before)):
        time.sleep(2)
    return runs[-1]


@pytest.fixture(scope="module")
def unchanged(applied, user):
    """The first scheduled run, after its end."""
    assert applied.code == 0, applied.err
    return user("runs", "show", next_fire(user), "--wait", "--output", "json")


def test_scheduled_run_without_changes_ends_after_its_first_step(unchanged, user, pods):
    assert (unchanged.code, unchanged.json["decision"]) == (0, "unchanged"), unchanged.out
    ran = dict.fromkeys(("fingerprint", "explain"), "succeeded")
    skipped = dict.fromkeys(("ingest", "preprocess", "train", "evaluate", "deploy"), "skipped")
    assert states(unchanged.json) == {**ran, **skipped}
    assert len(pods(user.state(unchanged.json["run"])["id"])) == UNCHANGED_PODS


def test_repeated_apply_changes_nothing(applied, user, schedule):
    assert applied.code == 0
    again = user("schedule", "apply", *schedule(), "--output", "json").json
    assert (again["action"], again["changes"]) == ("nothing", [])


def test_changed_file_replaces_the_schedule_and_its_run_continues(unchanged, user, schedule):
    assert unchanged.code == 0
    running = next_fire(user, before=fired(user))
    assert user.state(running)["state"] not in ENDED
    old = schedule_of(user)["id"]
    replaced = user("schedule", "apply", *schedule("--set", "serving.threads=2"), "--output", "json")
    assert replaced.json["action"] == "replace", replaced.err
    assert schedule_of(user)["id"] != old
    assert user.ended(running)["state"] == "succeeded"


def test_paused_schedule_starts_no_run(unchanged, user):
    assert unchanged.code == 0
    paused = user("schedule", "pause", user.model, "--output", "json")
    assert paused.code == 0, paused.err
    time.sleep(5)  # what was due at that moment is on record
    before = fired(user)
    time.sleep(MINUTE + 35)  # it fires up to half a minute late
    assert fired(user, before) == []
    assert schedule_of(user)["paused"]


def schedule_of(user):
    """Return the schedule of the user's model."""
    listed = user("schedule", "list", "--output", "json").json
    (schedule,) = (item for item in listed if item["name"] == user.model)
    return schedule
