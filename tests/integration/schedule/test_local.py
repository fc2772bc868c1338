"""A schedule on this machine: what is written where, and what it starts."""

import itertools
import json
import subprocess
import sysconfig
import threading
import time
from contextlib import suppress
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from components.errors import ConfigError, ConflictError, NotFoundError
from pipelines.cli.failures import guarded
from pipelines.compiler import LOCAL
from pipelines.schedule.local import crontab as crontab_module
from pipelines.schedule.local import systemd
from pipelines.schedule.local.crontab import Crontab
from pipelines.schedule.local.scheduler import LocalScheduler, find_scheduler
from pipelines.schedule.local.systemd import Timers
from tests.integration.schedule.conftest import config

OTHERS = (
    "MAILTO=me\n# backups\n30 2 * * *\t/usr/bin/backup \\%d \xff  # every night\n\n@reboot  hello\n".encode(
        "latin-1"
    )
)


DEBIAN = Path("/etc/debian_version").exists() and Path("/usr/bin/crontab").exists()


@pytest.fixture(params=[Crontab, Timers])
def scheduler(request: pytest.FixtureRequest) -> LocalScheduler:
    return LocalScheduler(request.param(), 3600)


@pytest.fixture
def cron() -> LocalScheduler:
    return LocalScheduler(Crontab(), 3600)


@pytest.fixture
def timers() -> LocalScheduler:
    return LocalScheduler(Timers(), 3600)


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


# cron -------------------------------------------------------------------------------------------


def test_lines_of_others_stay_as_they_are(machine: Path, cron: LocalScheduler) -> None:
    table = machine / "table"
    table.write_bytes(OTHERS)
    cron.apply(config())
    after = b"15 4 * * *  later\n"
    table.write_bytes(table.read_bytes() + after)
    assert table.read_bytes().startswith(OTHERS)
    cron.apply(config("schedule.cron=5 5 * * *"))
    written = table.read_bytes()
    assert written.startswith(OTHERS)
    assert written.endswith(after)
    cron.pause("digits")
    cron.resume("digits")
    assert table.read_bytes() == written
    cron.delete("digits")
    assert table.read_bytes() == OTHERS + after


def test_a_damaged_job_is_repaired(machine: Path, cron: LocalScheduler) -> None:
    cron.apply(config())
    table = machine / "table"
    whole = table.read_text()
    table.write_text(OTHERS.decode("latin-1") + whole.splitlines(keepends=True)[1])
    assert cron.apply(config()).action == "replace"
    assert table.read_text().endswith(whole)
    table.write_text(whole.splitlines(keepends=True)[0])
    assert cron.apply(config()).action == "create"
    assert table.read_text() == whole


@pytest.mark.skipif(not DEBIAN, reason="there is no crontab of Debian's, which can look without installing")
def test_cron_reads_the_line(machine: Path, cron: LocalScheduler) -> None:
    cron.apply(config())
    cron.apply(config("name=other", "schedule.paused=true"))
    subprocess.run(["/usr/bin/crontab", "-n", str(machine / "table")], check=True)


def test_what_cron_starts_is_the_run_that_was_applied(machine: Path, cron: LocalScheduler) -> None:
    program = machine / "modelyard"
    program.write_text('#!/bin/sh\necho "$PWD|$MODELYARD_HOME|$*"\n')
    program.chmod(0o755)
    cron.apply(config("schedule.force_after=30d"))
    table = machine / "table"
    table.write_text(_with_program(table.read_text(), program))
    log = Path(cron.run_now("digits"))
    (path,) = machine.rglob("schedules/digits/*.yaml")
    work = machine / "work 100%"
    assert _said(log) == [f"{work}|{work}/.modelyard|run {path} --skip-unchanged --force-after 30d"]


def test_a_run_that_is_due_while_another_is_in_flight_is_left_out(
    machine: Path, cron: LocalScheduler
) -> None:
    program = machine / "modelyard"
    program.write_text(
        f'#!/bin/sh\necho started\nuntil test -e "{machine}/go on"; do sleep 0.05; done\necho ended\n'
    )
    program.chmod(0o755)
    cron.apply(config())
    table = machine / "table"
    table.write_text(_with_program(table.read_text(), program))
    log = Path(cron.run_now("digits"))
    assert _said(log) == ["started"]
    command = _command(table.read_text())
    assert subprocess.run(["/bin/sh", "-c", command], check=False).returncode == 1
    (machine / "go on").touch()
    while "ended" not in _said(log):
        time.sleep(0.05)
    assert _said(log) == ["started", "ended"]


def test_a_stuck_run_does_not_block_the_next(machine: Path) -> None:
    cron = LocalScheduler(Crontab(), 1)
    program = machine / "modelyard"
    program.write_text("#!/bin/sh\necho started\nsleep 600\n")
    program.chmod(0o755)
    cron.apply(config())
    table = machine / "table"
    table.write_text(_with_program(table.read_text(), program))
    command = _command(table.read_text())
    for _ in range(2):
        assert subprocess.run(["/bin/sh", "-c", command], check=False).returncode == 124
    assert _said(next(machine.rglob("log.txt"))) == ["started", "started"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("schedule.catch_up=true", "cron makes up for nothing"),
        ("schedule.time_zone=Europe/Berlin", "cron reads it in the zone of this machine"),
    ],
)
def test_what_cron_cannot_do_is_refused(
    cron: LocalScheduler, override: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crontab_module, "LOCALTIME", Path("/usr/share/zoneinfo/Asia/Tokyo"))
    with pytest.raises(ConfigError, match=says):
        cron.apply(config(override))


def test_a_line_is_written_in_the_zone_of_the_machine(
    machine: Path, cron: LocalScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crontab_module, "LOCALTIME", Path("/usr/share/zoneinfo/Asia/Tokyo"))
    cron.apply(config())  # 3:00 in UTC
    assert "\n0 12 * * 1 cd " in (machine / "table").read_text()


# systemd ----------------------------------------------------------------------------------------


def test_units_of_others_are_left_alone(machine: Path, timers: LocalScheduler) -> None:
    unit = machine / "config" / "systemd" / "user" / "modelyard-digits.timer"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Timer]\nOnCalendar=daily\n")
    with pytest.raises(ConflictError, match="modelyard did not make it"):
        timers.apply(config())
    assert timers.all() == []
    assert list(unit.parent.iterdir()) == [unit]


@pytest.mark.skipif(which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_reads_the_units(machine: Path, timers: LocalScheduler) -> None:
    timers.apply(
        config("schedule.time_zone=Europe/Berlin", "schedule.cron=0 3 1 * 1", "schedule.catch_up=true")
    )
    units = sorted((machine / "config" / "systemd" / "user").iterdir())
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--recursive-errors=no", *map(str, units)],
        capture_output=True,
        text=True,
        check=False,
        env={"XDG_RUNTIME_DIR": str(machine), "HOME": str(machine), "PATH": "/usr/bin:/bin"},
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    service, timer = (unit.read_text() for unit in units)
    assert f'Environment="MODELYARD_HOME={machine}/work 100%%/.modelyard"' in service
    assert "TimeoutStartSec=3600" in service
    assert timer.count("OnCalendar=") == 2
    assert "Persistent=true" in timer


def test_run_now_starts_the_service(machine: Path, timers: LocalScheduler) -> None:
    timers.apply(config())
    assert timers.run_now("digits") == "journalctl --user -u modelyard-digits.service"
    assert "start --no-block modelyard-digits.service" in (machine / "units" / "calls").read_text()


# neither ----------------------------------------------------------------------------------------


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


def _with_program(table: str, program: Path) -> str:
    """Return a crontab that starts another program than modelyard."""
    return table.replace(str(_modelyard()), str(program))


def _modelyard() -> Path:
    return Path(sysconfig.get_path("scripts")) / "modelyard"


def _command(table: str) -> str:
    """Return the command as cron hands it to sh."""
    line = table.splitlines()[-1]
    return line.split(maxsplit=5)[5].replace("\\%", "%")


def _said(log: Path) -> list[str]:
    """Return the lines of a log, once there are some."""
    while not log.is_file() or not log.read_text().endswith("\n"):
        time.sleep(0.05)
    return log.read_text().splitlines()


def test_the_command_line(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(systemd, "BOOTED", machine / "nothing")
    Path("pets.yaml").write_text('name: pets\ndata: {kind: digits}\nschedule: {cron: "0 3 * * *"}\n')

    def run(*words: str) -> Any:
        code = guarded(["schedule", *words, "--output", "json"])
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
        guarded(["schedule", "apply", "pets.yaml"])
    assert "There is a schedule of pets now: the crontab of" in capsys.readouterr().out
