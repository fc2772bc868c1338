"""What a plan rests on says how each is known."""

from typing import Any

import pytest

from modelyard.components.train.measured import Probed, Traced
from modelyard.pipelines.config.config import load
from modelyard.pipelines.planning.compute import compute
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.hardware import load as hardware
from modelyard.pipelines.planning.inputs import inputs
from modelyard.pipelines.planning.quantity import Input, Quantity
from modelyard.pipelines.planning.speed import Speed


@pytest.fixture
def listed(data: Dataset, traced: Traced) -> Any:
    """List the inputs of a plan of the digits, by name."""

    def one(
        *settings: str,
        lower_bound: tuple[str, ...] = (),
        probed: Probed | None = None,
        past: dict[str, float] | None = None,
        correction: Quantity | None = None,
    ) -> dict[str, Input]:
        work = compute(traced.model_copy(update={"lower_bound": lower_bound}), 10)
        speed = Speed("", "", None, None, None, correction, past or {})
        found = inputs(load(None, settings), data, hardware(), work, probed, speed, None)
        return {each.name: each for each in found}

    return one


def test_a_default_is_called_one(listed: Any) -> None:
    assert listed()["batch size"].source == "training.batch_size, its default"
    assert listed("training.batch_size=8")["batch size"].source == "training.batch_size"
    assert listed()["epochs"].source == "training.epochs"  # as the configuration of the digits says


def test_what_is_counted_says_which_bound_it_is(listed: Any) -> None:
    whole, part = listed(), listed(lower_bound=("a loop",))
    assert (whole["arithmetic"].value, part["arithmetic"].value) == ("exact", "a lower bound")
    assert whole["memory of activations"].value == "an upper bound"


def test_only_the_steps_that_ran_before_are_measured(listed: Any) -> None:
    found = listed(past={"deploy": 4.0})
    measured, assumed = found["other steps: medians"], found["other steps"]
    assert (measured.basis, measured.value) == ("measured", "deploy 4 s")
    assert assumed.basis == "assumed"
    assert "deploy" not in assumed.value
    assert "evaluate" in assumed.value
    assert "other steps: medians" not in listed()


def test_a_correction_is_an_input(listed: Any) -> None:
    assert "correction" not in listed()
    found = listed(correction=Quantity(value=1.25, low=1.0, high=1.5, why="12 runs"))["correction"]
    assert (found.value, found.basis, found.source) == ("x1.2", "measured", "12 runs")


def test_what_nobody_measured_is_assumed(listed: Any, probed: Probed) -> None:
    bare, seen = listed(), listed(probed=probed)
    assert bare["memory of the libraries"].basis == "assumed"
    assert "files of an exported model" in bare
    assert "files of an exported model" not in seen  # the probe made them
    assert "least interval around a probe" in seen
    assert "least interval around a probe" not in bare
