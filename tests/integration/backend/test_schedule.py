"""Recurring runs made to be what a configuration says, and the runs that they start."""

import itertools
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from components.errors import ConfigError, ConflictError, ModelyardError, NotFoundError
from pipelines import config_text
from pipelines.backend import submission
from pipelines.backend.client import connect
from pipelines.cli.failures import guarded
from pipelines.compiler import compile_package
from pipelines.config import Config, load
from pipelines.environment_settings import Environment
from pipelines.schedule.recurring import retirement
from pipelines.schedule.recurring.scheduler import RecurringRuns
from pipelines.schedule.state import Plan
from tests.integration.backend import recurring
from tests.integration.backend.conftest import Site
from tests.integration.backend.server import Fault

DAILY, HOURLY = "schedule.cron=0 3 * * *", "schedule.cron=0 * * * *"


@pytest.fixture(autouse=True)
def controller(site: Site, monkeypatch: pytest.MonkeyPatch) -> recurring.RecurringRuns:
    found = recurring.RecurringRuns(site.server, site.pipelines, site.runs)
    site.server.mount(found)
    # what a moment brings: what has started is on record
    monkeypatch.setattr(retirement.time, "sleep", lambda _: found.report())
    return found


@pytest.fixture(autouse=True)
def _compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "compile_package", lambda environment: compiled(environment.text()))


@pytest.fixture
def schedules(environment: Environment) -> RecurringRuns:
    return new(environment)


@cache
def compiled(environment: str) -> bytes:
    return compile_package(Environment.of(environment))


def new(environment: Environment) -> RecurringRuns:
    return RecurringRuns(connect(environment), environment, Console(file=StringIO()))


def config(*overrides: str, **store: str) -> Config:
    loaded = load(overrides=overrides, environ={})
    return loaded.model_copy(
        update={"store": loaded.store.model_copy(update=store or {"url": "gs://bucket/models"})}
    )


def changing(site: Site) -> list[str]:
    return [one for one in site.server.asked if not one.startswith("GET")]


def test_recurring_run_is_what_the_configuration_says(
    controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    wanted = config(
        "schedule.cron=0 3 * * mon",
        "schedule.time_zone=Asia/Tokyo",
        "schedule.concurrency=2",
        "schedule.force_after=30d",
    )
    plan = schedules.apply(wanted)
    (made,) = controller.firing
    assert plan.action == "create"
    assert [fire[11:] for fire in plan.next] == 3 * ["03:00:00+09:00"]
    assert made.trigger.cron_schedule.cron == "0 0 18 * * 0"
    assert (made.display_name, made.max_concurrency, made.no_catchup) == ("digits", "2", True)
    assert made.service_account == "modelyard-run"
    assert made.runtime_config.pipeline_root == "gs://bucket/runs"
    assert made.runtime_config.parameters["skip_unchanged"] is True
    assert made.runtime_config.parameters["force_after"] == 30 * 86400
    controller.pass_time(days=8)
    runs = controller.runs_of(made.recurring_run_id)
    assert len(runs) in (1, 2)
    assert runs[0].runtime_config == made.runtime_config


def test_applying_twice_changes_nothing(site: Site, schedules: RecurringRuns) -> None:
    schedules.apply(config(DAILY))
    before = changing(site)
    plan = schedules.apply(config(DAILY))
    assert (plan.action, plan.changes) == ("nothing", ())
    assert changing(site) == before


def test_nothing_is_sent_by_a_plan(site: Site, schedules: RecurringRuns) -> None:
    assert schedules.plan(config(DAILY)).action == "create"
    assert changing(site) == []
    schedules.apply(config(DAILY))
    before = changing(site)
    plan = schedules.plan(config(HOURLY, "training.epochs=7", "schedule.paused=true"))
    assert plan.action == "replace"
    assert {(one.key, one.before, one.after) for one in plan.changes} == {
        ("schedule.cron", "0 3 * * *", "0 * * * *"),
        ("schedule.paused", False, True),
        ("training.epochs", 20, 7),
    }
    assert plan.next == ()
    assert changing(site) == before


def test_a_replaced_schedule_leaves_its_run_alone(
    controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    schedules.apply(config(HOURLY))
    (old,) = controller.firing
    controller.pass_time(hours=1)
    (run,) = controller.runs_of(old.recurring_run_id)
    assert schedules.apply(config(HOURLY, "training.epochs=7")).action == "replace"
    (new,) = controller.recurring.values()
    assert new.mode == "ENABLE"
    assert new.recurring_run_id != old.recurring_run_id
    assert '"epochs": 7' in new.runtime_config.parameters["config"]
    assert (controller.killed, run.state) == ([], "RUNNING")
    controller.pass_time(hours=1)
    assert len(controller.runs_of(new.recurring_run_id)) == 1


def test_a_run_that_has_just_started_and_is_not_on_record_survives(
    controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    schedules.apply(config('schedule.cron="* * * * *"'))
    controller.prompt = False
    controller.pass_time(minutes=1)
    schedules.apply(config(HOURLY))
    (workflow,) = controller.workflows
    assert (workflow.owner, controller.killed) == ("", [])
    schedules.delete("digits")
    assert (controller.recurring, controller.killed) == ({}, [])


def test_a_server_that_would_end_the_run_keeps_the_old_one_switched_off_until_it_has_ended(
    controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    controller.since_2_16 = False
    schedules.apply(config(HOURLY))
    (old,) = controller.firing
    controller.pass_time(hours=1)
    (run,) = controller.runs_of(old.recurring_run_id)
    plan = schedules.apply(config(DAILY))
    assert f"({old.recurring_run_id}) is switched off" in str(plan.notes)
    assert [one.trigger.cron_schedule.cron for one in controller.firing] == ["0 0 3 * * *"]
    assert [one.cron for one in schedules.all()] == ["0 3 * * *"]
    assert controller.killed == []
    with pytest.raises(ModelyardError, match="one of its runs is in flight"):
        schedules.delete("digits")
    assert controller.firing == []
    assert controller.killed == []
    controller.end(run.run_id)
    schedules.delete("digits")
    assert (controller.recurring, controller.killed) == ({}, [])


def test_pause_and_resume(controller: recurring.RecurringRuns, schedules: RecurringRuns) -> None:
    schedules.apply(config(HOURLY))
    schedules.pause("digits")
    assert [one.paused for one in schedules.all()] == [True]
    controller.pass_time(hours=5)
    assert controller.workflows == []
    schedules.resume("digits")
    assert [one.paused for one in schedules.all()] == [False]
    controller.pass_time(minutes=1)
    assert controller.workflows == []  # what was missed is not made up for
    controller.pass_time(hours=1)
    assert len(controller.workflows) == 1
    assert schedules.apply(config(HOURLY)).action == "nothing"


def test_the_file_says_whether_it_is_paused(
    controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    schedules.apply(config(HOURLY, "schedule.paused=true"))
    assert controller.firing == []
    plan = schedules.apply(config(HOURLY))
    assert plan.action == "resume"
    assert [(one.key, one.before, one.after) for one in plan.changes] == [("schedule.paused", True, False)]
    (on,) = controller.recurring.values()
    assert schedules.apply(config(HOURLY, "schedule.paused=true")).action == "pause"
    (off,) = controller.recurring.values()
    assert (off.recurring_run_id, off.mode) == (on.recurring_run_id, "DISABLE")


def test_catching_up_is_asked_for(controller: recurring.RecurringRuns, schedules: RecurringRuns) -> None:
    schedules.apply(config(HOURLY, "schedule.catch_up=true", "schedule.concurrency=10"))
    schedules.pause("digits")
    controller.pass_time(hours=3)
    schedules.resume("digits")
    controller.pass_time(minutes=1)
    assert len(controller.workflows) == 3


def test_a_stuck_run_does_not_block_the_next(
    environment: Environment, controller: recurring.RecurringRuns
) -> None:
    schedules = new(environment.model_copy(update={"active_deadline": 1800}))
    schedules.apply(config(HOURLY))
    (made,) = controller.firing
    controller.pass_time(hours=1)  # nobody ends its run
    controller.pass_time(hours=1)
    first, second = controller.runs_of(made.recurring_run_id)
    assert (first.state, second.state) == ("FAILED", "RUNNING")


def test_schedules_of_others_are_left_alone(
    site: Site, controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    schedules.apply(config(DAILY))
    (made,) = controller.firing
    made.description = "The nightly run of the data team"
    before = changing(site)
    for command in (
        lambda: schedules.apply(config(HOURLY)),
        lambda: schedules.plan(config(DAILY)),
        lambda: schedules.pause("digits"),
        lambda: schedules.delete("digits"),
        lambda: schedules.run_now("digits"),
    ):
        with pytest.raises(ConflictError, match=r"There is a recurring run digits at .* did not make it"):
            command()
    assert schedules.all() == []
    assert changing(site) == before


def test_a_schedule_for_another_store_is_left_alone(site: Site, schedules: RecurringRuns) -> None:
    schedules.apply(config(DAILY))
    before = changing(site)
    with pytest.raises(
        ConflictError, match=r"models in the store gs://bucket/models, and .* gs://other/models"
    ):
        schedules.apply(config(DAILY, url="gs://other/models"))
    assert changing(site) == before


def test_a_clock_that_the_server_does_not_have(
    environment: Environment, controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    berlin = config(DAILY, "schedule.time_zone=Europe/Berlin")
    with pytest.raises(ConfigError, match=r"zone of its server, UTC \(environment.kfp.time_zone\)"):
        schedules.apply(berlin)
    there = environment.kfp.model_copy(update={"time_zone": "Europe/Berlin"})
    new(environment.model_copy(update={"kfp": there})).apply(berlin)
    (made,) = controller.firing
    assert made.trigger.cron_schedule.cron == "0 0 3 * * *"


def test_a_cron_line_for_which_the_server_has_no_room(site: Site, schedules: RecurringRuns) -> None:
    minutes = ",".join(map(str, range(0, 60, 2)))
    hours = ",".join(map(str, range(0, 24)))
    with pytest.raises(ConfigError, match="longer than Kubeflow Pipelines has room for"):
        schedules.apply(config(f'schedule.cron="{minutes} {hours} * * *"'))
    assert changing(site) == []


def test_a_server_of_several_users(
    site: Site, controller: recurring.RecurringRuns, environment: Environment
) -> None:
    site.server.multi_user = True
    schedules = new(environment)
    schedules.apply(config(HOURLY))
    schedules.pause("digits")
    schedules.resume("digits")
    (made,) = controller.firing
    assert made.namespace == environment.runs.namespace
    controller.pass_time(hours=1)
    schedules.delete("digits")
    assert (controller.recurring, controller.killed) == ({}, [])


def test_run_now_starts_what_the_schedule_would(
    site: Site, controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    schedules.apply(config(DAILY))
    (made,) = controller.firing
    name = schedules.run_now("digits")
    (run,) = (one for one in site.runs.runs.values() if one.display_name == name)
    assert run.runtime_config == made.runtime_config
    assert run.pipeline_version_reference == made.pipeline_version_reference
    assert run.service_account == made.service_account


def test_a_schedule_that_is_not_there(schedules: RecurringRuns) -> None:
    with pytest.raises(NotFoundError, match="There is no schedule of digits; modelyard has made none here"):
        schedules.pause("digits")
    schedules.apply(config(DAILY))
    with pytest.raises(NotFoundError, match="there are those of digits"):
        schedules.delete("digit")
    with pytest.raises(ConfigError, match="has no section `schedule`"):
        schedules.apply(config())


def test_a_pipeline_version_that_is_gone_is_brought_back(
    site: Site, controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    schedules.apply(config(DAILY))
    site.pipelines.versions.clear()
    plan = schedules.apply(config(DAILY))
    assert plan.action == "replace"
    assert len(site.pipelines.versions) == len(controller.recurring) == 1


class KilledError(Exception):
    """Stands for the end of the process."""


def at_request(
    number: int, schedules: RecurringRuns, do: Callable[[], object], after: bool = False
) -> Callable[[], bool]:
    """Let something be done at a request of a scheduler, and return what says whether it was."""
    transport = schedules.backend._client.rest_client
    request, numbers = transport.request, itertools.count(1)
    done = threading.Event()

    def disturbed(*arguments: Any, **options: Any) -> Any:
        now = next(numbers) == number
        if now:
            done.set()
        if now and not after:
            do()
        answer = request(*arguments, **options)
        if now and after:
            do()
        return answer

    transport.request = disturbed
    return done.is_set


def die() -> None:
    raise KilledError


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_request_and_run_again_one_is_left(
    environment: Environment, controller: recurring.RecurringRuns, after: bool
) -> None:
    new(environment).apply(config(DAILY))
    for number in itertools.count(1):
        wanted = config(HOURLY, f"training.epochs={number}")
        dying = new(environment)
        killed = at_request(number, dying, die, after)
        with suppress(KilledError):
            dying.apply(wanted)
        assert len(controller.firing) in (1, 2)
        new(environment).apply(wanted)
        (left,) = controller.recurring.values()
        assert left.mode == "ENABLE"
        assert f'"epochs": {number}' in left.runtime_config.parameters["config"]
        if not killed():
            break
    assert number > 8


@pytest.mark.parametrize("other", [HOURLY, DAILY], ids=["same", "different"])
def test_overtaken_at_any_request_one_is_left(
    environment: Environment, controller: recurring.RecurringRuns, other: str
) -> None:
    for number in itertools.count(1):
        slow, faster = new(environment), new(environment)
        epochs = f"training.epochs={number}"
        overtaken = at_request(number, slow, partial(faster.apply, config(other, epochs)))
        with suppress(ConflictError):
            slow.apply(config(HOURLY, epochs))
        (left,) = controller.recurring.values()
        assert left.mode == "ENABLE"
        assert f'"epochs": {number}' in left.runtime_config.parameters["config"]
        if not overtaken():
            break
    assert number > 8


@pytest.mark.parametrize("other", [HOURLY, DAILY], ids=["same", "different"])
def test_two_at_once_leave_one(
    environment: Environment, controller: recurring.RecurringRuns, other: str
) -> None:
    compiled(environment.text())  # by KFP's compiler, of which there can only be one at a time
    for epochs in range(1, 4):
        ended: list[Plan | ConflictError] = []
        together = threading.Barrier(2)

        def apply(wanted: Config, ended: list[Any] = ended, together: Any = together) -> None:
            mine = new(environment)
            together.wait()
            try:
                ended.append(mine.apply(wanted))
            except ConflictError as error:
                ended.append(error)

        threads = [
            threading.Thread(target=apply, args=(config(cron, f"training.epochs={epochs}"),))
            for cron in (HOURLY, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (left,) = controller.recurring.values()
        assert left.mode == "ENABLE"
        assert len(ended) == 2
        assert any(isinstance(one, Plan) for one in ended)
        if other == HOURLY:
            assert not any(isinstance(one, ConflictError) for one in ended)


@pytest.mark.parametrize("cut", ["before", "after"])
def test_an_answer_that_is_lost(
    site: Site, controller: recurring.RecurringRuns, schedules: RecurringRuns, cut: str
) -> None:
    site.server.faults.append(Fault(cut=cut, path="/recurringruns", method="POST"))
    schedules.apply(config(DAILY))
    assert len(controller.recurring) == 1


def test_the_command_line(command: Callable[..., Any]) -> None:
    made = command("schedule", "apply", "digits.yaml", "-e", "there.yaml")
    assert made["action"] == "create"
    assert command("schedule", "diff", "digits.yaml", "-e", "there.yaml")["action"] == "nothing"
    (listed,) = command("schedule", "list", "-e", "there.yaml")
    assert (listed["name"], listed["cron"], listed["paused"]) == ("digits", "0 3 * * *", False)
    assert command("schedule", "pause", "digits", "-e", "there.yaml") == {"name": "digits", "state": "paused"}
    assert command("schedule", "resume", "digits", "-e", "there.yaml")["state"] == "resumed"
    assert command("schedule", "run-now", "digits", "-e", "there.yaml")["name"] == "digits"
    assert command("schedule", "delete", "digits", "-e", "there.yaml")["state"] == "deleted"
    assert command("schedule", "list", "-e", "there.yaml") == []


@pytest.fixture
def command(
    environment: Environment,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Any]:
    """Give what runs a command in a folder with a configuration and an environment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.yaml").write_text(
        config_text.dump(environment.model_dump(mode="json", exclude_unset=True))
    )
    (tmp_path / "digits.yaml").write_text(
        'name: digits\ndata: {kind: digits}\nschedule: {cron: "0 3 * * *"}\n'
    )

    def run(*words: str) -> Any:
        assert guarded([*words, "--output", "json"]) == 0, capsys.readouterr()
        return json.loads(capsys.readouterr().out)

    return run
