"""How `modelyard explain` tells of runs of this machine."""

import json

from modelyard.components import lifeline
from modelyard.pipelines.runners.base import Failure
from tests.led_runs import ended, started


def test_the_latest_run_is_explained_or_the_one_that_is_named(tmp_path, modelyard):
    home = tmp_path / ".modelyard"
    failure = Failure(kind="DataError", message="No such file.", exit_code=3, step="ingest", log=None)
    ended(home, "20260101-000000-aaaa", state="failed", failure=failure)
    ended(home, "20260102-000000-bbbb", state="succeeded", decision="hold", reason="no gain")
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
    run = started(tmp_path / ".modelyard", "20260101-000000-aaaa")
    (run / "logs" / "ingest.log").write_text("read")
    with lifeline.hold(run / "lifeline"):
        assert modelyard("explain").out == "The run 20260101-000000-aaaa is running the step ingest.\n"
    text = modelyard("explain").out
    assert text.startswith("The run 20260101-000000-aaaa was cancelled during the step ingest: it was killed")


def test_what_a_killed_plan_or_a_run_elsewhere_left_is_no_run_of_this_machine(tmp_path, modelyard):
    for name in ("20260101-000000-aaaa", "20260101-000000-bbbb-digits"):
        folder = tmp_path / ".modelyard" / "runs" / name
        (folder / "logs").mkdir(parents=True)
        (folder / "lifeline").touch()
    assert modelyard("explain").code == 7
    assert json.loads(modelyard("runs", "list", "--output", "json").out) == []
