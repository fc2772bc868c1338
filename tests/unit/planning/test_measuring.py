"""Processes and pods that measure a model: their results, their failures and their cleanup."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.components import lifeline
from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.errors import ClusterError, ConfigError, ModelyardError, TooLargeError, TrainError
from modelyard.components.step import failure_document
from modelyard.components.train.measurement import (
    Cost,
    CurvePoint,
    ProbeRequest,
    ProbeResult,
    TrainingWorkload,
)
from modelyard.pipelines.config.config import Config, load
from modelyard.pipelines.environments.environment import INTERFACES_FILE, Environment
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning import measuring
from modelyard.pipelines.runners.pods import pod as pods
from tests.processes import has_ended, wait_until

DIGEST = "@sha256:" + 64 * "1"
STEPS = ("fingerprint", "ingest", "preprocess", "train", "evaluate", "deploy")
IMAGES = {name: f"registry.example/{name}{DIGEST}" for name in (*STEPS, "train-cuda", "serve")}


def probe_arguments(*overrides: str) -> tuple[ProbeRequest, Config, Environment]:
    images = f"environment.images={json.dumps(IMAGES)}"
    environment = load_environment("kind", [images, *overrides])
    config = load(None, ["training.epochs=3"], store=environment.model_store())
    workload = TrainingWorkload(
        example_schema=Schema(
            shape=(8, 8, 1), dtype="uint8", problem="classification", names=tuple("0123456789"), splits={}
        ),
        normalization=Normalization(),
        model=config.model,
        training=config.training,
        training_examples=1000,
        features="/local/features",
    )
    return ProbeRequest(workload=workload, seconds=3.0), config, environment


def create_probe_pod(*overrides: str) -> Any:
    request, config, environment = probe_arguments(*overrides)
    return measuring.create_probe_pod(request, config.name, environment)


def test_probe_pod_is_the_pod_of_train_with_another_command() -> None:
    pod = create_probe_pod()
    fetch, main = pod["spec"]["initContainers"]
    assert main["image"] == IMAGES["train"]
    assert main["command"][:3] == ["python3", "-m", "modelyard.components.train.probe"]
    probe_request = ProbeRequest.model_validate_json(main["command"][3])
    assert probe_request.seconds == 3.0
    assert probe_request.workload.training.epochs == 3
    assert fetch["command"] == pod["spec"]["containers"][0]["command"] == ["true"]
    assert pod["metadata"]["labels"]["modelyard.dev/step"] == "train"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert main["resources"]["limits"]["memory"] == "3Gi"


def test_probe_pod_requests_the_accelerator_of_train() -> None:
    pod = create_probe_pod("environment.steps.train.accelerator={type: nvidia-l4, count: 1}")
    _, main = pod["spec"]["initContainers"]
    assert main["image"] == IMAGES["train-cuda"]
    assert main["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["spec"]["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}


def test_probe_pod_belongs_to_no_run_and_has_a_deadline() -> None:
    pod = create_probe_pod()
    assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "probe"
    assert "modelyard.dev/run" not in pod["metadata"]["labels"]
    assert pod["spec"]["activeDeadlineSeconds"] < 3600


class Cluster:
    """A cluster whose pod has these statuses in order, the last one repeatedly, and this log."""

    namespace, nodes = "runs", ()

    def __init__(self, lines: list[str], *statuses: Any) -> None:
        self.lines, self.statuses = lines, list(statuses)
        self.pod: Any = None
        self.other_pods: dict[str, Any] = {}

    def apply(self, pod: Any, _manager: str) -> Any:
        self.pod = pod
        return pod

    def get(self, _kind: str, name: str) -> Any:
        if name in self.other_pods:
            return self.other_pods[name]
        if self.pod is None:
            return None
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return {**self.pod, "status": status}

    def stream_log(self, _pod: str, container: str, skip: int, **_: Any) -> Iterator[str]:
        yield from self.lines[skip:] if container == "step" else ()

    def list_events(self, _pod: Any) -> list[Any]:
        return []

    def list_objects(self, _kind: str, _labels: str) -> list[Any]:
        return [*self.other_pods.values()]

    def read_memory_usage(self, _pod: Any, _container: str) -> float:
        raise ClusterError("forbidden")

    def delete(self, _kind: str, observed: Any) -> bool:
        if self.other_pods.pop(observed["metadata"]["name"], None) is None:
            self.pod = None
        return True


WAITING = {
    "phase": "Pending",
    "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes fit."}
    ],
}


def ended_status(code: int, **fields: str) -> Any:
    """Return the status of a pod whose step has ended with a code."""
    names = ("fetch", "step", "put")
    states = [
        {"name": name, "state": {"terminated": {"exitCode": code if name == "step" else 0, **fields}}}
        for name in names
    ]
    return {"phase": "Running", "initContainerStatuses": states[:2], "containerStatuses": states[2:]}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def failure_record(error: Exception) -> str:
    """Return the record of a probe that failed."""
    return failure_document(error, "probe").decode()


def follow_probe(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> tuple[ProbeResult, list[str]]:
    messages: list[str] = []
    monkeypatch.setattr(measuring, "connect", lambda _: cluster)
    monkeypatch.setattr(pods, "PAUSE", 0.0)
    result, seconds = measuring.probe_in_pod(*probe_arguments(), log=messages.append)
    assert seconds > 0
    return result, messages


def test_problems_and_log_of_the_probe_pod_are_logged(
    probe_result: ProbeResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["probing on cpu:0 with tensorflow"]
    cluster = Cluster(lines, WAITING, ended_status(0, message=probe_result.model_dump_json()))
    result, messages = follow_probe(cluster, monkeypatch)
    assert result == probe_result
    assert len(messages) == 2
    assert "requests" in messages[0]
    assert messages[1] == lines[0]
    assert cluster.pod is None
    assert capsys.readouterr().out == ""


def test_the_probe_pod_of_a_killed_plan_is_removed_by_the_next_plan(
    probe_result: ProbeResult, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    cluster = Cluster([], ended_status(0, message=probe_result.model_dump_json()))
    cluster.other_pods = {name: {"metadata": {"name": name}} for name in ("killed", "running", "remote")}
    (home / "plans").mkdir(parents=True)
    (home / "plans" / "killed.lifeline").touch()
    with lifeline.hold(home / "plans" / "running.lifeline"):
        follow_probe(cluster, monkeypatch)
    assert set(cluster.other_pods) == {"running", "remote"}
    assert [path.name for path in (home / "plans").iterdir()] == ["running.lifeline"]


@pytest.mark.parametrize(
    ("status", "lines", "kind", "message"),
    [
        (ended_status(137, reason="OOMKilled"), [], TooLargeError, "its limit is 3 GiB"),
        (ended_status(1, message=failure_record(TooLargeError("Full."))), [], TooLargeError, r"^Full\.$"),
        (
            ended_status(1, message=failure_record(TrainError("Wrong."))),
            [],
            TrainError,
            r"^Wrong\.$",
        ),
        (ended_status(3), ["Failed."], ClusterError, r"(?s)exit code 3 .*Failed\."),
    ],
)
def test_failures_of_the_pod_are_errors(
    status: Any, lines: list[str], kind: type[ModelyardError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(kind, match=message) as error:
        follow_probe(Cluster(lines, status), monkeypatch)
    assert type(error.value) is kind


REQUEST = CurvePoint(examples=7, error=0.1, low=0.0, high=0.2)  # any record
PYTHON = """#!{python}
import os, signal, sys, time
from pathlib import Path
from modelyard.components.step import step
with step("cost"):
    request, result = map(Path, sys.argv[-2:])
    {body}
"""
PARENT = """
import sys
from pathlib import Path
from modelyard.components.train.measurement import CurvePoint
from modelyard.pipelines.planning import measuring
measuring.sys.executable = sys.argv[1]
measuring.run_in_process("cost", CurvePoint(examples=7, error=0.1, low=0.0, high=0.2), CurvePoint)
"""


def write_stub(folder: Path, body: str) -> str:
    """Write an interpreter that executes `body` instead of a module of train; return its path."""
    path = folder / "python"
    path.write_text(PYTHON.format(python=sys.executable, body=body))
    path.chmod(0o755)
    return str(path)


def test_the_result_of_a_process_is_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cost: Cost
) -> None:
    body = "assert os.environ['KERAS_BACKEND'] == 'none'; result.write_text(request.read_text())"
    monkeypatch.setattr(measuring.sys, "executable", write_stub(tmp_path, body))
    result, seconds = measuring.run_in_process("cost", cost, Cost, KERAS_BACKEND="none")
    assert result == cost
    assert seconds > 0


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", TooLargeError, "-9"),
        ("os.write(2, b'what(): std::bad_alloc'); os.abort()", TooLargeError, "batch_size"),
        ("os.write(2, b'Failed.'); os._exit(3)", TrainError, r"3: Failed\. "),
        ("os._exit(3)", TrainError, "3: "),
        (
            "from modelyard.components.errors import TrainError; raise TrainError('No.')",
            TrainError,
            r"^No\.$",
        ),
        ("raise MemoryError()", TooLargeError, "batch_size"),
    ],
)
def test_failures_of_the_process_are_errors(
    body: str, kind: type[ModelyardError], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring.sys, "executable", write_stub(tmp_path, body))
    with pytest.raises(kind, match=message) as error:
        measuring.run_in_process("cost", REQUEST, CurvePoint)
    assert type(error.value) is kind
    assert "\n" not in str(error.value)


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    body = f"Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(120)"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, write_stub(tmp_path, body)])
    wait_until(lambda: pid_file.is_file() and pid_file.read_text())
    child = int(pid_file.read_text())
    assert not has_ended(child)
    parent.kill()
    parent.wait()
    wait_until(lambda: has_ended(child))


def test_an_image_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "connect", lambda _: Cluster([]))
    (tmp_path / INTERFACES_FILE).parent.mkdir()
    (tmp_path / INTERFACES_FILE).write_text(json.dumps({IMAGES["train"]: {"train": "0.0.9 (abc)"}}))
    _, _, environment = probe_arguments()
    with pytest.raises(ConfigError, match=r"registry\.example/train@.* 0\.0\.9 "):
        measuring.check_cluster(environment)


def test_check_without_a_cluster_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ClusterError):
        measuring.check_cluster(load_environment("kind"))
