"""What came of a run, from what its steps, or those of the run that filled the cache, put into a bucket."""

import json
import threading
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from modelyard.components.artifacts import Decision, Interval, Metrics, Outcome, write
from modelyard.components.store import staging
from modelyard.pipelines.cli import invoke
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning.plan import Plan, keep, key_of
from modelyard.pipelines.runners.kfp import runs, submission
from modelyard.pipelines.runners.kfp.client import connect
from modelyard.pipelines.runners.kfp.following import Following
from tests.integration.backend.conftest import Site
from tests.integration.backend.plans import an_hour

BUCKET = "results-for-tests"
FINGERPRINT = "dc4f44653796"


@pytest.fixture(scope="module")
def bucket(emulator: str) -> str:
    httpx.post(f"{emulator}/storage/v1/b", json={"name": BUCKET}).raise_for_status()
    return f"gs://{BUCKET}"


@pytest.fixture
def place(
    environment: Environment, emulator: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Environment:
    monkeypatch.setattr(runs, "PAUSE", 0.02)
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    root = f"{bucket}/{uuid4().hex}"
    places = {"store": f"{root}/models", "pipeline_root": f"{root}/runs", "storage_endpoint": emulator}
    return environment.model_copy(update=places)


@pytest.fixture
def run(site: Site, place: Environment) -> Any:
    config = load(environ={}, store=place.model_store())
    started = submission.submit(connect(place), submission.prepare(config, place))
    site.runs.step(started.run_id, "fingerprint", "Succeeded", "data 6ef3, run dc4f\n")
    return started


def put(folder: Path, place: Environment, run_id: str, step: str) -> str:
    uri = f"{place.pipeline_root}/train-to-serve/{run_id}/{step}/{uuid4()}"
    staging.put(folder, uri, place.storage_endpoint)
    return uri


def evaluated(folder: Path, decision: str) -> Path:
    (folder / "evaluation").mkdir(parents=True)
    accuracy = Interval(value=0.93, low=0.9, high=0.95)
    metrics = Metrics(rows=369, accuracy=accuracy, loss=0.2, per_class=(), confusion=())
    write(folder / "evaluation" / "metrics.json", metrics)
    write(folder / "evaluation" / "decision.json", Decision(decision=decision, reason="as it is"))
    (folder / "report").write_text("<main><p>fine</p>\n</main>")
    return folder


def given(uri: str) -> str:
    """Return what the driver of a condition writes."""
    artifacts = {
        f"pipelinechannel--evaluate-{name}": {"artifacts": [{"name": name, "uri": f"{uri}/{name}"}]}
        for name in ("evaluation", "report")
    }
    parameters = {"pipelinechannel--fingerprint-run": FINGERPRINT}
    inputs = {"inputs": {"parameterValues": parameters, "artifacts": artifacts}}
    return (
        f"I1126 main.go:618] output ExecutorInput:{json.dumps(inputs, indent=2)}\n\nI1126 main.go:1] done\n"
    )


def test_hold_from_the_cache(site: Site, place: Environment, run: Any, tmp_path: Path) -> None:
    uri = put(evaluated(tmp_path / "there", "hold"), place, "an-earlier-run", "evaluate")
    site.runs.step(run.run_id, "ingest", "Cached")
    site.runs.step(run.run_id, "evaluate", "Cached")
    site.runs.driver(run.run_id, "condition-3", given(uri))
    site.runs.become(run.run_id, "SUCCEEDED")
    summary = Following(connect(place), run, place)()
    assert (summary.state, summary.decision, summary.reason) == ("succeeded", "hold", "as it is")
    assert (summary.version, summary.fingerprint) == (None, FINGERPRINT)
    assert summary.metrics
    assert summary.metrics.accuracy == 0.93
    assert "<p>fine</p>" in Path(str(summary.report)).read_text()
    assert {step.name: step.state for step in summary.steps}["deploy"] == "skipped"
    assert summary.failure is None


def test_promoted(site: Site, place: Environment, run: Any, tmp_path: Path) -> None:
    uri = put(evaluated(tmp_path / "there", "promote"), place, run.run_id, "evaluate")
    said = tmp_path / "deploy"
    for decision, version in (("hold", 6), ("promote", 7)):  # it was started twice
        said.mkdir(exist_ok=True)
        write(said / "outcome", Outcome(version=version, decision=decision, reason="watched"))
        put(said, place, run.run_id, "deploy")
    site.runs.step(run.run_id, "ingest", "Cached")
    site.runs.step(run.run_id, "evaluate", "Succeeded")
    site.runs.driver(run.run_id, "condition-3", given(uri))
    site.runs.step(run.run_id, "deploy", "Succeeded")
    site.runs.become(run.run_id, "SUCCEEDED")
    elsewhere = place.model_copy(update={"pipeline_root": "gs://another/root"})
    summary = Following(connect(place), run, elsewhere)()
    assert (summary.decision, summary.version, summary.reason) == ("promote", 7, "watched")


def test_unchanged(site: Site, place: Environment, run: Any) -> None:
    site.runs.step(
        run.run_id, "fingerprint", "Succeeded", "data 6ef3\nunchanged: version 3 was made of the same\n"
    )
    site.runs.driver(run.run_id, "condition-2", given("gs://none"))
    site.runs.become(run.run_id, "SUCCEEDED")
    summary = Following(connect(place), run, place)()
    assert (summary.decision, summary.metrics) == ("unchanged", None)
    assert summary.reason == "version 3 was made of the same"
    assert {step.state for step in summary.steps[1:]} == {"skipped"}


def test_a_run_that_is_followed_is_compared_with_its_plan(
    site: Site, place: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inside = {"storage_endpoint": "http://gcs:4443", "storage_endpoint_outside": place.storage_endpoint}
    there = place.model_copy(update=inside).model_dump(mode="json", exclude_defaults=True)
    (tmp_path / "there.yaml").write_text(yaml.safe_dump(there))
    home, key = tmp_path / "home", key_of(load(environ={}, store=place.model_store()), place)
    keep(home, key, an_hour(usd=9.0))

    def go_on() -> None:
        while not site.runs.runs:
            time.sleep(0.02)
        (run_id,) = site.runs.runs
        uri = put(evaluated(tmp_path / "there", "hold"), place, run_id, "evaluate")
        for step in ("ingest", "train", "evaluate"):
            site.runs.step(run_id, step, "Succeeded")
        site.runs.driver(run_id, "condition-3", given(uri))
        site.runs.become(run_id, "SUCCEEDED")

    threading.Thread(target=go_on, daemon=True).start()
    with pytest.raises(SystemExit) as end:
        invoke(["submit", "--wait", "-e", "there.yaml"])
    assert not end.value.code
    (folder,) = (home / "runs").iterdir()
    assert Plan.model_validate_json((folder / "plan.json").read_bytes()) == an_hour(usd=9.0)
    report = (folder / "report.html").read_text()
    assert "Plan against actual" in report
    assert "<td>train</td>" in report
