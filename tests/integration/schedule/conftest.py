"""Programs of a machine that keep to a folder of the test: a crontab, and systemd's control."""

from pathlib import Path

import pytest

from modelyard.pipelines.config.config import Config, load
from modelyard.pipelines.schedule.local.crontab import Crontab
from modelyard.pipelines.schedule.local.scheduler import LocalScheduler
from modelyard.pipelines.schedule.local.systemd import Timers

CRONTAB = """\
#!/bin/sh
# as Debian's: -l lists, - installs what ends with a newline
case "$1" in
  -l) cat "$TABLE" 2>/dev/null || { echo "no crontab for me" >&2; exit 1; } ;;
  -) cat > "$TABLE.new"
     test -z "$(tail -c 1 "$TABLE.new")" || { echo "missing newline before EOF" >&2; exit 1; }
     mv "$TABLE.new" "$TABLE" ;;
esac
"""
SYSTEMCTL = """\
#!/bin/sh
# keeps what is enabled and active as files in $UNITS
shift
echo "$@" >> "$UNITS/calls"
case "$1" in
  show) for unit; do :; done
    echo ActiveState=$(test -e "$UNITS/active-$unit" && echo active || echo inactive)
    echo UnitFileState=$(test -e "$UNITS/enabled-$unit" && echo enabled || echo disabled)
    echo NeedDaemonReload=no ;;
  enable) touch "$UNITS/enabled-$2" ;;
  restart) touch "$UNITS/active-$2" ;;
  disable) rm -f "$UNITS/enabled-$3" "$UNITS/active-$3" ;;
esac
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder of a machine whose crontab and systemctl, and all that is written, are in it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"crontab": CRONTAB, "systemctl": SYSTEMCTL}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (tmp_path / "units").mkdir()
    work = tmp_path / "work 100%"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("TABLE", str(tmp_path / "table"))
    monkeypatch.setenv("UNITS", str(tmp_path / "units"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("MODELYARD_HOME", raising=False)
    return tmp_path


@pytest.fixture
def cron() -> LocalScheduler:
    return LocalScheduler(Crontab(), 3600)


@pytest.fixture
def timers() -> LocalScheduler:
    return LocalScheduler(Timers(), 3600)


def config(*overrides: str) -> Config:
    """Return the digits with a schedule."""
    return load(overrides=["schedule.cron=0 3 * * 1", *overrides], environ={})
