"""How `modelyard explain` tells of runs of this machine."""

import json
import os
import time

from modelyard.components import lifeline
from modelyard.components.events import StepChange, append
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import Failure
from tests.run_folders import create_ended_run, create_run


def test_the_latest_run_is_explained_or_the_one_that_is_named(tmp_path, modelyard):
    home = tmp_path / ".modelyard"
    failure = Failure(kind="DataError", message="No such file.", exit_code=3, step="ingest", log=None)
    create_ended_run(home, "20260101-000000-aaaa", state="failed", failure=failure)
    create_ended_run(home, "20260102-000000-bbbb", state="succeeded", decision="hold", reason="no gain")
    assert modelyard("explain").out == "The run 20260102-000000-bbbb of digits succeeded: hold: no gain\n"
    told = json.loads(modelyard("explain", "20260101-000000-aaaa", "--output", "json").out)
    assert told == {
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


def test_without_a_run_the_next_command_is_named(modelyard):
    missing = modelyard("explain")
    assert missing.code == 7
    assert "modelyard run" in missing.err


def test_a_run_that_lives_is_running_and_one_that_was_killed_says_during_what(tmp_path, modelyard):
    run = create_run(tmp_path / ".modelyard", "20260101-000000-aaaa")
    (run / "logs" / "ingest.log").write_text("read 3 files\n")
    append(run / run_folder.EVENTS, StepChange(step="ingest", state="running", at=time.time()))
    with lifeline.hold(run / "lifeline"):
        assert (
            modelyard("explain").out == "The run 20260101-000000-aaaa of digits is running the step ingest.\n"
        )
        running = modelyard("report")
        assert (running.code, "is running" in running.err) == (7, True)
    told = json.loads(modelyard("explain", "--output", "json").out)
    assert (told["state"], told["kind"], told["step"]) == ("failed", "KilledError", "ingest")
    assert told["text"].startswith(
        "The run 20260101-000000-aaaa of digits failed in the step ingest: it was killed"
    )
    assert "it was killed" in modelyard("runs", "show", "20260101-000000-aaaa").out
    shown = json.loads(modelyard("runs", "show", "20260101-000000-aaaa", "--output", "json").out)
    os.utime(
        run / run_folder.EVENTS, (time.time() + 1000,) * 2
    )  # the last sign of life, not the time of the question
    again = json.loads(modelyard("runs", "show", "20260101-000000-aaaa", "--output", "json").out)
    seconds = [
        next(one for one in told["steps"] if one["name"] == "ingest")["seconds"] for told in (shown, again)
    ]
    assert seconds[0] < 900 < seconds[1] < 1100
    followed = modelyard("runs", "show", "20260101-000000-aaaa", "--wait")
    assert (followed.code, "modelyard runs retry" in followed.err) == (14, True)
    assert "last lines of ingest:\n  read 3 files\n" in followed.err
    (run / run_folder.CANCELLED).touch()
    told = json.loads(modelyard("explain", "--output", "json").out)
    assert (told["state"], told["kind"]) == ("cancelled", "CancelledError")
    assert "`modelyard runs cancel` ended it" in told["text"]


def test_what_a_killed_plan_or_a_run_elsewhere_left_is_no_run_of_this_machine(tmp_path, modelyard):
    for name in ("20260101-000000-aaaa", "20260101-000000-bbbb-digits"):
        folder = tmp_path / ".modelyard" / "runs" / name
        (folder / "logs").mkdir(parents=True)
        (folder / "lifeline").touch()
    assert modelyard("explain").code == 7
    assert json.loads(modelyard("runs", "list", "--output", "json").out) == []
