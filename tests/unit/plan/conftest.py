"""A traced model, a probe and data of round numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.train.measured import Pace, Probed, Traced
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning import planning
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.plan import Plan, Wishes

TRACED: dict[str, Any] = {
    "parameters": 1_000_000,
    "trainable": 1_000_000,
    "weights": 4_000_000,
    "gradients": 4_000_000,
    "optimizer": 8_000_000,
    "batch_size": 100,
    "flops": 6_000_000_000,
    "backward": 4_000_000_000,
    "lower_bound": (),
    "activations": 90_000_000,
    "working": 9_000_000,
    "updating": 12_000_000,
    "batch": 1_000_000,
    "dtype": "float32",
    "seconds": 1.0,
}

GKE = ("environment.store=gs://a/b", "environment.pipeline_root=gs://a/c")


@pytest.fixture
def traced() -> Traced:
    return Traced.model_validate(TRACED)


def pace(fixed: float, each: float, low: float = 0.9, high: float = 1.1) -> Pace:
    return Pace(fixed=fixed, each=each, windows=9, low=low, high=high)


@pytest.fixture
def probed(traced: Traced) -> Probed:
    """A step of 20 ms: 10 ms whatever the batch, 0.08 ms an example, and 2 ms of waiting for input."""
    return Probed(
        device="cpu:0",
        backend="tensorflow",
        age=None,
        load=0.5,
        synthetic=False,
        steps=10,
        inside=40.0,
        opening=0.5,
        building=0.5,
        export=2.0,
        export_again=1.5,
        first_epoch=3.0,
        first_validation=1.0,
        epoch=pace(0.5, 0.020),
        validation=pace(0.1, 0.010),
        compute=pace(0.4, 0.018),
        half=pace(0.4, 0.014),
        input=pace(0.1, 0.001),
        score=1e-4,
        memory=900_000_000,
        device_memory=None,
        model_bytes=13_000_000,
        traced=traced,
    )


@pytest.fixture
def data() -> Dataset:
    return Dataset(
        examples=Schema(shape=(8, 8), dtype="uint8", classes=("cat", "dog"), splits={}),
        normalization=Normalization(),
        rows={"train": 1000, "validation": 200, "test": 300},
        basis="measured",
        source="a test",
        features="somewhere",
    )


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, traced: Traced, data: Dataset, tmp_path: Path) -> Any:
    """Make a plan of a traced model of 6 TFLOP a step and known data, in an environment."""
    heavy = traced.model_copy(update={"flops": 6 * 10**12})
    monkeypatch.setattr(planning, "look", lambda *_: data)
    monkeypatch.setattr(planning, "measure", lambda *_: (heavy, None, 1.0))

    def one(name: str = "local", settings: Sequence[str] = ("training.epochs=900",), **wishes: Any) -> Plan:
        environment = load_environment(name, [*(GKE if name == "gke" else ()), *settings])
        return planning.make(load(None, settings), environment, name, Wishes(**wishes), tmp_path)

    return one
