"""The command `explain` for runs on Kubeflow Pipelines."""

from pathlib import Path
from typing import Any

from modelyard.components import records
from modelyard.components.errors import DataError
from modelyard.components.kubernetes import cluster
from modelyard.components.records import RunEnd
from modelyard.components.store.records import write_record
from modelyard.components.store.storage import open_objects
from modelyard.pipelines.environments.environment import Environment
from tests.integration.backend.conftest import Command, FakeKfp
from tests.kubeconfig import use_cluster


def test_running_failed_and_cancelled_runs_are_explained(fake_kfp: FakeKfp, modelyard: Command) -> None:
    run = modelyard("submit", "--output", "json")[1]
    assert modelyard("explain", run["run"], "--output", "json")[1]["state"] == "running"
    fake_kfp.runs.fail_step(run["id"], "ingest", DataError("No such file. Name one."))
    fake_kfp.runs.set_state(run["id"], "FAILED")
    text = f"The run {run['run']} of digits failed in the step ingest: No such file. Name one."
    assert modelyard("explain", run["id"]) == (0, f"{text}\n")
    code, explanation = modelyard("explain", run["run"], "--output", "json")
    assert (code, explanation) == (
        0,
        {
            "text": text,
            "run": run["run"],
            "model": "digits",
            "state": "failed",
            "step": "ingest",
            "kind": "DataError",
        },
    )
    second = modelyard("submit", "--output", "json")[1]
    assert modelyard("runs", "cancel", second["run"])[0] == 0
    assert "was cancelled" in modelyard("explain", second["run"])[1]
    assert modelyard("explain", "unknown")[0] == 7
    assert second["run"] in modelyard("explain")[1]


def test_explain_names_why_a_stuck_run_was_terminated(
    fake_kfp: FakeKfp, modelyard: Command, monkeypatch: Any
) -> None:
    run = modelyard("submit", "--output", "json")[1]
    message = "Unschedulable: 0/1 nodes are available: 1 Insufficient memory."
    fake_kfp.runs.set_step(run["id"], "train", "Pending", message=message)
    monkeypatch.setenv("MODELYARD_ENVIRONMENT__START_TIMEOUT", "1")
    assert modelyard("runs", "show", run["run"], "--wait")[0] == 11
    fake_kfp.runs.set_step(run["id"], "train", "Failed", message="Step exceeded its deadline")
    _, explanation = modelyard("explain", run["run"], "--output", "json")
    assert (explanation["state"], explanation["step"], explanation["kind"]) == (
        "cancelled",
        "train",
        "UnschedulableError",
    )
    assert "Insufficient memory" in explanation["text"]
    assert "environment.steps.train" in explanation["text"]
    # a later attempt does not have the same reason
    assert modelyard("runs", "retry", run["run"])[0] == 0
    assert modelyard("runs", "cancel", run["run"])[0] == 0
    _, explanation = modelyard("explain", run["run"], "--output", "json")
    assert (explanation["state"], explanation["kind"]) == ("cancelled", None)
    assert "Insufficient memory" not in explanation["text"]


def test_the_record_of_the_exit_task_is_used_after_the_pods_are_deleted(
    fake_kfp: FakeKfp, modelyard: Command, environment: Environment
) -> None:
    run = modelyard("submit", "--output", "json")[1]
    fake_kfp.runs.set_step(run["id"], "train", "Failed", message="main: OOMKilled (exit code 1)")
    fake_kfp.runs.set_state(run["id"], "RUNNING")
    end = RunEnd(
        run_id=run["id"],
        model="digits",
        state="failed",
        step="train",
        kind="OutOfMemoryError",
        text="It had 3 GiB.",
        ended=records.now(),
    )
    write_record(open_objects(environment.model_store()), records.end_key("digits", run["id"]), end)
    fake_kfp.runs.set_state(run["id"], "FAILED")
    _, explanation = modelyard("explain", run["run"], "--output", "json")
    assert (explanation["kind"], explanation["text"]) == ("OutOfMemoryError", "It had 3 GiB.")


def test_a_run_is_explained_without_access_to_its_cluster(
    fake_kfp: FakeKfp, modelyard: Command, unreachable_url: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """The Workflow comes from the API server of Kubeflow Pipelines."""
    use_cluster(monkeypatch, tmp_path, unreachable_url)
    monkeypatch.setattr(cluster, "RETRY_SECONDS", 0.0)
    run = modelyard("submit", "--output", "json")[1]
    fake_kfp.runs.fail_step(run["id"], "ingest", DataError("No such file."))
    fake_kfp.runs.set_state(run["id"], "FAILED")
    text = f"The run {run['run']} of digits failed in the step ingest: No such file.\n"
    assert modelyard("explain", run["run"]) == (0, text)
    assert modelyard("runs", "show", run["run"], "--wait")[0] == 3
