"""A cost, a probe and a dataset with round numbers, and plans from them without TensorFlow."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.train.measurement import Cost, LearningCurve, Pace, ProbeResult
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning import measuring, planner
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.plan import Plan
from modelyard.pipelines.planning.planner import PlanRequest

GKE = ("environment.store=gs://a/b", "environment.pipeline_root=gs://a/c")
CURVE = LearningCurve(measure="RMSE", points=(), extrapolated=(), reason="3 validation examples are too few")
MakePlan = Callable[..., Plan]
Results = dict[str, Any]


@pytest.fixture
def cost() -> Cost:
    return Cost(
        parameters=1_000_000,
        weights=4_000_000,
        gradients=4_000_000,
        optimizer=8_000_000,
        batch_size=32,
        flops=6_000_000_000,
        uncounted=(),
        activations=30_000_000,
        largest_operation=2_000_000,
    )


@pytest.fixture
def probe_result() -> ProbeResult:
    """An epoch takes 0.5 s and 20 ms per step, a validation 0.1 s and 10 ms per batch, the rest 5 s."""
    return ProbeResult(
        device="cpu:0",
        load=0.5,
        synthetic=False,
        seconds=40.0,
        setup=1.0,
        compile=2.0,
        export=2.0,
        epoch=Pace(fixed=0.5, per_batch=0.020, low=0.9, high=1.1),
        validation=Pace(fixed=0.1, per_batch=0.010, low=0.9, high=1.1),
        memory=900_000_000,
        device_memory=None,
        model_bytes=13_000_000,
    )


@pytest.fixture
def data() -> Dataset:
    return Dataset(
        example_schema=Schema(
            shape=(8, 8), dtype="uint8", problem="classification", names=("cat", "dog"), splits={}
        ),
        normalization=Normalization(),
        examples={"train": 960, "validation": 192, "test": 300},
        targets="2 classes, with 60 (class cat) to 900 (class dog) training examples",
        features="features",
    )


@pytest.fixture
def measurements(
    monkeypatch: pytest.MonkeyPatch, cost: Cost, probe_result: ProbeResult, data: Dataset
) -> Results:
    """The results of processes and pods. A test may change them; an exception is raised."""
    results: Results = {"cost": cost, "probe": probe_result, "learning_curve": CURVE, "data": data}

    def get_result(name: str) -> Any:
        if isinstance(results[name], Exception):
            raise results[name]
        return results[name], 46.0

    monkeypatch.setattr(planner, "describe_dataset", lambda *_: results["data"])
    monkeypatch.setattr(measuring, "run_in_process", lambda name, *_, **__: get_result(name))
    monkeypatch.setattr(measuring, "probe_in_pod", lambda *_: get_result("probe"))
    monkeypatch.setattr(measuring, "check_cluster", lambda _: None)
    return results


@pytest.fixture
def make_plan(measurements: Results, tmp_path: Path) -> MakePlan:
    """Return a function that makes a plan in an environment; keywords are fields of the PlanRequest."""
    assert measurements

    def make(name: str = "local", settings: Sequence[str] = (), **request: Any) -> Plan:
        settings = [*(GKE if name == "gke" else ()), "training.epochs=10", *settings]
        environment = load_environment(name, settings)
        return planner.make_plan(load(None, settings), environment, name, PlanRequest(**request), tmp_path)

    return make
