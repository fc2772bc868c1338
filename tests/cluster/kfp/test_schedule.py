"""`modelyard schedule`: scheduled runs, unchanged data, replacing and pausing."""

import time

import pytest

from tests.cluster.conftest import states
from tests.cluster.kfp.conftest import FINAL_STATES, QUICK

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


def scheduled_runs(user, before=()):
    """Return the names of the scheduled runs that are not in before, the latest first."""
    listed = user("runs", "list", "--model", user.model, "--output", "json").json
    return [run["name"] for run in listed if run["schedule"] and run["name"] not in before]


def wait_for_scheduled_run(user, before=()):
    """Return the name of the first scheduled run that is not in before."""
    while not (runs := scheduled_runs(user, before)):
        time.sleep(2)
    return runs[-1]


@pytest.fixture(scope="module")
def first_run(applied, user):
    """The first scheduled run after its end; its data are unchanged."""
    assert applied.code == 0, applied.err
    return user("runs", "show", wait_for_scheduled_run(user), "--wait", "--output", "json")


def test_scheduled_run_without_changes_ends_after_its_first_step(first_run, user, pods):
    assert (first_run.code, first_run.json["decision"]) == (0, "unchanged"), first_run.out
    executed = dict.fromkeys(("fingerprint", "explain"), "succeeded")
    skipped = dict.fromkeys(("ingest", "preprocess", "train", "evaluate", "deploy"), "skipped")
    assert states(first_run.json) == {**executed, **skipped}
    assert len(pods(user.state(first_run.json["run"])["id"])) == UNCHANGED_PODS


def test_repeated_apply_changes_nothing(applied, user, schedule):
    assert applied.code == 0
    repeated = user("schedule", "apply", *schedule(), "--output", "json").json
    assert (repeated["action"], repeated["changes"]) == ("nothing", [])


def test_changed_file_replaces_the_schedule_and_its_run_continues(first_run, user, schedule):
    assert first_run.code == 0
    running = wait_for_scheduled_run(user, before=scheduled_runs(user))
    assert user.state(running)["state"] not in FINAL_STATES
    old = schedule_of(user)["id"]
    replaced = user("schedule", "apply", *schedule("--set", "serving.threads=2"), "--output", "json")
    assert replaced.json["action"] == "replace", replaced.err
    assert schedule_of(user)["id"] != old
    assert user.wait_until_ended(running)["state"] == "succeeded"


def test_paused_schedule_starts_no_run(first_run, user):
    assert first_run.code == 0
    paused = user("schedule", "pause", user.model, "--output", "json")
    assert paused.code == 0, paused.err
    time.sleep(5)  # a run that was due before the pause can still appear
    before = scheduled_runs(user)
    time.sleep(MINUTE + 35)  # a run starts up to half a minute late
    assert scheduled_runs(user, before) == []
    assert schedule_of(user)["paused"]


def schedule_of(user):
    """Return the schedule of the user's model."""
    listed = user("schedule", "list", "--output", "json").json
    (schedule,) = (item for item in listed if item["name"] == user.model)
    return schedule
