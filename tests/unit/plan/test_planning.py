"""How the parts of a plan come together where something was measured."""

from pathlib import Path
from typing import Any

import pytest

from modelyard.components.train.measured import Probed, Traced
from modelyard.pipelines.compile.compiler import LOCAL
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning import planning
from modelyard.pipelines.planning.facts import facts
from modelyard.pipelines.planning.plan import Wishes
from modelyard.pipelines.planning.quantity import exactly
from modelyard.pipelines.planning.residuals import machine
from tests.unit.plan.conftest import GKE
from tests.unit.plan.ended import run
from tests.unit.plan.test_render import shown

SETTINGS = ("training.epochs=900",)


@pytest.fixture
def probing(made: Any, monkeypatch: pytest.MonkeyPatch, traced: Traced, probed: Probed) -> Any:
    """Make plans with what a probe found on a device: this machine's processor, if nobody says."""
    heavy = traced.model_copy(update={"flops": 6 * 10**12})

    def one(name: str = "local", device: str = "cpu:0", **wishes: Any) -> Any:
        found = probed.model_copy(update={"device": device, "traced": heavy})
        monkeypatch.setattr(planning, "measure", lambda *_: (heavy, found, 46.0))
        return made(name, SETTINGS, **wishes)

    return one


def test_what_was_measured_here_is_the_time_of_a_run_here(probing: Any) -> None:
    plan = probing()
    assert plan.machine == machine(LOCAL)
    assert plan.train.value == pytest.approx(plan.duration.seconds())
    assert plan.steps["ingest"] == exactly(0.0)
    assert plan.run.high


def test_what_was_measured_here_is_no_time_of_an_accelerator(probing: Any) -> None:
    probing()  # an earlier probe is none, either
    for plan in (probing(on=("l4",)), probing(on=("l4",), probe=True)):
        assert plan.machine == "nvidia-l4x1"
        assert plan.duration is None
        assert "of that" not in facts(plan)
        assert plan.train.value
        assert plan.train.high is None
        assert "its steps alone" in plan.train.why
        assert {one.value for one in plan.steps.values()} == {None}
        assert plan.run.value is None
        assert plan.run.low > plan.train.low
        (speed,) = [one for one in plan.inputs if one.name == "speed of training"]
        assert speed.basis == "unknown"


def test_without_a_probe_the_start_of_an_attempt_on_spot_is_not_counted(probing: Any, made: Any) -> None:
    text = shown(made("gke"))
    assert "Spot, taken away every 6 h on average: at least x" in text
    assert "until it trains again is not counted" in text
    text = shown(probing("gke", device="gpu:0"))
    assert "Spot, taken away every 6 h on average: x" in text
    assert "is not counted" not in text


def test_a_processor_that_stood_in_for_the_accelerator_is_planned_as_one(probing: Any) -> None:
    gpu = probing("gke", device="gpu:0")
    assert (gpu.place, gpu.machine) == ("nvidia-l4", machine(load_environment("gke", GKE)))
    assert gpu.money.value
    processor = probing("gke", device="cpu:0")
    assert processor.place == processor.machine == "a node without nvidia-l4"
    assert processor.money.value is None
    assert processor.spot == ()


def test_earlier_runs_correct_the_next_plan(probing: Any, tmp_path: Path) -> None:
    first = probing()
    for name in ("one", "two", "three"):
        run(tmp_path, load(None, SETTINGS), name, 2 * first.train.value, epochs=900, rows=300)
    second = probing()
    assert second.correction.value == pytest.approx(2.0)
    assert second.train.value == pytest.approx(2 * first.train.value)
    assert second.steps["evaluate"].value == 3.0


def test_a_plan_that_cannot_be_kept_is_shown_all_the_same(made: Any, tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("no folder")
    assert made().parameters == 1_000_000
    said: list[str] = []
    planning.make(load(), LOCAL, "local", Wishes(), tmp_path, warn=said.append)
    (warning,) = said
    assert warning.startswith("The plan is not kept")
    assert str(tmp_path / "plans") in warning
