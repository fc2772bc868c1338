"""What is refused before it starts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.errors import ClusterError, PlanError
from pipelines.config import Config, load
from pipelines.environment import load_environment
from pipelines.environment_settings import Environment
from pipelines.plan import guard as guarding
from pipelines.plan.guard import guard, unschedulable
from pipelines.plan.quantity import Quantity, exactly, unknown
from pipelines.plan.residuals import Prediction, keep, key, machine


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
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The nodes that the cluster has; a test adds them."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(guarding, "connect", lambda _: SimpleNamespace(nodes=found))
    return found


@pytest.fixture
def config() -> Config:
    return load()


def planned(home: Path, config: Config, environment: Environment, hours: float, *refusals: str) -> None:
    keep(
        home,
        key(config, environment),
        Prediction(
            created="2026-11-26T10:00:00+00:00",
            machine=machine(environment),
            rows={},
            train=exactly(hours * 3600),
            whole=exactly(hours * 3600),
            money=Quantity(value=12.0, low=10.0, high=14.0),
            parts=None,
            refusals=refusals,
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


def test_where_nodes_are_made_on_demand_nothing_is_impossible(nodes: list[Any]) -> None:
    nodes.append(node(**{"cloud.google.com/gke-nodepool": "small"}))
    assert unschedulable(load_environment("kind", ["environment.steps.train.memory=64Gi"])) == ()


def test_nodes_that_may_not_be_read_say_nothing(kind: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise ClusterError("no.")

    monkeypatch.setattr(guarding, "connect", refuse)
    assert unschedulable(kind) == ()


def test_a_plan_that_said_no_holds(
    kind: Environment, nodes: list[Any], config: Config, tmp_path: Path
) -> None:
    nodes.append(node())
    planned(tmp_path, config, kind, 1.0, "it does not fit")
    with pytest.raises(PlanError, match=r"^it does not fit\."):
        guard(config, kind, "kind", tmp_path)


def test_limits_are_those_of_the_last_plan(
    kind: Environment, nodes: list[Any], config: Config, tmp_path: Path
) -> None:
    nodes.append(node())
    planned(tmp_path, config, kind, 2.0)
    guard(config, kind, "kind", tmp_path, budget=12.5, deadline=2.5)
    with pytest.raises(PlanError, match=r"takes 2 h, more than --deadline 1.5 h"):
        guard(config, kind, "kind", tmp_path, deadline=1.5)
    with pytest.raises(PlanError, match=r"takes 12.00 USD, more than --budget 11 USD"):
        guard(config, kind, "kind", tmp_path, budget=11)


def test_a_plan_for_another_batch_size_says_nothing(
    kind: Environment, nodes: list[Any], config: Config, tmp_path: Path
) -> None:
    nodes.append(node())
    planned(tmp_path, load(None, ["training.batch_size=8"]), kind, 2.0, "it does not fit")
    guard(config, kind, "kind", tmp_path)


def test_unknown_is_no_refusal() -> None:
    from pipelines.plan.plan import Wishes
    from pipelines.plan.verdict import limits

    wishes = Wishes(budget=1.0, deadline=1.0)
    assert limits(unknown("no probe"), unknown("no price"), wishes) == ()
    (certain,) = limits(unknown("no probe", at_least=7200.0), unknown("no price"), wishes)
    assert certain.startswith("It takes at least 2 h")
