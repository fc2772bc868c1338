"""What is refused before it starts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.components.errors import ClusterError, PlanError
from modelyard.pipelines.config.config import Config, load
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning import guard as guarding
from modelyard.pipelines.planning import planning
from modelyard.pipelines.planning.guard import guard, unschedulable
from modelyard.pipelines.planning.quantity import exactly, unknown
from modelyard.pipelines.planning.residuals import Prediction, keep, key, machine
from tests.unit.plan.conftest import GKE


def node(**labels: str) -> dict[str, Any]:
    allocatable = {"cpu": "2", "memory": "4Gi", "pods": "110"}
    return {
        "metadata": {"name": "yard", "labels": labels},
        "spec": {},
        "status": {"allocatable": allocatable},
    }


@pytest.fixture
def kind() -> Environment:
    return load_environment("kind")


@pytest.fixture
def patient() -> Environment:
    """An environment that ends nothing in hours."""
    return load_environment(
        "kind", ["environment.steps.train.timeout=72000", "environment.active_deadline=72000"]
    )


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The nodes that the cluster has; a test adds them."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(guarding, "connect", lambda _: SimpleNamespace(nodes=found))
    return found


@pytest.fixture
def config() -> Config:
    return load()


def planned(
    home: Path, config: Config, environment: Environment, hours: float | None, money: float | None = 12.0
) -> None:
    """Keep a plan of so many hours and USD; None for what is unknown."""
    time = unknown("--probe measures it") if hours is None else exactly(hours * 3600)
    keep(
        home,
        key(config, environment),
        Prediction(
            created="2026-11-26T10:00:00+00:00",
            machine=machine(environment),
            rows={},
            train=time,
            whole=time,
            money=unknown("no price is known") if money is None else exactly(money),
            parts=None,
            refusals=(),
        ),
    )


def test_what_fits_on_a_node_may_start(
    kind: Environment, nodes: list[Any], config: Config, tmp_path: Path
) -> None:
    nodes.append(node())
    guard(config, kind, "kind", tmp_path)


def test_a_step_that_is_larger_than_every_node_is_refused(
    nodes: list[Any], config: Config, tmp_path: Path
) -> None:
    nodes += [node(), node()]
    large = load_environment("kind", ["environment.steps.train.memory=64Gi"])
    with pytest.raises(
        PlanError, match=r"train asks for 1 core and 64 GiB of memory\. At most .* 4 GiB"
    ) as refused:
        guard(config, large, "kind", tmp_path)
    assert "--anyway" in str(refused.value)
    assert refused.value.exit_code == 13


def test_an_accelerator_that_no_node_has_is_refused(nodes: list[Any]) -> None:
    nodes.append(node())
    wants = load_environment("kind", ["environment.steps.train.accelerator={type: nvidia-l4, count: 1}"])
    (reason,) = unschedulable(wants)
    assert reason.startswith("train asks for 1 core")
    assert "None of the 1 nodes has these labels" in reason


@pytest.mark.parametrize(
    "label", ["cloud.google.com/gke-nodepool", "eks.amazonaws.com/nodegroup", "karpenter.sh/nodepool"]
)
def test_where_nodes_are_made_on_demand_nothing_is_impossible(nodes: list[Any], label: str) -> None:
    nodes.append(node(**{label: "small"}))
    assert unschedulable(load_environment("kind", ["environment.steps.train.memory=64Gi"])) == ()


def test_nodes_that_may_not_be_read_say_nothing(kind: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise ClusterError("no.")

    monkeypatch.setattr(guarding, "connect", refuse)
    assert unschedulable(kind) == ()


@pytest.mark.usefixtures("nodes")
def test_a_plan_that_said_no_holds(made: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also without a time, which nobody measures of what does not fit."""
    whole = planning.measure

    def huge(*arguments: Any) -> Any:
        traced, probed, wall = whole(*arguments)
        return traced.model_copy(update={"weights": 10**12, "gradients": 10**12}), probed, wall

    monkeypatch.setattr(planning, "measure", huge)
    settings = ["training.epochs=900", *GKE]
    plan = made("gke", settings)
    assert plan.run.value is None
    with pytest.raises(PlanError) as refused:
        guard(load(None, settings), load_environment("gke", settings), "gke", tmp_path)
    for reason in plan.refusals:
        assert reason in str(refused.value)
    assert f"(plan of {plan.created[:10]})" in str(refused.value)


def test_limits_are_those_of_the_last_plan(
    patient: Environment, nodes: list[Any], config: Config, tmp_path: Path
) -> None:
    nodes.append(node())
    planned(tmp_path, config, patient, 2.0)
    assert guard(config, patient, "kind", tmp_path, budget=12.5, deadline=2.5) == ()
    with pytest.raises(PlanError, match=r"takes 2 h, more than --deadline 1.5 h"):
        guard(config, patient, "kind", tmp_path, deadline=1.5)
    with pytest.raises(
        PlanError, match=r"takes 12.00 USD, more than --budget 11 USD.*\(plan of 2026-11-26\)"
    ):
        guard(config, patient, "kind", tmp_path, budget=11)


def test_money_is_judged_also_without_a_time_and_time_without_money(
    patient: Environment, nodes: list[Any], config: Config, tmp_path: Path
) -> None:
    nodes.append(node())
    planned(tmp_path, config, patient, None)
    (said,) = guard(config, patient, "kind", tmp_path, budget=12.5, deadline=1)
    assert said == "Nobody can tell whether it keeps --deadline 1 h: --probe measures it"
    with pytest.raises(PlanError, match="--budget 11 USD"):
        guard(config, patient, "kind", tmp_path, budget=11, deadline=1)
    planned(tmp_path, config, patient, 2.0, money=None)
    (said,) = guard(config, patient, "kind", tmp_path, budget=0, deadline=3)
    assert said == "Nobody can tell whether it keeps --budget 0 USD: no price is known"
    with pytest.raises(PlanError, match="--deadline 1 h"):
        guard(config, patient, "kind", tmp_path, budget=0, deadline=1)


def test_limits_need_a_plan(kind: Environment, nodes: list[Any], config: Config, tmp_path: Path) -> None:
    """Nothing is downloaded for one, and the plan that there is is not replaced."""
    nodes.append(node())
    for limit in ({"budget": 5.0}, {"deadline": 1.0}):
        with pytest.raises(PlanError, match=r"Nobody has planned this run.*`modelyard plan -e kind`"):
            guard(config, kind, "kind", tmp_path, **limit)
    assert guard(config, kind, "kind", tmp_path) == ()
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_another_batch_size_says_nothing(
    kind: Environment, nodes: list[Any], config: Config, tmp_path: Path
) -> None:
    nodes.append(node())
    planned(tmp_path, load(None, ["training.batch_size=8"]), kind, 9.0)
    guard(config, kind, "kind", tmp_path)


def test_the_time_of_the_whole_run_may_be_changed_after_the_plan(
    nodes: list[Any], config: Config, tmp_path: Path
) -> None:
    nodes.append(node())
    long = ["environment.steps.train.timeout=7200"]
    planned(tmp_path, config, load_environment("kind", long), 1.5)
    with pytest.raises(PlanError, match=r"takes 1.5 h, more than environment.active_deadline, 1 h: raise it"):
        guard(config, load_environment("kind", long), "kind", tmp_path)
    guard(config, load_environment("kind", [*long, "environment.active_deadline=7200"]), "kind", tmp_path)
