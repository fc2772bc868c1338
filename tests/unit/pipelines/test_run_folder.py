import json
import os
import shutil
import subprocess
import sys

import pytest

from modelyard.components import lifeline
from modelyard.components.errors import ConfigError, MachineError
from modelyard.pipelines.runners import run_folder

FILL_DISK = """
import json, os
from pathlib import Path
from modelyard.components.step import TERMINATION_LOG_VARIABLE, step
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import RunFailure, RunSummary
with run_folder.create(Path("home").absolute()) as run:
    record = os.environ[TERMINATION_LOG_VARIABLE] = str(run / "failure.json")
    try:
        with step("train"), open(run / "artifacts/big", "wb") as file:
            while True:
                file.write(bytes(4096))
    except OSError as error:
        failure = RunFailure.from_error(error, "train")
        result = {"state": "failed", "steps": (), "seconds": 1.0, "store": "x", "failure": failure}
        run_folder.write_summary(run, RunSummary(run=run.name, model="m", **result))
    results = [json.loads(Path(file).read_text()) for file in (record, run / "run.json")]
    print(json.dumps(results), flush=True)  # the step ends with the run
"""


def test_a_run_has_scratch_and_lifeline_until_its_end(tmp_path):
    with run_folder.create(tmp_path) as run:
        assert os.environ["TMPDIR"] == str(run / "scratch")
        assert os.environ["MODELYARD_LIFELINE"] == str(run / "lifeline")
    assert "MODELYARD_LIFELINE" not in os.environ
    assert not (run / "scratch").exists()


def test_partial_artifacts_of_a_killed_run_are_removed_by_the_next_run(tmp_path):
    killed = tmp_path / "runs" / "20200101-000000-dead"
    (killed / "scratch" / "x").mkdir(parents=True)
    (killed / "artifacts" / "p" / "ingest" / "raw.partial").mkdir(parents=True)
    (killed / "artifacts" / "p" / "ingest" / "complete").mkdir(parents=True)
    with run_folder.create(tmp_path) as running:
        (running / "artifacts" / "raw.partial").mkdir()
        with run_folder.create(tmp_path):
            assert (running / "artifacts" / "raw.partial").exists()
    assert not (killed / "scratch").exists()
    assert [path.name for path in (killed / "artifacts" / "p" / "ingest").iterdir()] == ["complete"]


def test_a_starting_run_is_not_a_killed_run(tmp_path, monkeypatch):
    killed_runs = []
    hold = lifeline.hold

    def hold_after_search(path):
        killed_runs.append(run_folder._killed_runs(tmp_path))
        return hold(path)

    monkeypatch.setattr(lifeline, "hold", hold_after_search)
    with run_folder.create(tmp_path) as run:
        assert (run / "scratch").is_dir()
    assert killed_runs == [[]]


@pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("unshare"),
    reason="NOT RUN: mounting a small disk needs root and unshare",
)
def test_a_run_that_fills_its_disk_is_recorded(tmp_path):
    script = 'mount -t tmpfs -o size=17m tmpfs "$0" && cd "$0" && exec "$1" -c "$2"'
    command = ["unshare", "-m", "sh", "-c", script, tmp_path, sys.executable, FILL_DISK]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    record, summary = json.loads(result.stdout)
    for failure in (record, summary["failure"]):
        assert (failure["kind"], failure["exit_code"]) == ("MachineError", 15)
        assert "No space left on device (0.0 MB free)" in failure["message"]


def test_a_run_does_not_start_without_disk_space_or_open_files(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "MIN_OPEN_FILES", 2**62)
    with pytest.raises(MachineError, match="ulimit -n"), run_folder.create(tmp_path / "home"):
        pass
    monkeypatch.setattr(run_folder, "MIN_FREE_BYTES", 2**62)
    with pytest.raises(MachineError, match="MODELYARD_HOME"), run_folder.create(tmp_path / "home"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a\nb", "caf\udce9", "{{$.inputs}}"])
def test_an_unusable_home_is_refused(name, monkeypatch):
    monkeypatch.setenv("MODELYARD_HOME", f"/disk/{name}")
    with pytest.raises(ConfigError, match="MODELYARD_HOME"):
        run_folder.home()
