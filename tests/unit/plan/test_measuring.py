"""What is said before a learning curve is trained."""

from pathlib import Path
from typing import Any

import pytest

from modelyard.components.train.measured import LearningCurve, Probed, Traced
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning import measuring, planning, pod_probe
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.plan import Wishes
from tests.unit.plan.conftest import GKE

REFUSED = LearningCurve(points=(), beyond=(), exponent=None, floor=None, refused="a test", seconds=0.0)


@pytest.fixture
def said(
    monkeypatch: pytest.MonkeyPatch, traced: Traced, probed: Probed, data: Dataset, tmp_path: Path
) -> Any:
    """Give what a plan with a learning curve says while it is made."""

    def say_all(name: str, probe: bool) -> list[str]:
        found: list[str] = []
        settings = [*(GKE if name == "gke" else ()), "training.epochs=100", "training.batch_size=100"]
        environment = load_environment(name, settings)
        monkeypatch.setattr(planning, "look", lambda *_: data)
        monkeypatch.setattr(planning, "measure", lambda *_: (traced, probed if probe else None, 40.0))
        monkeypatch.setattr(measuring, "ask", lambda *_: (REFUSED, 1.0))
        monkeypatch.setattr(pod_probe, "check", lambda _: None)
        wishes = Wishes(probe=probe, learning_curve=True)
        planning.make(load(None, settings), environment, name, wishes, tmp_path, say=found.append)
        return [one for one in found if "growing parts" in one]

    return say_all


def test_how_long_a_learning_curve_takes_is_said_before(said: Any) -> None:
    # twice: 7 s of start, compilation and export, and 100 epochs of 0.82 s
    assert said("local", probe=True) == ["training here on growing parts of the data, about 2.97 min"]


def test_how_long_is_not_made_up(said: Any) -> None:
    assert said("local", probe=False) == ["training here on growing parts of the data"]


def test_what_a_pod_takes_says_nothing_about_here(said: Any) -> None:
    assert said("gke", probe=True) == ["training here on growing parts of the data"]
