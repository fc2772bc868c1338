"""A probe that has too little memory is an answer: the model does not fit."""

from pathlib import Path
from typing import Any

import pytest

from modelyard.components.artifacts import read
from modelyard.components.errors import TooLargeError
from modelyard.pipelines.planning import planning
from modelyard.pipelines.planning.plan import Plan
from modelyard.pipelines.planning.residuals import Prediction
from tests.unit.plan.test_render import shown


@pytest.fixture
def greedy(made: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make plans of a model that can be traced, and not trained."""
    whole = planning.measure

    def measure(*arguments: Any) -> Any:
        if arguments[2].probe:
            raise TooLargeError("It needs more than there is. Take less.")
        return whole(*arguments)

    def one(**wishes: Any) -> Plan:
        monkeypatch.setattr(planning, "measure", measure)
        plan: Plan = made(**wishes)
        return plan

    return one


def test_the_plan_is_shown_with_its_no(greedy: Any, tmp_path: Path) -> None:
    plan = greedy(probe=True)
    assert (plan.fit, plan.probed) == ("does not fit", None)
    assert plan.refusals == ("It needs more than there is. Take less",)
    assert plan.parameters == 1_000_000
    assert "no: It needs more than there is. Take less." in shown(plan)
    (kept,) = (tmp_path / "plans").glob("*.json")
    assert read(kept, Prediction).refusals == plan.refusals


def test_it_says_nothing_of_another_machine(greedy: Any) -> None:
    plan = greedy(probe=True, on=("l4",))
    assert (plan.fit, plan.refusals) == ("fits", ())


def test_without_a_probe_it_fits_as_far_as_one_can_count(greedy: Any) -> None:
    plan = greedy()
    assert (plan.too_large, plan.refusals) == (None, ())


def test_a_model_that_cannot_even_be_traced_is_an_error(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*_: Any) -> Any:
        raise TooLargeError("It needs more than there is.")

    monkeypatch.setattr(planning, "measure", measure)
    for probe in (True, False):
        with pytest.raises(TooLargeError):
            made(probe=probe)
