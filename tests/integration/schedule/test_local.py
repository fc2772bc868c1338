"""A schedule on this machine, whatever starts it: what is written, shown and removed."""

import itertools
import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from modelyard.components.errors import ConfigError, ConflictError, NotFoundError
from modelyard.pipelines.cli import invoke
from modelyard.pipelines.compile.compiler import LOCAL
from modelyard.pipelines.schedule.local import crontab as crontab_module
from modelyard.pipelines.schedule.local import systemd
from modelyard.pipelines.schedule.local import table as programs
from modelyard.pipelines.schedule.local.crontab import Crontab
from modelyard.pipelines.schedule.local.scheduler import LocalScheduler, find_scheduler
from modelyard.pipelines.schedule.local.systemd import Timers
from tests.integration.schedule.conftest import config


@pytest.fixture(params=[Crontab, Timers])
def scheduler(request: pytest.FixtureRequest) -> LocalScheduler:
    return LocalScheduler(request.param(), 3600)


def files(machine: Path) -> dict[str, bytes]:
    """Return all that is written, but the lock and what systemctl was asked."""
    found = (
        path for path in machine.rglob("*") if path.is_file() and path.name not in ("schedule.lock", "calls")
    )
    return {str(path): path.read_bytes() for path in found}


def test_applying_twice_changes_nothing(machine: Path, scheduler: LocalScheduler) -> None:
    assert scheduler.apply(config()).action == "create"
    before = files(machine)
    plan = scheduler.apply(config())
    assert (plan.action, plan.changes) == ("nothing", ())
    assert files(machine) == before
    assert [(one.name, one.cron, one.paused) for one in scheduler.all()] == [("digits", "0 3 * * 1", False)]


def test_a_plan_writes_nothing(machine: Path, scheduler: LocalScheduler) -> None:
    before = files(machine)
    assert scheduler.plan(config()).action == "create"
    assert files(machine) == before
    scheduler.apply(config())
    before = files(machine)
    plan = scheduler.plan(config("schedule.cron=0 4 * * *", "training.epochs=7"))
    assert plan.action == "replace"
    assert {(one.key, one.before, one.after) for one in plan.changes} == {
        ("schedule.cron", "0 3 * * 1", "0 4 * * *"),
        ("training.epochs", 20, 7),
    }
    assert files(machine) == before


def test_a_changed_file_replaces_it_and_waits_for_apply(machine: Path, scheduler: LocalScheduler) -> None:
    scheduler.apply(config())
    (first,) = machine.rglob("schedules/digits/*.yaml")
    assert scheduler.apply(config("training.epochs=7")).action == "replace"
    (second,) = set(machine.rglob("schedules/digits/*.yaml")) - {first}  # a run may just be reading the first
    assert "epochs: 7" in second.read_text()
    scheduler.apply(config("training.epochs=8"))
    assert first not in machine.rglob("schedules/digits/*.yaml")
    assert len(scheduler.all()) == 1


def test_paused_by_command_and_by_file(scheduler: LocalScheduler) -> None:
    scheduler.apply(config())
    scheduler.pause("digits")
    assert [one.paused for one in scheduler.all()] == [True]
    plan = scheduler.apply(config())
    assert plan.action == "resume"
    assert [(one.key, one.before, one.after) for one in plan.changes] == [("schedule.paused", True, False)]
    assert scheduler.apply(config("schedule.paused=true")).action == "pause"
    assert scheduler.apply(config("schedule.paused=true")).action == "nothing"
    scheduler.resume("digits")
    assert [one.paused for one in scheduler.all()] == [False]


def test_delete_removes_its_own(machine: Path, scheduler: LocalScheduler) -> None:
    before = files(machine)
    scheduler.apply(config())
    scheduler.apply(config("name=digits-2"))
    scheduler.delete("digits")
    assert [one.name for one in scheduler.all()] == ["digits-2"]
    scheduler.delete("digits-2")
    assert {path: text for path, text in files(machine).items() if text} == before
    with pytest.raises(NotFoundError, match="There is no schedule of digits; modelyard has made none here"):
        scheduler.delete("digits")


def test_another_store_is_another_models(scheduler: LocalScheduler) -> None:
    scheduler.apply(config())
    with pytest.raises(ConflictError, match=r"models in the store /.*/models, and .* /elsewhere"):
        scheduler.apply(config("store.url=/elsewhere"))


def test_one_at_a_time_only(scheduler: LocalScheduler) -> None:
    with pytest.raises(ConfigError, match="this machine runs one at a time"):
        scheduler.apply(config("schedule.concurrency=2"))


def test_two_at_once_leave_one(scheduler: LocalScheduler) -> None:
    wanted = [config(f"training.epochs={epochs}") for epochs in range(1, 5)]
    threads = [threading.Thread(target=scheduler.apply, args=(one,)) for one in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(scheduler.all()) == 1
    assert "nothing" in [scheduler.plan(one).action for one in wanted]


@pytest.mark.parametrize("program", ["crontab", "systemctl"])
def test_killed_at_any_call_and_run_again_it_is_whole(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    module, name, table = {
        "crontab": (crontab_module, "call", Crontab()),
        "systemctl": (systemd, "_systemctl", Timers()),
    }[program]
    calls, scheduler = getattr(module, name), LocalScheduler(table, 3600)
    for kill_at in itertools.count(1):
        numbers = itertools.count(1)

        def dying(*words: str, numbers: Any = numbers, last: int = kill_at, **options: Any) -> Any:
            if next(numbers) == last:
                raise KeyboardInterrupt
            return calls(*words, **options)

        wanted = config(f"training.epochs={kill_at}")
        monkeypatch.setattr(module, name, dying)
        with suppress(KeyboardInterrupt):
            scheduler.apply(wanted)
        monkeypatch.setattr(module, name, calls)
        scheduler.apply(wanted)
        assert scheduler.plan(wanted).action == "nothing"
        assert [one.paused for one in scheduler.all()] == [False]
        if next(numbers) <= kill_at:
            break
    assert kill_at > 2


@pytest.mark.parametrize("variable", ["MODELYARD_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"])
def test_a_folder_that_cannot_be_written_is_named(
    machine: Path, timers: LocalScheduler, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (machine / "file").touch()
    monkeypatch.setenv(variable, str(machine / "file"))
    with pytest.raises(ConfigError, match=rf"{machine}/file.*cannot be changed: .* or set {variable}"):
        timers.apply(config())


def test_a_program_that_does_not_end_or_is_not_there_is_named(
    machine: Path, scheduler: LocalScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler.apply(config())
    monkeypatch.setattr(programs, "LONGEST", 0.2)
    for program in ("crontab", "systemctl"):
        (machine / "bin" / program).write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(ConfigError, match=r"has not ended after 0.2 s\. Try it by hand"):
        scheduler.pause("digits")
    monkeypatch.setenv("PATH", str(machine / "nothing"))
    with pytest.raises(ConfigError, match="No such file or directory"):
        scheduler.pause("digits")


def test_systemd_where_the_user_has_one_else_cron_else_a_sentence(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "BOOTED", machine)
    assert isinstance(find_scheduler(LOCAL).table, Timers)
    monkeypatch.setattr(systemd, "BOOTED", machine / "nothing")
    assert isinstance(find_scheduler(LOCAL).table, Crontab)
    monkeypatch.setenv("PATH", str(machine / "nothing"))
    with pytest.raises(ConfigError, match="Install cron, or start `modelyard run CONFIG --skip-unchanged`"):
        find_scheduler(LOCAL)


def test_the_command_line(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(systemd, "BOOTED", machine / "nothing")
    Path("pets.yaml").write_text('name: pets\ndata: {kind: digits}\nschedule: {cron: "0 3 * * *"}\n')

    def run(*words: str) -> Any:
        code = invoke(["schedule", *words, "--output", "json"])
        return code, json.loads(capsys.readouterr().out)

    assert run("apply", "pets.yaml", "--dry-run")[1]["applied"] is False
    code, plan = run("apply", "pets.yaml")
    assert (code, plan["action"], plan["applied"], len(plan["next"])) == (0, "create", True, 3)
    assert run("diff", "pets.yaml")[1]["action"] == "nothing"
    assert run("pause", "pets") == (0, {"name": "pets", "state": "paused"})
    assert [one["paused"] for one in run("list")[1]] == [True]
    assert run("resume", "pets") == (0, {"name": "pets", "state": "resumed"})
    assert run("delete", "pets") == (0, {"name": "pets", "state": "deleted"})
    code, refusal = run("run-now", "pets")
    assert (code, refusal["error"]["kind"]) == (7, "NotFoundError")
    with pytest.raises(SystemExit, match="0"):
        invoke(["schedule", "apply", "pets.yaml"])
    assert "There is a schedule of pets now: the crontab of" in capsys.readouterr().out


def test_run_now_does_not_say_more_than_it_knows(
    machine: Path, timers: LocalScheduler, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(systemd, "BOOTED", machine)
    timers.apply(config())
    with pytest.raises(SystemExit, match="0"):
        invoke(["schedule", "run-now", "digits"])
    said = "A run of digits is asked for, and starts unless one is in flight: journalctl"
    assert capsys.readouterr().out.startswith(said)
