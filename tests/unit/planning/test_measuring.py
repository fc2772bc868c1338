"""A process, or a pod, that measures a model: how it may end, and that it ends with the plan."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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

DIGEST = "@sha256:" + 64 * "1"
STEPS = ("fingerprint", "ingest", "preprocess", "train", "evaluate", "deploy")
IMAGES = {name: f"registry.example/{name}{DIGEST}" for name in (*STEPS, "train-cuda", "serve")}


def asked(*overrides: str) -> tuple[ProbeRequest, Config, Environment]:
    given = f"environment.images={json.dumps(IMAGES)}"
    environment = load_environment("kind", [given, *overrides])
    config = load(None, ["training.epochs=3"], store=environment.model_store())
    workload = TrainingWorkload(
        example_schema=Schema(
            shape=(8, 8, 1), dtype="uint8", problem="classification", names=tuple("0123456789"), splits={}
        ),
        normalization=Normalization(),
        model=config.model,
        training=config.training,
        training_examples=1000,
        features="of this machine",
    )
    return ProbeRequest(workload=workload, seconds=3.0), config, environment


def pod_of(*overrides: str) -> Any:
    request, config, environment = asked(*overrides)
    return measuring.probe_pod(request, config.name, environment)


def test_it_is_the_pod_of_train_with_another_command() -> None:
    pod = pod_of()
    fetch, main = pod["spec"]["initContainers"]
    assert main["image"] == IMAGES["train"]
    assert main["command"][:3] == ["python3", "-m", "modelyard.components.train.probe"]
    asked = ProbeRequest.model_validate_json(main["command"][3])
    assert asked.seconds == 3.0
    assert asked.workload.training.epochs == 3
    assert fetch["command"] == pod["spec"]["containers"][0]["command"] == ["true"]
    assert pod["metadata"]["labels"]["modelyard.dev/step"] == "train"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert main["resources"]["limits"]["memory"] == "3Gi"


def test_it_asks_for_the_accelerator_of_train() -> None:
    pod = pod_of("environment.steps.train.accelerator={type: nvidia-l4, count: 1}")
    _, main = pod["spec"]["initContainers"]
    assert main["image"] == IMAGES["train-cuda"]
    assert main["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["spec"]["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}


def test_it_belongs_to_no_run_and_ends_also_when_nobody_removes_it() -> None:
    pod = pod_of()
    assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "probe"
    assert "modelyard.dev/run" not in pod["metadata"]["labels"]
    assert pod["spec"]["activeDeadlineSeconds"] < 3600


class Cluster:
    """A cluster in which a pod goes through what it is given, and prints some lines."""

    namespace, nodes = "runs", ()

    def __init__(self, lines: list[str], *statuses: Any) -> None:
        self.lines, self.statuses = lines, list(statuses)
        self.pod: Any = None
        self.others: dict[str, Any] = {}

    def apply(self, pod: Any, _manager: str) -> Any:
        self.pod = pod
        return pod

    def get(self, _kind: str, name: str) -> Any:
        if name in self.others:
            return self.others[name]
        if self.pod is None:
            return None
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return {**self.pod, "status": status}

    def stream_log(self, _pod: str, container: str, skip: int, **_: Any) -> Iterator[str]:
        yield from self.lines[skip:] if container == "step" else ()

    def list_events(self, _pod: Any) -> list[Any]:
        return []

    def list_objects(self, _kind: str, _labels: str) -> list[Any]:
        return [*self.others.values()]

    def read_memory_usage(self, _pod: Any, _container: str) -> float:
        raise ClusterError("it may not be read")

    def delete(self, _kind: str, seen: Any) -> bool:
        if self.others.pop(seen["metadata"]["name"], None) is None:
            self.pod = None
        return True


WAITING = {
    "phase": "Pending",
    "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes fit."}
    ],
}


def ended(code: int, **more: str) -> Any:
    """Return the status of a pod whose step has ended with a code."""
    names = ("fetch", "step", "put")
    states = [
        {"name": name, "state": {"terminated": {"exitCode": code if name == "step" else 0, **more}}}
        for name in names
    ]
    return {"phase": "Running", "initContainerStatuses": states[:2], "containerStatuses": states[2:]}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def left(error: Exception) -> str:
    """Return the record that a probe leaves."""
    return failure_document(error, "probe").decode()


def followed(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> tuple[ProbeResult, list[str]]:
    said: list[str] = []
    monkeypatch.setattr(measuring, "connect", lambda _: cluster)
    monkeypatch.setattr(pods, "PAUSE", 0.0)
    found, seconds = measuring.probe_in_pod(*asked(), on_progress=said.append)
    assert seconds > 0
    return found, said


def test_what_keeps_it_waiting_is_said_and_its_answer_is_not(
    probed: ProbeResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["probing on cpu:0 with tensorflow"]
    cluster = Cluster(lines, WAITING, ended(0, message=probed.model_dump_json()))
    found, said = followed(cluster, monkeypatch)
    assert found == probed
    assert len(said) == 2
    assert "requests" in said[0]
    assert said[1] == lines[0]
    assert cluster.pod is None
    assert capsys.readouterr().out == ""


def test_the_pod_of_a_killed_plan_is_removed_by_the_next_one(
    probed: ProbeResult, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    cluster = Cluster([], ended(0, message=probed.model_dump_json()))
    cluster.others = {name: {"metadata": {"name": name}} for name in ("killed", "alive", "elsewhere")}
    (home / "plans").mkdir(parents=True)
    (home / "plans" / "killed.lifeline").touch()
    with lifeline.hold(home / "plans" / "alive.lifeline"):
        followed(cluster, monkeypatch)
    assert set(cluster.others) == {"alive", "elsewhere"}
    assert [path.name for path in (home / "plans").iterdir()] == ["alive.lifeline"]


@pytest.mark.parametrize(
    ("status", "lines", "kind", "message"),
    [
        (ended(137, reason="OOMKilled"), [], TooLargeError, "its limit is 3 GiB"),
        (ended(1, message=left(TooLargeError("It is full."))), [], TooLargeError, r"^It is full\.$"),
        (ended(1, message=left(TrainError("It is wrong."))), [], TrainError, r"^It is wrong\.$"),
        (ended(3), ["Oh, no."], ClusterError, r"(?s)exit code 3 .*Oh, no\."),
    ],
)
def test_how_it_failed_is_said(
    status: Any, lines: list[str], kind: type[ModelyardError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(kind, match=message) as failed:
        followed(Cluster(lines, status), monkeypatch)
    assert type(failed.value) is kind


QUESTION = CurvePoint(rows=7, error=0.1, low=0.0, high=0.2)  # any record does
PYTHON = """#!{python}
import os, signal, sys, time
from pathlib import Path
from modelyard.components.step import step
with step("cost"):
    question, answer = map(Path, sys.argv[-2:])
    {body}
"""
PARENT = """
import sys
from pathlib import Path
from modelyard.components.train.measurement import CurvePoint
from modelyard.pipelines.planning import measuring
measuring.sys.executable = sys.argv[1]
measuring.run_in_process("cost", CurvePoint(rows=7, error=0.1, low=0.0, high=0.2), CurvePoint)
"""


def stub(folder: Path, body: str) -> str:
    """Return a program that is called as Python is, and does something else than a module of train."""
    path = folder / "python"
    path.write_text(PYTHON.format(python=sys.executable, body=body))
    path.chmod(0o755)
    return str(path)


def test_the_answer_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cost: Cost) -> None:
    body = "assert os.environ['KERAS_BACKEND'] == 'none'; answer.write_text(question.read_text())"
    monkeypatch.setattr(measuring.sys, "executable", stub(tmp_path, body))
    found, seconds = measuring.run_in_process("cost", cost, Cost, KERAS_BACKEND="none")
    assert found == cost
    assert seconds > 0


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", TooLargeError, "cost of the model ended with -9"),
        ("os.write(2, b'what(): std::bad_alloc'); os.abort()", TooLargeError, "batch_size"),
        ("os.write(2, b'Oh, no.'); os._exit(3)", TrainError, r"ended with 3: Oh, no\. "),
        ("os._exit(3)", TrainError, r"ended with 3: it printed nothing\. "),
        (
            "from modelyard.components.errors import TrainError; raise TrainError('No.')",
            TrainError,
            r"^No\.$",
        ),
        ("raise MemoryError()", TooLargeError, "batch_size"),
    ],
)
def test_how_a_process_ended_is_said(
    body: str, kind: type[ModelyardError], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring.sys, "executable", stub(tmp_path, body))
    with pytest.raises(kind, match=message) as ended:
        measuring.run_in_process("cost", QUESTION, CurvePoint)
    assert type(ended.value) is kind
    assert "\n" not in str(ended.value)


def test_a_process_ends_with_the_plan_that_asked(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    body = f"Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(120)"
    plan = subprocess.Popen([sys.executable, "-c", PARENT, stub(tmp_path, body)])
    wait_for(lambda: mark.is_file() and mark.read_text())
    child = int(mark.read_text())
    assert not gone(child)
    plan.kill()
    plan.wait()
    wait_for(lambda: gone(child))


def test_an_image_of_another_version_is_refused_before_anything_is_prepared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "connect", lambda _: Cluster([]))
    (tmp_path / INTERFACES_FILE).parent.mkdir()
    (tmp_path / INTERFACES_FILE).write_text(json.dumps({IMAGES["train"]: {"train": "0.0.9 (abc)"}}))
    _, _, environment = asked()
    with pytest.raises(ConfigError, match=r"registry\.example/train@.* 0\.0\.9 "):
        measuring.check(environment)


def test_without_a_cluster_there_is_no_probe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ClusterError):
        measuring.check(load_environment("kind"))


def wait_for(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 100
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return True
    return state == "Z"
