"""Explanations of local runs by `modelyard explain`."""

import os
import time

from modelyard.components import lifeline
from modelyard.components.events import StepChange, append
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import RunFailure
from tests.run_folders import create_ended_run, create_run


def test_the_latest_or_the_named_run_is_explained(tmp_path, modelyard):
    home = tmp_path / ".modelyard"
    failure = RunFailure(kind="DataError", message="No such file.", exit_code=3, step="ingest", log=None)
    create_ended_run(home, "20260101-000000-aaaa", state="failed", failure=failure)
    create_ended_run(home, "20260102-000000-bbbb", state="succeeded", decision="hold", reason="no gain")
    assert (
        modelyard("explain").out
        == "The run 20260102-000000-bbbb of digits succeeded: hold, because no gain.\n"
    )
    explanation = modelyard.json("explain", "20260101-000000-aaaa")
    assert explanation == {
        "text": "The run 20260101-000000-aaaa of digits failed in the step ingest: No such file.",
        "run": "20260101-000000-aaaa",
        "model": "digits",
        "state": "failed",
        "step": "ingest",
        "kind": "DataError",
    }
    missing = modelyard("explain", "20260103-000000-cccc")
    assert missing.code == 7
    assert "20260103-000000-cccc" in missing.err


def test_explain_without_a_run_names_the_next_command(modelyard):
    missing = modelyard("explain")
    assert missing.code == 7
    assert "modelyard run" in missing.err


def test_running_and_killed_runs_are_explained_with_their_step(tmp_path, modelyard):
    run = create_run(tmp_path / ".modelyard", "20260101-000000-aaaa")
    (run / "logs" / "ingest.log").write_text("read 3 files\n")
    append(run / run_folder.EVENTS, StepChange(step="ingest", state="running", at=time.time()))
    with lifeline.hold(run / "lifeline"):
        assert (
            modelyard("explain").out == "The run 20260101-000000-aaaa of digits is running the step ingest.\n"
        )
        running = modelyard("report")
        assert (running.code, "(running)" in running.err) == (7, True)
    explanation = modelyard.json("explain")
    assert (explanation["state"], explanation["kind"], explanation["step"]) == (
        "failed",
        "KilledError",
        "ingest",
    )
    assert explanation["text"].startswith(
        "The run 20260101-000000-aaaa of digits failed in the step ingest: The run was killed"
    )
    assert "was killed" in modelyard("runs", "show", "20260101-000000-aaaa").out
    before = modelyard.json("runs", "show", "20260101-000000-aaaa")
    os.utime(run / run_folder.EVENTS, (time.time() + 1000,) * 2)  # the time of the last event counts
    after = modelyard.json("runs", "show", "20260101-000000-aaaa")
    seconds = [
        next(step for step in run["steps"] if step["name"] == "ingest")["seconds"] for run in (before, after)
    ]
    assert seconds[0] < 900 < seconds[1] < 1100
    followed = modelyard("runs", "show", "20260101-000000-aaaa", "--wait")
    assert (followed.code, "modelyard runs retry" in followed.err) == (14, True)
    assert "last lines of ingest:\n  read 3 files\n" in followed.err
    (run / run_folder.CANCELLED).touch()
    explanation = modelyard.json("explain")
    assert (explanation["state"], explanation["kind"]) == ("cancelled", "CancelledError")
    assert "was ended by `modelyard runs cancel`" in explanation["text"]


def test_folders_of_plans_and_remote_runs_are_no_local_runs(tmp_path, modelyard):
    for name in ("20260101-000000-aaaa", "20260101-000000-bbbb-digits"):
        folder = tmp_path / ".modelyard" / "runs" / name
        (folder / "logs").mkdir(parents=True)
        (folder / "lifeline").touch()
    assert modelyard("explain").code == 7
    assert modelyard.json("runs", "list") == []
