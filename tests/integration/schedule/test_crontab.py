"""A schedule as lines of the crontab, and what cron starts."""

import subprocess
import sysconfig
import time
from pathlib import Path

import pytest

from modelyard.components.errors import ConfigError, NotFoundError
from modelyard.pipelines.schedule.local import crontab as crontab_module
from modelyard.pipelines.schedule.local.crontab import Crontab
from modelyard.pipelines.schedule.local.scheduler import LocalScheduler
from tests.integration.schedule.conftest import config

OTHERS = (
    "MAILTO=me\n# backups\n30 2 * * *\t/usr/bin/backup \\%d \xff  # every night\n\n@reboot  hello\n".encode(
        "latin-1"
    )
)
DEBIAN = Path("/etc/debian_version").exists() and Path("/usr/bin/crontab").exists()


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


def test_a_schedule_made_again_does_not_start_beside_the_run_of_the_one_before(
    machine: Path, cron: LocalScheduler
) -> None:
    program, table = machine / "modelyard", machine / "table"
    program.write_text(f'#!/bin/sh\necho started\nuntil test -e "{machine}/go on"; do sleep 0.05; done\n')
    program.chmod(0o755)
    for _ in range(2):
        cron.apply(config())
        table.write_text(_with_program(table.read_text(), program))
        log = Path(cron.run_now("digits"))
        assert _said(log) == ["started"]
        cron.delete("digits")
        assert list(log.parent.glob("*.yaml")) == []
    cron.apply(config())
    command = _command(_with_program(table.read_text(), program))
    try:
        assert subprocess.run(["/bin/sh", "-c", command], check=False, timeout=20).returncode == 1
    finally:
        (machine / "go on").touch()
    assert _said(log) == ["started"]


def test_a_job_that_was_removed_at_that_moment_is_not_started(cron: LocalScheduler) -> None:
    with pytest.raises(NotFoundError, match="There is no schedule of digits"):
        cron.table.start("digits")


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
