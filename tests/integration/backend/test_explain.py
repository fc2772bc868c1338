"""`explain` as a person types it: of runs that fare and end on Kubeflow Pipelines."""

import socket
from pathlib import Path
from typing import Any

import yaml

from modelyard.components.kubernetes import cluster
from tests.integration.backend.conftest import Command, Site


def test_explain(site: Site, modelyard: Command) -> None:
    run = modelyard("submit", "--output", "json")[1]
    assert modelyard("explain", run["run"], "--output", "json")[1]["state"] == "running"
    error = (
        "Traceback (most recent call last):\nmodelyard.components.errors.DataError: No such file. Name one.\n"
    )
    site.runs.step(run["id"], "ingest", "Failed", error, "main: Error (exit code 1)")
    site.runs.become(run["id"], "FAILED")
    text = f"The run {run['run']} of digits failed in the step ingest: No such file. Name one."
    assert modelyard("explain", run["id"]) == (0, f"{text}\n")
    code, found = modelyard("explain", run["run"], "--output", "json")
    assert (code, found) == (
        0,
        {"text": text, "run": run["run"], "model": "digits", "state": "failed", "step": "ingest"},
    )
    second = modelyard("submit", "--output", "json")[1]
    assert modelyard("runs", "cancel", second["run"])[0] == 0
    assert "was cancelled" in modelyard("explain", second["run"])[1]
    assert modelyard("explain", "nobody")[0] == 7
    assert second["run"] in modelyard("explain")[1]


def test_why_a_stuck_run_was_ended(site: Site, modelyard: Command, monkeypatch: Any) -> None:
    run = modelyard("submit", "--output", "json")[1]
    why = "Unschedulable: 0/1 nodes are available: 1 Insufficient memory."
    site.runs.step(run["id"], "train", "Pending", message=why)
    monkeypatch.setenv("MODELYARD_ENVIRONMENT__START_TIMEOUT", "1")
    assert modelyard("runs", "show", run["run"], "--wait")[0] == 11
    site.runs.step(run["id"], "train", "Failed", message="Step exceeded its deadline")
    _, told = modelyard("explain", run["run"], "--output", "json")
    assert (told["state"], told["step"]) == ("cancelled", "train")
    assert "Insufficient memory" in told["text"]
    assert "environment.steps.train" in told["text"]


def test_cluster_that_is_away(site: Site, modelyard: Command, tmp_path: Path, monkeypatch: Any) -> None:
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
    monkeypatch.setattr(cluster, "PATIENCE", 0.0)
    run = modelyard("submit", "--output", "json")[1]
    site.runs.step(run["id"], "ingest", "Failed", "modelyard.components.errors.DataError: No such file.\n")
    site.runs.become(run["id"], "FAILED")
    text = f"The run {run['run']} of digits failed in the step ingest: No such file.\n"
    assert modelyard("explain", run["run"]) == (0, text)
    assert modelyard("runs", "show", run["run"], "--wait")[0] == 3
