"""The pod of a probe: that of the step `train`, but for its command; and what becomes of it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.errors import ClusterError, ModelyardError, TooLargeError, TrainError
from modelyard.components.train.measured import ANSWER, Probed, Question, Trial
from modelyard.pipelines.cli import invoke
from modelyard.pipelines.config.config import Config, load
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning import planning, pod_probe
from modelyard.pipelines.planning.pod_probe import probe_in_pod, probe_pod
from modelyard.pipelines.runners.pods import pod as pods

DIGEST = "@sha256:" + 64 * "1"
STEPS = ("fingerprint", "ingest", "preprocess", "train", "evaluate", "deploy")
IMAGES = {name: f"registry.example/{name}{DIGEST}" for name in (*STEPS, "train-cuda", "serve")}


def asked(*overrides: str) -> tuple[Trial, Config, Environment]:
    given = f"environment.images={json.dumps(IMAGES)}"
    environment = load_environment("kind", [given, *overrides])
    config = load(None, ["training.epochs=3"], store=environment.model_store())
    question = Question(
        examples=Schema(shape=(8, 8, 1), dtype="uint8", classes=tuple("0123456789"), splits={}),
        normalization=Normalization(),
        architecture=config.model.model_dump(mode="json"),
        training=config.training.model_dump(mode="json"),
    )
    return Trial(question=question, seconds=3.0), config, environment


def pod_of(*overrides: str) -> Any:
    return probe_pod(*asked(*overrides))


def test_it_is_the_pod_of_train_with_another_command() -> None:
    pod = pod_of()
    fetch, main = pod["spec"]["initContainers"]
    assert main["image"] == IMAGES["train"]
    assert main["command"][:3] == ["python3", "-m", "modelyard.components.train.probe"]
    asked = Trial.model_validate_json(main["command"][3])
    assert (asked.seconds, asked.features) == (3.0, "")
    assert asked.question.training["epochs"] == 3
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
    assert pod["spec"]["activeDeadlineSeconds"] == 3603


class Cluster:
    """A cluster in which a pod goes through what it is given, and prints some lines."""

    namespace, nodes = "runs", ()

    def __init__(self, lines: list[str], *statuses: Any) -> None:
        self.lines, self.statuses = lines, list(statuses)
        self.pod: Any = None

    def apply(self, pod: Any, _manager: str) -> Any:
        self.pod = pod
        return pod

    def get(self, _kind: str, _name: str) -> Any:
        if self.pod is None:
            return None
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return {**self.pod, "status": status}

    def log(self, _pod: str, container: str, skip: int) -> Iterator[str]:
        yield from self.lines[skip:] if container == "step" else ()

    def events(self, _pod: Any) -> list[Any]:
        return []

    def memory(self, _pod: Any, _container: str) -> float:
        raise ClusterError("it may not be read")

    def delete(self, _kind: str, _seen: Any) -> bool:
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


def followed(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> tuple[Probed, list[str]]:
    said: list[str] = []
    monkeypatch.setattr(pod_probe, "connect", lambda _: cluster)
    monkeypatch.setattr(pods, "PAUSE", 0.0)
    found, seconds = probe_in_pod(*asked(), say=said.append)
    assert seconds > 0
    return found, said


def test_what_keeps_it_waiting_is_said_and_its_answer_is_not(
    probed: Probed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["probing on cpu:0 with tensorflow", f"{ANSWER}{probed.model_dump_json()}"]
    cluster = Cluster(lines, WAITING, ended(0))
    found, said = followed(cluster, monkeypatch)
    assert found == probed
    assert len(said) == 2
    assert "asks for" in said[0]
    assert said[1] == lines[0]
    assert cluster.pod is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("status", "lines", "kind", "message"),
    [
        (ended(137, reason="OOMKilled"), [], TooLargeError, "too much memory: its limit is 3 GiB"),
        (
            ended(1),
            ["modelyard.components.errors.TooLargeError: It is full."],
            TooLargeError,
            r"^It is full\.$",
        ),
        (ended(1), ["modelyard.components.errors.TrainError: It is wrong."], TrainError, r"^It is wrong\.$"),
        (ended(3), ["Oh, no."], ClusterError, r"ended with 3 and said: Oh, no\. Plan without --probe"),
        (ended(3), [], ClusterError, r"said: nothing\."),
    ],
)
def test_how_it_failed_is_said(
    status: Any, lines: list[str], kind: type[ModelyardError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(kind, match=message) as failed:
        followed(Cluster(lines, status), monkeypatch)
    assert type(failed.value) is kind


def test_what_a_pod_says_is_no_markup(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = made()

    def make(*_: Any, say: Any, **__: Any) -> Any:
        say("the volume [/gcs] is not there")
        return plan

    monkeypatch.setattr(planning, "make", make)
    assert invoke(["plan", "--output", "json"]) == 0
