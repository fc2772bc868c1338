"""The command `modelyard run` on the digits with the defaults."""

import json
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import httpx
import numpy as np
import pytest
import yaml

from modelyard.components import records
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import open_objects

ROOT = Path(__file__).parents[3]
STEPS = ["fingerprint", "ingest", "preprocess", "train", "evaluate", "deploy", "explain"]
NEVER_CACHED = ["fingerprint", "deploy", "explain"]


def test_the_first_run_promotes_a_champion_and_predicts_over_http(digits):
    workspace, summary = digits
    assert (summary["state"], summary["decision"], summary["version"]) == ("succeeded", "promote", 1)
    assert "no champion" in summary["reason"]
    assert [(step["name"], step["state"]) for step in summary["steps"]] == [
        (name, "succeeded") for name in STEPS
    ]
    metrics, evaluation = summary["metrics"], summary["evaluation"]
    low, high = metrics["accuracy_interval"]
    assert metrics["accuracy"] > 0.95
    assert low < metrics["accuracy"] == evaluation["values"][evaluation["primary"]]["value"] < high
    assert summary["prediction"]["version"] == 1
    assert summary["prediction"]["text"] in "0123456789"
    page = Path(summary["report"]).read_text()
    assert page.rstrip().endswith("</html>")
    for text in (summary["run"], "filters 32; kernel 3", "Adam(", "data:image/png", "test examples"):
        assert text in page
    assert workspace.state()["moves"] == [("promote", 1)]
    assert workspace.temporary_files() == []
    workspace.wait_until_idle()


def test_the_second_run_is_cached_with_other_serving_settings(digits, champion):
    _, first = digits
    before = champion.state()
    second = champion.json("run", settings=("serving.max_queue=7",))
    assert [step["name"] for step in second["steps"] if not step["cached"]] == NEVER_CACHED
    for key in ("version", "decision", "reason", "fingerprint", "metrics", "prediction"):
        assert second[key] == first[key], key
    assert champion.state() == before


def test_the_notebook_runs_with_the_cached_steps(digits, champion):
    _, first = digits
    cells = json.loads((ROOT / "examples/quickstart.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    script = f"{code}\nprint(summary.decision, summary.version, predictions.shape)"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=champion.folder, capture_output=True, text=True
    )
    assert result.stdout.splitlines()[-1] == f"promote {first['version']} (2, 10)", result.stderr


def test_candidates_below_the_minimum_are_rejected_in_concurrent_runs(champion):
    before, limits = champion.state(), (1.0, 0.9999)
    objects = open_objects(Store(url=champion.models.url))
    commands = [
        champion.command("run", "--output", "json", settings=(f"gate.minimum.accuracy={limit}",))
        for limit in limits
    ]
    processes = [
        subprocess.Popen(command, cwd=champion.folder, stdout=PIPE, stderr=PIPE) for command in commands
    ]
    for limit, process in zip(limits, processes, strict=True):
        out, err = process.communicate(timeout=800)
        assert process.returncode == 0, err
        summary = json.loads(out)
        assert (summary["state"], summary["decision"], summary["version"]) == ("succeeded", "reject", None)
        assert summary["prediction"]["version"] == summary["champion"] == 1
        assert next(step["state"] for step in summary["steps"] if step["name"] == "deploy") == "skipped"
        run_records = records.read_run(objects, "digits", summary["run"])
        assert run_records.start.fingerprint == run_records.decision.fingerprint == summary["fingerprint"]
        assert run_records.final_decision() == ("reject", summary["reason"])
        assert [rule.limit for rule in run_records.decision.decision.rules if rule.limit in limits] == [limit]
        assert summary["reason"] in run_records.end.text
    assert champion.state() == before


def test_other_commands_have_the_results_of_the_run(digits, tmp_path, error_text):
    workspace, summary = digits
    assert workspace.json("models", "list")[0]["champion"] == 1
    manifest = workspace.json("models", "show", "digits")
    assert (manifest["run"], manifest["run_id"]) == (summary["fingerprint"], summary["run"])
    assert manifest["config"]["training"]["epochs"] == 20
    assert manifest["code_sha256"] == ""
    assert [entry["version"] for entry in workspace.json("models", "history", "digits")] == [1]
    golden = workspace.models.fetch("digits", 1, tmp_path / "version", paths=["golden.json"])
    assert golden.version == 1
    saved = json.loads((tmp_path / "version" / "golden.json").read_text())
    np.save(tmp_path / "many.npy", np.asarray(saved["instances"], np.uint8))
    predictions = workspace.json("predict", "digits", tmp_path / "many.npy")["predictions"]
    for prediction, expected in zip(predictions, saved["predictions"], strict=True):
        assert list(prediction["values"].values()) == pytest.approx(expected, abs=1e-4)
    with workspace.serving("digits") as url:
        status = httpx.get(f"{url}/v1/models/digits").json()["model_version_status"]
        assert [(version["version"], version["state"]) for version in status] == [("1", "AVAILABLE")]
        over_http = workspace.json("predict", "digits", tmp_path / "many.npy", "--url", url)
        second_server = workspace.modelyard("serve", "digits", "--port", url.rsplit(":", 1)[1])
    assert [prediction["text"] for prediction in over_http["predictions"]] == [
        prediction["text"] for prediction in predictions
    ]
    assert second_server.returncode == 8
    assert "port" in error_text(second_server.stderr)


def test_compile_writes_the_steps_of_the_run(digits, tmp_path):
    workspace, _ = digits
    result = workspace.modelyard("compile", "-o", tmp_path / "pipeline.yaml")
    assert result.returncode == 0, result.stderr
    pipeline = yaml.safe_load((tmp_path / "pipeline.yaml").read_text())
    executors = pipeline["deploymentSpec"]["executors"]
    assert sorted(name.removeprefix("exec-") for name in executors) == sorted(STEPS)
    assert "pip install" not in (tmp_path / "pipeline.yaml").read_text()
