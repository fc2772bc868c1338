"""Recurring runs match the configuration; replacing them neither ends nor duplicates their runs."""

import pytest

from modelyard.components.errors import ConfigError, ConflictError, NotFoundError
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.schedule.recurring import RecurringRuns
from tests.integration.backend import recurring
from tests.integration.backend.conftest import FakeKfp
from tests.integration.backend.schedule.conftest import DAILY, HOURLY, config, new_schedules, write_requests


def test_the_recurring_run_matches_the_configuration(
    controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    expected = config("schedule.cron=0 3 * * mon", "schedule.concurrency=2", "schedule.force_after=30d")
    applied = schedules.apply(expected)
    (created,) = controller.enabled
    assert applied.action == "create"
    assert [due[11:] for due in applied.next] == 3 * ["03:00:00+00:00"]
    assert created.trigger.cron_schedule.cron == "0 0 3 * * 1"
    assert len(created.description) <= 191
    assert (created.display_name, created.max_concurrency, created.no_catchup) == ("digits", "2", True)
    assert created.service_account == "modelyard-run"
    assert created.runtime_config.pipeline_root == "gs://bucket/runs"
    assert created.runtime_config.parameters["skip_unchanged"] is True
    assert created.runtime_config.parameters["force_after"] == 30 * 86400
    controller.advance(days=8)
    runs = controller.runs_of(created.recurring_run_id)
    assert len(runs) in (1, 2)
    assert runs[0].runtime_config == created.runtime_config


def test_a_dry_run_or_an_unchanged_schedule_sends_nothing(
    fake_kfp: FakeKfp, schedules: RecurringRuns
) -> None:
    assert schedules.apply(config(DAILY), dry_run=True).action == "create"
    assert write_requests(fake_kfp) == []
    schedules.apply(config(DAILY))
    before = write_requests(fake_kfp)
    second = schedules.apply(config(DAILY))
    assert (second.action, second.changes) == ("nothing", ())
    applied = schedules.apply(config(HOURLY, "training.epochs=7", "schedule.paused=true"), dry_run=True)
    assert applied.action == "replace"
    assert {(change.key, change.before, change.after) for change in applied.changes} == {
        ("schedule.cron", "0 3 * * *", "0 * * * *"),
        ("schedule.paused", False, True),
        ("training.epochs", 20, 7),
    }
    assert applied.next == ()
    assert write_requests(fake_kfp) == before


def test_a_replaced_schedule_does_not_end_its_run(
    controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    schedules.apply(config(HOURLY))
    (old,) = controller.enabled
    controller.advance(hours=1)
    (run,) = controller.runs_of(old.recurring_run_id)
    assert schedules.apply(config(HOURLY, "training.epochs=7")).action == "replace"
    (new,) = controller.recurring.values()
    assert new.mode == "ENABLE"
    assert new.recurring_run_id != old.recurring_run_id
    assert '"epochs":7' in new.runtime_config.parameters["deploy_spec"]
    assert (controller.killed, run.state) == ([], "RUNNING")
    controller.advance(hours=1)
    assert len(controller.runs_of(new.recurring_run_id)) == 1


@pytest.mark.parametrize("seconds", [-40, 0, 40], ids=["before", "at", "after"])
def test_replace_near_a_due_time_starts_one_run_and_does_not_end_it(
    controller: recurring.RecurringRuns, schedules: RecurringRuns, seconds: int
) -> None:
    schedules.apply(config(HOURLY))
    controller.records_at_once = False
    controller.advance(seconds=3570 + seconds)  # the clock starts 30 s after the full hour
    schedules.apply(config('schedule.cron="*/30 * * * *"'))
    (run,) = controller.workflows
    assert (run.owner, controller.killed) == ("", [])
    assert len(controller.recurring) == 1


@pytest.mark.parametrize("cron", ["* * * * *", "*/2 * * * *", "0,58 * * * *"])
def test_a_frequent_schedule_is_disabled_before_it_is_replaced(
    fake_kfp: FakeKfp, controller: recurring.RecurringRuns, schedules: RecurringRuns, cron: str
) -> None:
    schedules.apply(config(f'schedule.cron="{cron}"', "schedule.concurrency=10"))
    controller.records_at_once = False
    controller.advance(minutes=60)
    before, sent = len(controller.workflows), len(write_requests(fake_kfp))
    assert before > 1
    applied = schedules.apply(config(HOURLY))
    assert any("run may be skipped" in note for note in applied.notes)
    (disabled, created, *_) = [
        request for request in write_requests(fake_kfp)[sent:] if "/recurringruns" in request
    ]
    assert (disabled.endswith(":disable"), created) == (True, "POST /apis/v2beta1/recurringruns")
    assert len(controller.workflows) - before <= 1
    assert (len(controller.recurring), controller.killed) == (1, [])


def test_delete_does_not_end_a_run_that_waited_for_a_free_slot(
    controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    schedules.apply(config(HOURLY))
    (old,) = controller.enabled
    controller.advance(hours=2, minutes=10)  # the first run is running, the second waits for it
    (first,) = controller.runs_of(old.recurring_run_id)
    controller.records_at_once = False
    controller.end(first.run_id)
    controller.advance(seconds=20)
    assert len(controller.workflows) == 1
    schedules.delete("digits")
    assert (controller.recurring, controller.killed) == ({}, [])


def test_a_paused_schedule_starts_no_runs_until_it_is_resumed(
    controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    schedules.apply(config(HOURLY))
    schedules.pause("digits")
    assert [not item.enabled for item in schedules.list_all()] == [True]
    controller.advance(hours=5)
    assert controller.workflows == []
    schedules.resume("digits")
    assert [not item.enabled for item in schedules.list_all()] == [False]
    controller.advance(minutes=1)
    assert controller.workflows == []  # no catch-up
    controller.advance(hours=1)
    assert len(controller.workflows) == 1
    assert schedules.apply(config(HOURLY)).action == "nothing"


def test_catch_up_starts_the_missed_runs(
    controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    schedules.apply(config(HOURLY, "schedule.catch_up=true", "schedule.concurrency=10"))
    schedules.pause("digits")
    controller.advance(hours=3)
    schedules.resume("digits")
    controller.advance(minutes=1)
    assert len(controller.workflows) == 3


def test_apply_pauses_and_resumes_as_configured(
    controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    schedules.apply(config(HOURLY, "schedule.paused=true"))
    assert controller.enabled == []
    applied = schedules.apply(config(HOURLY))
    assert applied.action == "resume"
    assert [(change.key, change.before, change.after) for change in applied.changes] == [
        ("schedule.paused", True, False)
    ]
    (enabled,) = controller.recurring.values()
    assert schedules.apply(config(HOURLY, "schedule.paused=true")).action == "pause"
    (paused,) = controller.recurring.values()
    assert (paused.recurring_run_id, paused.mode) == (enabled.recurring_run_id, "DISABLE")


def test_run_now_starts_the_same_run_as_the_schedule(
    fake_kfp: FakeKfp, controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    schedules.apply(config(DAILY))
    (created,) = controller.enabled
    name = schedules.run_now("digits")
    (run,) = (run for run in fake_kfp.runs.runs.values() if run.display_name == name)
    assert run.runtime_config == created.runtime_config
    assert run.pipeline_version_reference == created.pipeline_version_reference
    assert run.service_account == created.service_account


def test_a_deleted_pipeline_version_is_uploaded_again(
    fake_kfp: FakeKfp, controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    schedules.apply(config(DAILY))
    fake_kfp.pipelines.versions.clear()
    applied = schedules.apply(config(DAILY))
    assert applied.action == "replace"
    assert len(fake_kfp.pipelines.versions) == len(controller.recurring) == 1


def test_recurring_runs_of_other_tools_are_not_changed(
    fake_kfp: FakeKfp, controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    schedules.apply(config(DAILY))
    (created,) = controller.enabled
    created.description = "The nightly run of the data team"
    before = write_requests(fake_kfp)
    for command in (
        lambda: schedules.apply(config(HOURLY)),
        lambda: schedules.apply(config(DAILY), dry_run=True),
        lambda: schedules.pause("digits"),
        lambda: schedules.delete("digits"),
        lambda: schedules.run_now("digits"),
    ):
        with pytest.raises(ConflictError, match="recurring run digits"):
            command()
    assert schedules.list_all() == []
    assert write_requests(fake_kfp) == before


def test_a_schedule_with_another_store_is_not_changed(fake_kfp: FakeKfp, schedules: RecurringRuns) -> None:
    schedules.apply(config(DAILY))
    before = write_requests(fake_kfp)
    with pytest.raises(ConflictError, match=r"gs://bucket/models.* gs://other/models"):
        schedules.apply(config(DAILY, url="gs://other/models"))
    assert write_requests(fake_kfp) == before


def test_a_time_zone_other_than_the_servers_is_refused(
    environment: Environment, controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    berlin = config(DAILY, "schedule.time_zone=Europe/Berlin")
    with pytest.raises(ConfigError, match=r"Europe/Berlin.* UTC \(environment.kfp.time_zone\)"):
        schedules.apply(berlin)
    berlin_server = environment.kfp.model_copy(update={"time_zone": "Europe/Berlin"})
    new_schedules(environment.model_copy(update={"kfp": berlin_server})).apply(berlin)
    (created,) = controller.enabled
    assert created.trigger.cron_schedule.cron == "0 0 3 * * *"


def test_schedules_work_on_a_multi_user_server(
    fake_kfp: FakeKfp, controller: recurring.RecurringRuns, environment: Environment
) -> None:
    fake_kfp.server.multi_user = True
    schedules = new_schedules(environment)
    schedules.apply(config(HOURLY))
    schedules.pause("digits")
    schedules.resume("digits")
    (created,) = controller.enabled
    assert created.namespace == environment.runs.namespace
    controller.advance(hours=1)
    schedules.delete("digits")
    assert (controller.recurring, controller.killed) == ({}, [])


def test_a_missing_schedule_is_an_error(schedules: RecurringRuns) -> None:
    with pytest.raises(NotFoundError, match="no schedule digits"):
        schedules.pause("digits")
    schedules.apply(config(DAILY))
    with pytest.raises(NotFoundError, match="its schedules: digits"):
        schedules.delete("digit")
    with pytest.raises(ConfigError, match="has no section `schedule`"):
        schedules.apply(config())
