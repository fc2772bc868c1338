"""Following a run on Kubeflow Pipelines until it succeeds, fails, is cancelled or is stuck."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from modelyard.components.errors import BackendError, DataError
from modelyard.components.events import Epoch, StepChange
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.base import RunFailure, RunSummary
from modelyard.pipelines.runners.kfp import client, runs, submission
from modelyard.pipelines.runners.kfp.client import Backend, connect
from modelyard.pipelines.runners.kfp.runner import KfpRun, KfpRunner
from tests.integration.backend.conftest import FakeKfp
from tests.integration.backend.server import Fault

DATA_ERROR = DataError("data.source is gs://bucket/missing, which does not exist. Correct it.")
LOG = "reading\nTraceback (most recent call last):\n"


@pytest.fixture(autouse=True)
def fast_polls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runs, "PAUSE", 0.02)
    monkeypatch.setattr(client, "RETRIES", client.RETRIES.new(total=6, backoff_factor=0.02))
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


@pytest.fixture
def backend(environment: Environment) -> Backend:
    return connect(environment)


@pytest.fixture
def run(backend: Backend, environment: Environment) -> Any:
    config = load(environ={}, store=environment.model_store())
    return submission.submit(backend, submission.prepare(config, environment))


Follow = Callable[..., RunSummary]


def open_run(backend: Backend, run: Any, environment: Environment) -> KfpRun:
    runner = KfpRunner("kind", environment)
    vars(runner)["backend"] = backend
    return KfpRun(runner, run)


@pytest.fixture
def follow(fake_kfp: FakeKfp, backend: Backend, run: Any, environment: Environment) -> Follow:
    def follow(during: Callable[[], None] = lambda: None, **options: Any) -> RunSummary:
        updated = environment.model_copy(update=options.pop("update", {}))
        with call_during_follow(fake_kfp, run, during):
            return open_run(options.pop("backend", backend), run, updated).result(**options)

    return follow


@contextmanager
def call_during_follow(fake_kfp: FakeKfp, run: Any, during: Callable[[], None]) -> Iterator[None]:
    """Call `during` after a few polls of the run, or at the end of the block."""
    poll, block_ended = f"GET /apis/v2beta1/runs/{run.run_id}", threading.Event()
    before = fake_kfp.server.requests.count(poll)

    def poll_and_call() -> None:
        while fake_kfp.server.requests.count(poll) < before + 3 and not block_ended.wait(0.01):
            pass
        during()

    thread = threading.Thread(target=poll_and_call)
    thread.start()
    try:
        yield
    finally:
        block_ended.set()
        thread.join()


def test_steps_without_pods_are_skipped_when_the_exit_task_starts(
    fake_kfp: FakeKfp, run: Any, backend: Backend, environment: Environment
) -> None:
    fake_kfp.runs.fail_step(run.run_id, "ingest", DATA_ERROR)
    fake_kfp.runs.set_step(run.run_id, "explain", "Running")
    states = {step.name: step.state for step in open_run(backend, run, environment).steps()}
    assert (states["ingest"], states["deploy"], states["explain"]) == ("failed", "skipped", "running")


def test_the_error_of_a_failed_step_is_that_of_the_run(
    fake_kfp: FakeKfp, run: Any, follow: Follow, tmp_path: Path
) -> None:
    for state in ("RUNNING", "CANCELING", "FAILED", "RUNNING"):  # cancelled, then retried
        fake_kfp.runs.set_state(run.run_id, state)
    fake_kfp.runs.set_step(run.run_id, "fingerprint", "Succeeded")
    fake_kfp.runs.fail_step(run.run_id, "ingest", DATA_ERROR, LOG)
    summary = follow(lambda: fake_kfp.runs.set_state(run.run_id, "FAILED"))
    assert (summary.state, summary.run) == ("failed", run.display_name)
    failure = get_failure(summary)
    assert (failure.kind, failure.exit_code, failure.step) == ("DataError", 3, "ingest")
    assert failure.message == str(DATA_ERROR)
    assert Path(str(failure.log)).read_text() == LOG
    states = [step.state for step in summary.steps]
    assert states == ["succeeded", "failed", *["skipped"] * (len(states) - 2)]
    (recorded,) = tmp_path.glob("runs/*/run.json")
    assert recorded.parent.name == run.display_name
    assert json.loads(recorded.read_text()) == summary.model_dump(mode="json")


def get_failure(summary: RunSummary) -> RunFailure:
    assert summary.failure
    return summary.failure


def test_out_of_memory_and_an_error_of_the_workflow_have_exit_codes(
    fake_kfp: FakeKfp, run: Any, follow: Follow
) -> None:
    fake_kfp.runs.set_step(run.run_id, "train", "Failed", "epoch 1\n", "main: OOMKilled (exit code 137)")
    failure = get_failure(follow(lambda: fake_kfp.runs.set_state(run.run_id, "FAILED")))
    assert (failure.kind, failure.exit_code) == ("OutOfMemoryError", 14)
    assert "environment.steps.train.memory" in failure.message
    message = 'pods "x" is forbidden: serviceaccount "unknown" not found'
    fake_kfp.runs.workflow(run.run_id)["status"]["nodes"].clear()
    fake_kfp.runs.node(run.run_id, "root-driver", None, "Pod", "Error", message)
    failure = get_failure(follow())
    assert (failure.step, failure.log, failure.exit_code) == (None, None, 9)
    assert message in failure.message


def test_steps_of_a_running_run_have_states(
    fake_kfp: FakeKfp, backend: Backend, run: Any, environment: Environment
) -> None:
    fake_kfp.runs.set_state(run.run_id, "RUNNING")
    fake_kfp.runs.set_step(run.run_id, "fingerprint", "Succeeded")
    fake_kfp.runs.set_step(run.run_id, "ingest", "Cached")
    fake_kfp.runs.set_step(run.run_id, "preprocess", "Running", "partial")
    fake_kfp.runs.set_step(run.run_id, "train", "Driver")
    steps = open_run(backend, run, environment).steps()
    states = [(step.name, step.state, step.cached) for step in steps][:5]
    assert states == [
        ("fingerprint", "succeeded", False),
        ("ingest", "succeeded", True),
        ("preprocess", "running", False),
        ("train", "running", False),
        ("evaluate", "waiting", False),
    ]


def test_a_log_is_not_fetched_at_every_poll(fake_kfp: FakeKfp, run: Any, follow: Follow) -> None:
    """The API returns the whole log each time."""
    fake_kfp.runs.set_state(run.run_id, "RUNNING")
    fake_kfp.runs.set_step(run.run_id, "train", "Running", "epoch 1\n")

    def end() -> None:
        fake_kfp.runs.fail_step(run.run_id, "train", DATA_ERROR, LOG)
        fake_kfp.runs.set_state(run.run_id, "FAILED")

    follow(end)
    polls = [
        request for request in fake_kfp.server.requests if request == f"GET /apis/v2beta1/runs/{run.run_id}"
    ]
    logs = [request for request in fake_kfp.server.requests if request.endswith("/log")]
    assert len(polls) > len(logs)
    assert len(logs) == 2, "at the first poll and after the failure"


def test_a_cancelled_or_deleted_run_is_cancelled(
    fake_kfp: FakeKfp, backend: Backend, run: Any, follow: Follow
) -> None:
    fake_kfp.runs.set_step(run.run_id, "train", "Running")
    summary = follow(lambda: backend.runs.run_service_terminate_run(run.run_id))
    assert (summary.state, get_failure(summary).exit_code) == ("cancelled", 12)
    backend.runs.run_service_delete_run(run.run_id)
    summary = follow()
    assert summary.state == "cancelled"
    assert "was deleted" in get_failure(summary).message


@pytest.mark.parametrize("leave", [False, True])
def test_a_stuck_run_is_terminated_unless_leave_stuck_is_set(
    fake_kfp: FakeKfp, run: Any, follow: Follow, leave: bool
) -> None:
    fake_kfp.runs.set_state(run.run_id, "RUNNING")
    message = "Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    fake_kfp.runs.set_step(run.run_id, "train", "Pending", message=message)
    failure = get_failure(follow(leave_stuck=leave, update={"start_timeout": 0}))
    assert (failure.kind, failure.exit_code, failure.step) == ("UnschedulableError", 11, "train")
    assert "Insufficient nvidia.com/gpu" in failure.message
    assert "environment.steps.train" in failure.message
    assert fake_kfp.runs.runs[run.run_id].state == ("RUNNING" if leave else "FAILED")


def test_a_run_with_an_initializing_pod_is_not_stuck(fake_kfp: FakeKfp, run: Any, follow: Follow) -> None:
    fake_kfp.runs.set_state(run.run_id, "RUNNING")
    fake_kfp.runs.set_step(run.run_id, "train", "Pending", message="PodInitializing")
    summary = follow(lambda: fake_kfp.runs.set_state(run.run_id, "FAILED"), update={"start_timeout": 0})
    assert get_failure(summary).exit_code != 11


def test_a_run_is_followed_across_a_server_restart(
    fake_kfp: FakeKfp, run: Any, follow: Follow, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackendError, match="does not respond"):
        follow(fake_kfp.server.stop)
    fake_kfp.server.start()
    retries = client.RETRIES.new(total=200, backoff_max=0.2)  # more than a restart takes
    monkeypatch.setattr(client, "RETRIES", retries)

    def restart() -> None:
        fake_kfp.server.stop()
        fake_kfp.runs.fail_step(run.run_id, "ingest", DATA_ERROR)
        fake_kfp.runs.set_state(run.run_id, "FAILED")
        fake_kfp.server.faults.append(Fault(status=503, body="{}", times=3))
        fake_kfp.server.start()

    assert follow(restart, backend=connect(environment)).failure


def test_the_log_of_a_running_step_is_followed(
    fake_kfp: FakeKfp, backend: Backend, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "LOG_PAUSE", 0.0)
    fake_kfp.runs.set_state(run.run_id, "RUNNING")
    timer = threading.Timer(0.1, fake_kfp.runs.set_step, (run.run_id, "ingest", "Running", "one\n"))
    timer.start()
    log_lines = []
    for step, lines in runs.RunArchive(backend, run.run_id).logs(("ingest",), follow=True):
        for line in lines:
            log_lines.append((step, line))
            fake_kfp.runs.set_step(run.run_id, "ingest", "Succeeded", "one\ntwo\n")
    timer.join()
    assert log_lines == [("ingest", "one"), ("ingest", "two")]


def test_epochs_are_parsed_from_json_lines_of_the_log(
    fake_kfp: FakeKfp, backend: Backend, run: Any, environment: Environment
) -> None:
    """Each epoch is an event once, even if it ended between the last poll and the end of the step."""
    first, second = (
        Epoch(step="train", epoch=number, epochs=2, metrics={"loss": 0.5}, seconds=1.0) for number in (1, 2)
    )
    fake_kfp.runs.set_state(run.run_id, "RUNNING")
    fake_kfp.runs.set_step(run.run_id, "train", "Running", f"epoch 1 of 2\n{first.model_dump_json()}\n")
    kfp_run = open_run(backend, run, environment)

    def end() -> None:
        log = "\n".join(epoch.model_dump_json() for epoch in (first, second))
        fake_kfp.runs.set_step(run.run_id, "train", "Succeeded", log)
        fake_kfp.runs.set_state(run.run_id, "FAILED")

    with call_during_follow(fake_kfp, run, end):
        kfp_run.result()
    assert [event for event in kfp_run.events() if isinstance(event, Epoch)] == [first, second]
    states = [
        event.state for event in kfp_run.events() if isinstance(event, StepChange) and event.step == "train"
    ]
    assert states == ["running", "succeeded"]
