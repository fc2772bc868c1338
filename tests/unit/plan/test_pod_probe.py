"""The pod of a probe: that of the step `train`, but for its command."""

import json
from typing import Any

from components.artifacts import Normalization, Schema
from components.train.measured import Question, Trial
from pipelines.config import load
from pipelines.environment import load_environment
from pipelines.plan.pod_probe import probe_pod

DIGEST = "@sha256:" + 64 * "1"
STEPS = ("fingerprint", "ingest", "preprocess", "train", "evaluate", "deploy")
IMAGES = {name: f"registry.example/{name}{DIGEST}" for name in (*STEPS, "train-cuda", "serve")}


def made(*overrides: str) -> Any:
    given = f"environment.images={json.dumps(IMAGES)}"
    environment = load_environment("kind", [given, *overrides])
    config = load(None, ["training.epochs=3"], store=environment.model_store())
    question = Question(
        examples=Schema(shape=(8, 8, 1), dtype="uint8", classes=tuple("0123456789"), splits={}),
        normalization=Normalization(),
        architecture=config.model.model_dump(mode="json"),
        training=config.training.model_dump(mode="json"),
    )
    return probe_pod(Trial(question=question, seconds=3.0), config, environment)


def test_it_is_the_pod_of_train_with_another_command() -> None:
    pod = made()
    fetch, main = pod["spec"]["initContainers"]
    assert main["image"] == IMAGES["train"]
    assert main["command"][:3] == ["python3", "-m", "components.train.probe"]
    asked = Trial.model_validate_json(main["command"][3])
    assert (asked.seconds, asked.features) == (3.0, "")
    assert asked.question.training["epochs"] == 3
    assert fetch["command"] == pod["spec"]["containers"][0]["command"] == ["true"]
    assert pod["metadata"]["labels"]["modelyard.dev/step"] == "train"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert main["resources"]["limits"]["memory"] == "3Gi"


def test_it_asks_for_the_accelerator_of_train() -> None:
    pod = made("environment.steps.train.accelerator={type: nvidia-l4, count: 1}")
    _, main = pod["spec"]["initContainers"]
    assert main["image"] == IMAGES["train-cuda"]
    assert main["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["spec"]["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
