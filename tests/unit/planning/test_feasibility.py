"""Runs that are refused before they start."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.components.errors import ClusterError, PlanError
from modelyard.components.train.measurement import Cost, ProbeResult
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning import feasibility
from modelyard.pipelines.planning.feasibility import check_feasibility, find_unschedulable_steps
from tests.unit.planning.conftest import GKE, MakePlan, Results

TEN_EPOCHS = "training.epochs=10"


def node(**labels: str) -> dict[str, Any]:
    status = {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"}}
    return {"metadata": {"name": "node-1", "labels": labels}, "spec": {}, "status": status}


@pytest.fixture(autouse=True)
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The nodes of the cluster: by default a small node."""
    nodes = [node()]
    monkeypatch.setattr(feasibility, "connect", lambda _: SimpleNamespace(nodes=nodes))
    return nodes


def check(home: Path, name: str, *settings: str, budget: float | None = None) -> None:
    settings = (*(GKE if name == "gke" else ()), *settings)
    check_feasibility(load(None, settings), load_environment(name, settings), name, home, budget)


def test_a_run_that_fits_on_a_node_is_accepted(tmp_path: Path) -> None:
    check(tmp_path, "kind")
    assert list(tmp_path.iterdir()) == []


def test_a_step_larger_than_all_nodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"train.* 64 GiB") as refused:
        check(tmp_path, "kind", "environment.steps.train.memory=64Gi")
    assert "--anyway" in str(refused.value)
    assert refused.value.exit_code == 13


def test_an_accelerator_that_no_node_has_is_refused() -> None:
    environment = load_environment(
        "kind", ["environment.steps.train.accelerator={type: nvidia-l4, count: 1}"]
    )
    (reason,) = find_unschedulable_steps(environment)
    assert reason.startswith("train")


@pytest.mark.parametrize(
    "label", ["cloud.google.com/gke-nodepool", "eks.amazonaws.com/nodegroup", "karpenter.sh/nodepool"]
)
def test_a_cluster_with_an_autoscaler_refuses_no_step(nodes: list[Any], label: str) -> None:
    nodes[:] = [node(**{label: "small"})]
    assert find_unschedulable_steps(load_environment("kind", ["environment.steps.train.memory=64Gi"])) == ()


def test_a_cluster_whose_nodes_cannot_be_listed_refuses_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(_: str) -> None:
        raise ClusterError("forbidden")

    monkeypatch.setattr(feasibility, "connect", connect)
    assert find_unschedulable_steps(load_environment("kind", ["environment.steps.train.memory=64Gi"])) == ()


def test_errors_of_the_plan_refuse_a_run(
    make_plan: MakePlan, measurements: Results, cost: Cost, nodes: list[Any], tmp_path: Path
) -> None:
    nodes.clear()
    measurements["cost"] = cost.model_copy(update={"weights": 10**12, "gradients": 10**12})
    plan = make_plan("gke")
    with pytest.raises(PlanError) as refused:
        check(tmp_path, "gke", TEN_EPOCHS)
    for error in plan.errors:
        assert error in str(refused.value)
    assert f"plan of {plan.created[:10]}" in str(refused.value)
    check(tmp_path, "gke", "training.epochs=11")  # no plan has this configuration


def test_a_budget_needs_a_plan_with_a_time_and_a_price(
    make_plan: MakePlan, measurements: Results, probe_result: ProbeResult, nodes: list[Any], tmp_path: Path
) -> None:
    nodes.clear()
    with pytest.raises(PlanError, match="modelyard plan --probe -e gke"):
        check(tmp_path, "gke", TEN_EPOCHS, budget=5.0)
    make_plan("gke")
    with pytest.raises(PlanError, match=r"--budget 5 USD .*--probe"):
        check(tmp_path, "gke", TEN_EPOCHS, budget=5.0)
    measurements["probe"] = probe_result.model_copy(update={"device": "gpu:0"})
    make_plan("gke", probe=True, budget=0.0)  # exceeded
    check(tmp_path, "gke", TEN_EPOCHS, budget=5.0)
    check(tmp_path, "gke", TEN_EPOCHS)
    with pytest.raises(PlanError, match="more than --budget 0 USD"):
        check(tmp_path, "gke", TEN_EPOCHS, budget=0.0)


def test_active_deadline_is_checked_if_it_changed_after_the_plan(
    make_plan: MakePlan, nodes: list[Any], tmp_path: Path
) -> None:
    nodes.clear()
    make_plan("gke", probe=True)
    with pytest.raises(PlanError, match=r"environment\.active_deadline"):
        check(tmp_path, "gke", TEN_EPOCHS, "environment.active_deadline=10")
    check(tmp_path, "gke", TEN_EPOCHS, "environment.active_deadline=7200")
