"""A schedule as a timer of systemd."""

import subprocess
from pathlib import Path
from shutil import which

import pytest

from modelyard.components.errors import ConflictError
from modelyard.pipelines.schedule.local.scheduler import LocalScheduler
from tests.integration.schedule.conftest import config


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
