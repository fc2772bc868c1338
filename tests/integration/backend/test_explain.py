"""`explain` as a person types it: of runs that fare and end on Kubeflow Pipelines."""

import socket
from pathlib import Path
from typing import Any

import yaml

from modelyard.components import records
from modelyard.components.errors import DataError
from modelyard.components.kubernetes import cluster
from modelyard.components.records import RunEnd
from modelyard.components.store.storage import open_objects
from modelyard.pipelines.environments.environment import Environment
from tests.integration.backend.conftest import Command, Site


def test_explain(site: Site, modelyard: Command) -> None:
    run = modelyard("submit", "--output", "json")[1]
    assert modelyard("explain", run["run"], "--output", "json")[1]["state"] == "running"
    site.runs.fail(run["id"], "ingest", DataError("No such file. Name one."))
    site.runs.become(run["id"], "FAILED")
    text = f"The run {run['run']} of digits failed in the step ingest: No such file. Name one."
    assert modelyard("explain", run["id"]) == (0, f"{text}\n")
    code, found = modelyard("explain", run["run"], "--output", "json")
    assert (code, found) == (
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
    assert modelyard("explain", "nobody")[0] == 7
    assert second["run"] in modelyard("explain")[1]


def test_explain_names_why_a_stuck_run_was_terminated(
    site: Site, modelyard: Command, monkeypatch: Any
) -> None:
    run = modelyard("submit", "--output", "json")[1]
    why = "Unschedulable: 0/1 nodes are available: 1 Insufficient memory."
    site.runs.step(run["id"], "train", "Pending", message=why)
    monkeypatch.setenv("MODELYARD_ENVIRONMENT__START_TIMEOUT", "1")
    assert modelyard("runs", "show", run["run"], "--wait")[0] == 11
    site.runs.step(run["id"], "train", "Failed", message="Step exceeded its deadline")
    _, told = modelyard("explain", run["run"], "--output", "json")
    assert (told["state"], told["step"], told["kind"]) == ("cancelled", "train", "UnschedulableError")
    assert "Insufficient memory" in told["text"]
    assert "environment.steps.train" in told["text"]
    # of a later attempt it says nothing
    assert modelyard("runs", "retry", run["run"])[0] == 0
    assert modelyard("runs", "cancel", run["run"])[0] == 0
    _, told = modelyard("explain", run["run"], "--output", "json")
    assert (told["state"], told["kind"]) == ("cancelled", None)
    assert "Insufficient memory" not in told["text"]


def test_the_record_of_the_exit_task_is_used_after_the_pods_are_deleted(
    site: Site, modelyard: Command, environment: Environment
) -> None:
    run = modelyard("submit", "--output", "json")[1]
    site.runs.step(run["id"], "train", "Failed", message="main: OOMKilled (exit code 1)")
    site.runs.become(run["id"], "RUNNING")
    end = RunEnd(
        run_id=run["id"],
        model="digits",
        state="failed",
        step="train",
        kind="OutOfMemoryError",
        text="It had 3 GiB.",
        ended=records.now(),
    )
    records.write(open_objects(environment.model_store()), records.end_key("digits", run["id"]), end)
    site.runs.become(run["id"], "FAILED")
    _, told = modelyard("explain", run["run"], "--output", "json")
    assert (told["kind"], told["text"]) == ("OutOfMemoryError", "It had 3 GiB.")


def test_unreachable_cluster(site: Site, modelyard: Command, tmp_path: Path, monkeypatch: Any) -> None:
    """Then what Kubeflow Pipelines keeps says how a run ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    named = {"name": "away"}
    there = {
        "clusters": [{**named, "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "contexts": [{**named, "context": {"cluster": "away", "user": "away"}}],
        "users": [{**named, "user": {}}],
        "current-context": "away",
    }
    (tmp_path / "away").write_text(yaml.safe_dump(there))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "away"))
    monkeypatch.setattr(cluster, "RETRY_SECONDS", 0.0)
    run = modelyard("submit", "--output", "json")[1]
    site.runs.fail(run["id"], "ingest", DataError("No such file."))
    site.runs.become(run["id"], "FAILED")
    text = f"The run {run['run']} of digits failed in the step ingest: No such file.\n"
    assert modelyard("explain", run["run"]) == (0, text)
    assert modelyard("runs", "show", run["run"], "--wait")[0] == 3
