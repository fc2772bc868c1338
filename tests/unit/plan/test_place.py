"""The room that training has, and what a plan says when it is too little."""

from pathlib import Path
from typing import Any

import pytest

from modelyard.components.train.measured import Traced
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning import place as placing
from modelyard.pipelines.planning import planning
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.hardware import load
from modelyard.pipelines.planning.place import place

GKE = ("environment.store=gs://a/b", "environment.pipeline_root=gs://a/c")


def test_on_this_machine_it_is_what_the_container_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(placing, "memory_here", lambda: 3 * 2**30)
    found = place(load_environment("local"), load(), tmp_path / "not" / "there" / "yet")
    assert found.capacity == 3 * 2**30
    assert found.disk
    assert found.host is None


def test_in_a_pod_with_an_accelerator_both_have_memory(tmp_path: Path) -> None:
    found = place(load_environment("gke", GKE), load(), tmp_path)
    assert (found.capacity, found.host, found.disk) == (24e9, 14 * 2**30, None)


@pytest.mark.parametrize(("gigabytes", "told"), [(3, False), (5, True)])
def test_an_export_that_the_pod_may_not_hold_is_told(
    made: Any, traced: Traced, monkeypatch: pytest.MonkeyPatch, gigabytes: int, told: bool
) -> None:
    heavy = traced.model_copy(update={"weights": gigabytes * 10**9})
    monkeypatch.setattr(planning, "measure", lambda *_: (heavy, None, 1.0))
    found = [one for one in made("gke").risks if one.what.startswith("the export takes about")]
    assert bool(found) is told
    assert all("environment.steps.train.memory" in one.lowers for one in found)


@pytest.mark.parametrize(("features", "told"), [("somewhere", False), ("", True)])
def test_a_disk_that_is_too_small_is_told(
    made: Any, data: Dataset, monkeypatch: pytest.MonkeyPatch, features: str, told: bool
) -> None:
    """What the plan has prepared is on the disk already; the model has room."""
    many = data.model_copy(update={"rows": {"train": 10**6}, "features": features})  # 72 MB, twice
    monkeypatch.setattr(planning, "look", lambda *_: many)
    monkeypatch.setattr(placing.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100_000_000}))
    found = [one for one in made().risks if one.what.startswith("the disk is full: the run writes 156 MB")]
    assert bool(found) is told
