"""How a run on Kubeflow Pipelines is followed, and how each end of it is told."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.components.errors import BackendError, ClusterError
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.kfp import client, runs, submission
from modelyard.pipelines.runners.kfp.client import Backend, connect
from modelyard.pipelines.runners.kfp.following import Following
from modelyard.pipelines.runners.runs import RunSummary
from tests.integration.backend.conftest import Site
from tests.integration.backend.server import Fault

DATA_ERROR = """[KFP Executor 2026-11-26 22:00:00,000 INFO]: Looking for component `ingest`
Traceback (most recent call last):
  File "<string>", line 1, in <module>
modelyard.components.errors.DataError: data.source is gs://nowhere/x, where there is nothing. Correct it.
time="2026-11-26T22:00:01.000Z" level=info msg="sub-process exited" argo=true error="<nil>"
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runs, "PAUSE", 0.02)
    monkeypatch.setattr(client, "RETRIES", client.RETRIES.new(total=6, backoff_factor=0.02))
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


@pytest.fixture
def backend(environment: Environment) -> Backend:
    return connect(environment)


@pytest.fixture
def run(backend: Backend, environment: Environment) -> Any:
    config = load(environ={}, store=environment.model_store())
    return submission.submit(backend, submission.prepare(config, environment))


Follow = Callable[..., RunSummary]


@pytest.fixture
def follow(backend: Backend, run: Any, environment: Environment) -> Follow:
    def follow(during: Callable[[], None] = lambda: None, **options: Any) -> RunSummary:
        timer = threading.Timer(0.15, during)
        timer.start()
        try:
            return Following(
                backend, run, environment.model_copy(update=options.pop("update", {})), **options
            )()
        finally:
            timer.join()

    return follow


def test_error_of_a_step(site: Site, run: Any, follow: Follow) -> None:
    site.runs.step(run.run_id, "fingerprint", "Succeeded")
    site.runs.step(run.run_id, "ingest", "Failed", DATA_ERROR, "Error (exit code 1)")
    summary = follow(lambda: site.runs.become(run.run_id, "FAILED"))
    assert (summary.state, summary.run) == ("failed", run.display_name)
    assert summary.failure
    assert (summary.failure.kind, summary.failure.exit_code, summary.failure.step) == (
        "DataError",
        3,
        "ingest",
    )
    assert summary.failure.message == "data.source is gs://nowhere/x, where there is nothing. Correct it."
    assert Path(str(summary.failure.log)).read_text() == DATA_ERROR
    states = {step.name: step.state for step in summary.steps}
    assert states["fingerprint"] == "succeeded"
    assert states["ingest"] == "failed"
    assert set(list(states.values())[2:]) == {"skipped"}


def test_out_of_memory(site: Site, run: Any, follow: Follow) -> None:
    site.runs.step(run.run_id, "train", "Failed", "epoch 1\n", "OOMKilled (exit code 137)")
    summary = follow(lambda: site.runs.become(run.run_id, "FAILED"))
    assert summary.failure
    assert summary.failure.exit_code == 9
    assert "OOMKilled" in summary.failure.message


def test_steps_while_they_go(site: Site, backend: Backend, run: Any, environment: Environment) -> None:
    site.runs.become(run.run_id, "RUNNING")
    site.runs.step(run.run_id, "fingerprint", "Succeeded")
    site.runs.step(run.run_id, "ingest", "Cached")
    site.runs.step(run.run_id, "preprocess", "Running", "half of it")
    site.runs.step(run.run_id, "train", "Driver")
    seen = Following(backend, run, environment)
    assert {step.state for step in seen.steps()} == {"waiting"}
    assert seen.look() == "running"
    found = [(step.name, step.state, step.cached) for step in seen.steps()][:5]
    assert found == [
        ("fingerprint", "succeeded", False),
        ("ingest", "succeeded", True),
        ("preprocess", "running", False),
        ("train", "running", False),
        ("evaluate", "waiting", False),
    ]


def test_a_log_is_not_fetched_at_every_look(site: Site, run: Any, follow: Follow) -> None:
    """It comes as a whole each time, and a long one is large."""
    site.runs.become(run.run_id, "RUNNING")
    site.runs.step(run.run_id, "train", "Running", "epoch 1\n")

    def end() -> None:
        site.runs.step(run.run_id, "train", "Failed", DATA_ERROR)
        site.runs.become(run.run_id, "FAILED")

    follow(end)
    looks = [one for one in site.server.asked if one == f"GET /apis/v2beta1/runs/{run.run_id}"]
    logs = [one for one in site.server.asked if one.endswith("/log")]
    assert len(looks) > len(logs)
    assert len(logs) == 2, "at the first look, and when it had failed"


def test_cancelled(site: Site, backend: Backend, run: Any, follow: Follow) -> None:
    site.runs.step(run.run_id, "train", "Running")
    summary = follow(lambda: backend.runs.run_service_terminate_run(run.run_id))
    assert summary.state == "cancelled"
    assert summary.failure
    assert (summary.failure.kind, summary.failure.exit_code) == ("CancelledError", 12)


def test_deleted(backend: Backend, run: Any, follow: Follow) -> None:
    summary = follow(lambda: backend.runs.run_service_delete_run(run.run_id))
    assert summary.state == "cancelled"
    assert summary.failure
    assert "was deleted" in summary.failure.message


@pytest.mark.parametrize("leave", [False, True])
def test_stuck(site: Site, run: Any, follow: Follow, leave: bool) -> None:
    site.runs.become(run.run_id, "RUNNING")
    why = "Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    site.runs.step(run.run_id, "train", "Pending", message=why)
    summary = follow(leave_stuck=leave, update={"start_timeout": 0})
    assert summary.failure
    assert (summary.failure.kind, summary.failure.exit_code, summary.failure.step) == (
        "StuckError",
        11,
        "train",
    )
    assert "Insufficient nvidia.com/gpu" in summary.failure.message
    assert "environment.steps.train" in summary.failure.message
    assert site.runs.runs[run.run_id].state == ("RUNNING" if leave else "FAILED")


def test_slow_but_not_stuck(site: Site, run: Any, follow: Follow) -> None:
    """A pod that is being made ready is not stuck."""
    site.runs.become(run.run_id, "RUNNING")
    site.runs.step(run.run_id, "train", "Pending", message="PodInitializing")
    summary = follow(lambda: site.runs.become(run.run_id, "FAILED"), update={"start_timeout": 0})
    assert summary.failure
    assert summary.failure.kind != "StuckError"


def test_backend_that_goes_away(site: Site, follow: Follow) -> None:
    with pytest.raises(BackendError, match="does not answer"):
        follow(site.server.stop)
    site.server.start()


def test_backend_that_comes_back(site: Site, run: Any, follow: Follow) -> None:
    def restart() -> None:
        site.server.stop()
        site.runs.step(run.run_id, "ingest", "Failed", DATA_ERROR)
        site.runs.become(run.run_id, "FAILED")
        site.server.faults.append(Fault(status=503, body="{}", times=3))
        site.server.start()

    assert follow(restart).failure


def test_token_that_expires(
    site: Site, environment: Environment, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "first")
    seen = Following(connect(environment), run, environment)
    site.server.token = "second"  # noqa: S105
    with pytest.raises(BackendError, match=r"KF_PIPELINES_TOKEN \(401\)"):
        seen()


def test_tried_again(site: Site, run: Any, follow: Follow) -> None:
    """A run that was cancelled once, tried again and failed has failed."""
    for state in ("RUNNING", "CANCELING", "FAILED", "RUNNING"):
        site.runs.become(run.run_id, state)
    site.runs.step(run.run_id, "ingest", "Failed", DATA_ERROR)
    assert follow(lambda: site.runs.become(run.run_id, "FAILED")).state == "failed"


def test_summary_is_recorded(site: Site, run: Any, follow: Follow, tmp_path: Path) -> None:
    site.runs.step(run.run_id, "ingest", "Failed", DATA_ERROR)
    summary = follow(lambda: site.runs.become(run.run_id, "FAILED"))
    (kept,) = tmp_path.glob("runs/*/run.json")
    assert kept.parent.name == run.display_name
    assert json.loads(kept.read_text()) == summary.model_dump(mode="json")


def test_no_service_account(site: Site, run: Any, follow: Follow) -> None:
    said = (
        'pods "x" is forbidden: error looking up service account kubeflow/nobody: serviceaccount "nobody" '
        "not found"
    )
    site.runs.node(run.run_id, "root-driver", None, "Pod", "Error", said)
    summary = follow(lambda: site.runs.become(run.run_id, "FAILED"))
    assert summary.failure
    assert (summary.failure.step, summary.failure.log, summary.failure.exit_code) == (None, None, 9)
    assert said in summary.failure.message


class CutCluster:
    """A cluster that stops to answer after one line of a log."""

    def log(self, _pod: str, _container: str) -> Iterator[str]:
        yield "one"
        raise ClusterError("cut")


@pytest.mark.parametrize("cluster", [None, CutCluster()])
def test_logs_of_a_run_that_goes_on(
    site: Site, backend: Backend, run: Any, monkeypatch: pytest.MonkeyPatch, cluster: Any
) -> None:
    monkeypatch.setattr(runs, "LOG_PAUSE", 0.0)
    site.runs.become(run.run_id, "RUNNING")
    archive = runs.RunArchive(backend, run.run_id)
    archive.cluster = cluster
    timer = threading.Timer(0.1, site.runs.step, (run.run_id, "ingest", "Running", "one\n"))
    timer.start()
    found = []
    for step, lines in archive.follow_logs(("ingest",)):
        for line in lines:
            found.append((step, line))
            site.runs.step(run.run_id, "ingest", "Succeeded", "one\ntwo\n")
    timer.join()
    assert found == [("ingest", "one"), ("ingest", "two")]
