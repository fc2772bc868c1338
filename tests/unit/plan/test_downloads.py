"""What a plan downloads, and that it looks for the cluster first."""

from pathlib import Path
from typing import Any

import pytest
from kubernetes.config import kube_config

from modelyard.components.errors import ClusterError
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning import planning, pod_probe
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.plan import Wishes
from tests.unit.plan.conftest import GKE

SOURCE = "https://example.com/cifar-10-python.tar.gz"
CIFAR10, OWN = f"data={{kind: cifar10, source: '{SOURCE}'}}", "data={kind: npz, source: 'gs://a/set.npz'}"


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch, made: Any, data: Dataset) -> list[bool]:
    """Note whether data was to be downloaded, each time that it was looked at."""
    assert made
    found: list[bool] = []

    def look(_config: Any, _rows: Any, _classes: Any, fetch: bool) -> Dataset:
        found.append(fetch)
        return data

    monkeypatch.setattr(planning, "look", look)
    return found


def plan(tmp_path: Path, name: str, setting: str, **wishes: Any) -> None:
    environment = load_environment(name, [*(GKE if name == "gke" else ()), setting])
    planning.make(load(None, [setting]), environment, name, Wishes(**wishes), tmp_path)


@pytest.mark.parametrize(
    ("name", "setting", "wishes", "fetch"),
    [
        ("local", CIFAR10, {"probe": True}, True),
        ("gke", CIFAR10, {"probe": True}, False),  # its pod has noise, and all else is known
        ("gke", CIFAR10, {"fetch": True}, True),
        ("gke", CIFAR10, {"learning_curve": True}, True),
        ("gke", OWN, {"probe": True}, True),  # nobody knows how many rows
        ("gke", OWN, {}, False),
    ],
)
def test_no_more_is_downloaded_than_is_needed(
    looked: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    setting: str,
    wishes: Any,
    fetch: bool,
) -> None:
    monkeypatch.setattr(pod_probe, "check", lambda _: None)
    monkeypatch.setattr(planning, "learn", lambda *_: None)
    plan(tmp_path, name, setting, **wishes)
    assert looked == [fetch]


def test_without_a_cluster_nothing_is_downloaded(
    looked: list[bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # the client reads the variable once, when it is imported
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="There is no cluster to talk to"):
        plan(tmp_path, "gke", OWN, probe=True)
    assert looked == []
