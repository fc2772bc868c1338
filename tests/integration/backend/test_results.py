"""The result of a run, from the records of its steps or of the run that filled the cache."""

import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from modelyard.components import artifacts, records
from modelyard.components.artifacts import Decision, Outcome
from modelyard.components.errors import DeployError, NotFoundError
from modelyard.components.records import DecisionRecord, OutcomeRecord, RunStart
from modelyard.components.store import staging
from modelyard.components.store.models import open_store
from modelyard.components.store.records import write_record
from modelyard.components.store.storage import open_objects
from modelyard.pipelines.cli import invoke
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning.plan import Plan, compute_plan_key, save_plan
from modelyard.pipelines.runners.base import read_summary
from modelyard.pipelines.runners.kfp import runs, submission
from modelyard.pipelines.runners.kfp.client import connect
from modelyard.pipelines.runners.kfp.runner import KfpRunner
from modelyard.pipelines.runners.run_folder import kfp_run_folder
from tests.integration.backend.conftest import FakeKfp
from tests.integration.backend.plans import plan_of_an_hour
from tests.integration.conftest import BUCKET
from tests.processes import wait_until
from tests.versions import accuracy_metrics, classifier_signature, publish, training_history

FINGERPRINT = "dc4f44653796"


@pytest.fixture
def bucket_environment(
    environment: Environment, emulator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Environment:
    monkeypatch.setattr(runs, "PAUSE", 0.02)
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    root = f"gs://{BUCKET}/{uuid4().hex}"
    urls = {"store": f"{root}/models", "pipeline_root": f"{root}/runs", "storage_endpoint": emulator}
    return environment.model_copy(update=urls)


@pytest.fixture
def run(fake_kfp: FakeKfp, bucket_environment: Environment) -> Any:
    config = load(environ={}, store=bucket_environment.model_store())
    started = submission.submit(connect(bucket_environment), submission.prepare(config, bucket_environment))
    fake_kfp.runs.set_step(started.run_id, "fingerprint", "Succeeded")
    return started


def record(run_id: str, bucket_environment: Environment, tmp_path: Path, **records_of_steps: Any) -> None:
    """Write the records of a run's steps, and the decision of the run that filled the cache."""
    objects = open_objects(bucket_environment.model_store())
    identity = {"model": "digits", "fingerprint": FINGERPRINT, "champion": 3}
    about = {"run_id": run_id, "data": "6ef3", "started": records.now()}
    write_record(
        objects,
        records.run_key("digits", run_id),
        RunStart(**identity, **about, unchanged=records_of_steps.get("unchanged")),
    )
    if gate_decision := records_of_steps.get("decision"):
        (tmp_path / "evaluation").mkdir(exist_ok=True)
        (tmp_path / "evaluation" / "report").write_text("<main><p>fine</p>\n</main>")
        root = f"{bucket_environment.pipeline_root}/train-to-serve/an-earlier-run/evaluate/{uuid4()}"
        staging.put(tmp_path / "evaluation", root, bucket_environment.storage_endpoint)
        metrics = accuracy_metrics(0.93, 0.9, 0.95, examples=369)
        decision = Decision(decision=gate_decision, reason="as it is")
        created = DecisionRecord(**identity, decision=decision, metrics=metrics, report=f"{root}/report")
        write_record(objects, records.decision_key("digits", FINGERPRINT, 3), created)
    if outcome := records_of_steps.get("outcome"):
        write_record(objects, records.outcome_key("digits", run_id), OutcomeRecord(outcome=outcome))


def test_hold_with_cached_steps(
    fake_kfp: FakeKfp, bucket_environment: Environment, run: Any, tmp_path: Path
) -> None:
    record(run.run_id, bucket_environment, tmp_path, decision="hold")
    fake_kfp.runs.set_step(run.run_id, "ingest", "Cached")
    fake_kfp.runs.set_step(run.run_id, "evaluate", "Cached")
    fake_kfp.runs.set_state(run.run_id, "SUCCEEDED")
    summary = KfpRunner("kind", bucket_environment).open(run.run_id).result()
    assert (summary.state, summary.decision, summary.reason) == ("succeeded", "hold", "as it is")
    assert (summary.version, summary.fingerprint) == (None, FINGERPRINT)
    assert summary.metrics
    assert summary.metrics["accuracy"] == 0.93
    assert summary.metrics["accuracy_interval"] == (0.9, 0.95)
    assert "<p>fine</p>" in Path(str(summary.report)).read_text()
    assert {step.name: step.state for step in summary.steps}["deploy"] == "skipped"
    assert summary.failure is None


def test_promotion(fake_kfp: FakeKfp, bucket_environment: Environment, run: Any, tmp_path: Path) -> None:
    for decision, version in (("hold", 6), ("promote", 7)):  # written twice
        outcome = Outcome(version=version, decision=decision, reason="watched")
        record(run.run_id, bucket_environment, tmp_path, decision="promote", outcome=outcome)
    other = Outcome(version=8, decision="hold", reason="of another run at the same time")
    record(str(uuid4()), bucket_environment, tmp_path, outcome=other)
    fake_kfp.runs.set_step(run.run_id, "ingest", "Cached")
    fake_kfp.runs.set_step(run.run_id, "evaluate", "Succeeded")
    fake_kfp.runs.set_step(run.run_id, "deploy", "Succeeded")
    fake_kfp.runs.set_state(run.run_id, "SUCCEEDED")
    (listed,) = KfpRunner("kind", bucket_environment).list()
    assert (listed.decision, listed.version, listed.metric, listed.value) == ("promote", 7, "accuracy", 0.93)
    assert (listed.model, listed.data) == ("digits", "digits")
    other_root = bucket_environment.model_copy(update={"pipeline_root": "gs://another/root"})
    summary = KfpRunner("kind", other_root).open(run.run_id).result()
    assert (summary.decision, summary.version, summary.reason) == ("promote", 7, "watched")


def test_resumed_after_is_read_from_the_version(
    fake_kfp: FakeKfp, bucket_environment: Environment, run: Any, tmp_path: Path
) -> None:
    artifacts.write(tmp_path / "history.json", training_history(epochs=5, resumed_after=3))
    files = {"history.json": tmp_path / "history.json"}
    version = publish(
        open_store(bucket_environment.model_store()),
        "digits",
        files,
        classifier_signature((1,), "float32", ("a", "b")),
    )
    outcome = Outcome(version=version, decision="hold", reason="overtaken")
    record(run.run_id, bucket_environment, tmp_path, decision="promote", outcome=outcome)
    log = '{"event":"resumed","step":"train","epoch":4,"epochs":5}\n'  # any program may print this
    fake_kfp.runs.set_step(run.run_id, "train", "Succeeded", log)
    fake_kfp.runs.set_state(run.run_id, "SUCCEEDED")
    assert KfpRunner("kind", bucket_environment).open(run.run_id).result().resumed_after == 3
    fake_kfp.runs.set_step(run.run_id, "train", "Cached")
    assert KfpRunner("kind", bucket_environment).open(run.run_id).result().resumed_after is None


def test_unchanged(fake_kfp: FakeKfp, bucket_environment: Environment, run: Any, tmp_path: Path) -> None:
    record(run.run_id, bucket_environment, tmp_path, unchanged="version 3 was made of the same")
    fake_kfp.runs.set_step(run.run_id, "fingerprint", "Succeeded")
    fake_kfp.runs.set_state(run.run_id, "SUCCEEDED")
    summary = KfpRunner("kind", bucket_environment).open(run.run_id).result()
    assert (summary.decision, summary.metrics) == ("unchanged", None)
    assert summary.reason == "version 3 was made of the same"
    assert {step.state for step in summary.steps[1:]} == {"skipped"}


def test_a_run_without_records_has_no_results(
    fake_kfp: FakeKfp, bucket_environment: Environment, run: Any
) -> None:
    fake_kfp.runs.set_step(run.run_id, "ingest", "Cached")
    fake_kfp.runs.set_state(run.run_id, "SUCCEEDED")
    with pytest.raises(NotFoundError, match=f"runs/{run.run_id}.json"):
        KfpRunner("kind", bucket_environment).open(run.run_id).result()


def test_submit_wait_compares_the_run_with_its_plan(
    fake_kfp: FakeKfp, bucket_environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inside = {
        "storage_endpoint": "http://gcs:4443",
        "storage_endpoint_outside": bucket_environment.storage_endpoint,
    }
    values = bucket_environment.model_copy(update=inside).model_dump(mode="json", exclude_defaults=True)
    (tmp_path / "environment.yaml").write_text(yaml.safe_dump(values))
    home, key = (
        tmp_path / "home",
        compute_plan_key(load(environ={}, store=bucket_environment.model_store()), bucket_environment),
    )
    save_plan(home, key, plan_of_an_hour(usd=9.0))

    def complete_run() -> None:
        wait_until(lambda: fake_kfp.runs.runs)
        (run_id,) = fake_kfp.runs.runs
        record(run_id, bucket_environment, tmp_path, decision="hold")
        for step in ("ingest", "train", "evaluate"):
            fake_kfp.runs.set_step(run_id, step, "Succeeded")
        fake_kfp.runs.set_state(run_id, "SUCCEEDED")

    threading.Thread(target=complete_run, daemon=True).start()
    assert invoke(["submit", "--wait", "-e", "environment.yaml"]) == 0
    (folder,) = (home / "runs").iterdir()
    assert Plan.model_validate_json((folder / "plan.json").read_bytes()) == plan_of_an_hour(usd=9.0)
    report = (folder / "report.html").read_text()
    assert "Planned and actual values" in report
    assert "<td>train</td>" in report


def test_a_failed_smoke_test_fails_the_run_and_keeps_its_results(
    fake_kfp: FakeKfp,
    bucket_environment: Environment,
    run: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def predict(*_: Any) -> None:
        raise DeployError("The server did not answer.")

    monkeypatch.setattr("modelyard.pipelines.runners.kfp.runner.predict_on_cluster", predict)
    record(run.run_id, bucket_environment, tmp_path, decision="promote")
    fake_kfp.runs.set_state(run.run_id, "SUCCEEDED")
    summary = KfpRunner("kind", bucket_environment).open(run.run_id).result()
    assert read_summary(kfp_run_folder(run.display_name)) == summary
    assert summary.failure
    assert (summary.state, summary.failure.kind, summary.decision) == ("failed", "DeployError", "promote")


def test_a_log_line_that_looks_like_a_server_error_is_kept(
    fake_kfp: FakeKfp, bucket_environment: Environment, run: Any
) -> None:
    archive = runs.RunArchive(connect(bucket_environment), run.run_id)
    (node,) = (pod for pod in archive.workflow().pods() if not pod.driver)
    line = '{"error_message":"of the step"}'
    fake_kfp.runs.logs[node.pod] = f"before\n{line}\nafter\n"
    assert list(archive.log(node)) == ["before", line, "after"]
    fake_kfp.runs.logs[node.pod] = f"before\n{line}\n"
    assert list(archive.log(node)) == ["before", line]
    fake_kfp.runs.logs[node.pod] = f'{line}\n{{"error_message":"Failed to read logs","error_details":"gone"}}'
    assert list(archive.log(node)) == [line]
