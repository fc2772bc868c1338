"""What is refused before it starts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.components.errors import ClusterError, PlanError
from modelyard.components.train.measurement import Cost, ProbeResult
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning import guard as guarding
from modelyard.pipelines.planning.guard import guard, unschedulable
from tests.unit.planning.conftest import GKE, Make

TEN = "training.epochs=10"


def node(**labels: str) -> dict[str, Any]:
    allocatable = {"cpu": "2", "memory": "4Gi", "pods": "110"}
    return {"metadata": {"name": "one", "labels": labels}, "spec": {}, "status": {"allocatable": allocatable}}


@pytest.fixture(autouse=True)
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The nodes of the cluster: one small one."""
    found = [node()]
    monkeypatch.setattr(guarding, "connect", lambda _: SimpleNamespace(nodes=found))
    return found


def check(home: Path, name: str, *settings: str, budget: float | None = None) -> None:
    settings = (*(GKE if name == "gke" else ()), *settings)
    guard(load(None, settings), load_environment(name, settings), name, home, budget)


def test_what_fits_on_a_node_may_start(tmp_path: Path) -> None:
    check(tmp_path, "kind")
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_is_larger_than_every_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"train.* 64 GiB") as refused:
        check(tmp_path, "kind", "environment.steps.train.memory=64Gi")
    assert "--anyway" in str(refused.value)
    assert refused.value.exit_code == 13


def test_an_accelerator_that_no_node_has_is_refused() -> None:
    wants = load_environment("kind", ["environment.steps.train.accelerator={type: nvidia-l4, count: 1}"])
    (reason,) = unschedulable(wants)
    assert reason.startswith("train")


@pytest.mark.parametrize(
    "label", ["cloud.google.com/gke-nodepool", "eks.amazonaws.com/nodegroup", "karpenter.sh/nodepool"]
)
def test_where_an_autoscaler_adds_nodes_nothing_is_impossible(nodes: list[Any], label: str) -> None:
    nodes[:] = [node(**{label: "small"})]
    assert unschedulable(load_environment("kind", ["environment.steps.train.memory=64Gi"])) == ()


def test_nodes_that_may_not_be_listed_refuse_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise ClusterError("no.")

    monkeypatch.setattr(guarding, "connect", refuse)
    assert unschedulable(load_environment("kind", ["environment.steps.train.memory=64Gi"])) == ()


def test_the_no_of_a_plan_reaches_submit(
    make: Make, answers: dict[str, Any], cost: Cost, nodes: list[Any], tmp_path: Path
) -> None:
    nodes.clear()
    answers["cost"] = cost.model_copy(update={"weights": 10**12, "gradients": 10**12})
    plan = make("gke")
    with pytest.raises(PlanError) as refused:
        check(tmp_path, "gke", TEN)
    for problem in plan.problems:
        assert problem in str(refused.value)
    assert f"plan of {plan.created[:10]}" in str(refused.value)
    check(tmp_path, "gke", "training.epochs=11")  # nobody planned this


def test_a_budget_needs_a_plan_with_a_time_and_a_price(
    make: Make, answers: dict[str, Any], probed: ProbeResult, nodes: list[Any], tmp_path: Path
) -> None:
    nodes.clear()
    with pytest.raises(PlanError, match="modelyard plan --probe -e gke"):
        check(tmp_path, "gke", TEN, budget=5.0)
    make("gke")
    with pytest.raises(PlanError, match="--budget 5 USD cannot be checked without a time"):
        check(tmp_path, "gke", TEN, budget=5.0)
    answers["probe"] = probed.model_copy(update={"device": "gpu:0"})
    make("gke", probe=True, budget=0.0)  # which the plan does not keep
    check(tmp_path, "gke", TEN, budget=5.0)
    check(tmp_path, "gke", TEN)
    with pytest.raises(PlanError, match="more than --budget 0 USD"):
        check(tmp_path, "gke", TEN, budget=0.0)


def test_the_time_of_the_whole_run_may_change_after_the_plan(
    make: Make, nodes: list[Any], tmp_path: Path
) -> None:
    nodes.clear()
    make("gke", probe=True)
    with pytest.raises(PlanError, match=r"environment\.active_deadline"):
        check(tmp_path, "gke", TEN, "environment.active_deadline=10")
    check(tmp_path, "gke", TEN, "environment.active_deadline=7200")
