"""Recorded runs of Kubeflow Pipelines 2.17.0: the Workflow, the failed or pending pod, and its log."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from modelyard.components.explain.kfp_run import Evidence
from modelyard.components.explain.workflow import PodNode, Workflow

RECORDED = Path(__file__).parent / "recorded"


class Recorded:
    """A recorded run; with `pods_deleted`, Kubernetes has no pods of it any more."""

    def __init__(self, name: str, pods_deleted: bool = False) -> None:
        self.records: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
        self.pods_deleted = pods_deleted

    def workflow(self) -> Workflow:
        return Workflow(self.records["workflow"])

    def evidence(self, node: PodNode) -> Evidence:
        pod = self.records.get("pod")
        assert pod is None or pod["metadata"]["name"] == node.pod
        return Evidence(node, self.log(node), None if self.pods_deleted else pod)

    def log(self, node: PodNode) -> Sequence[str]:
        logs = self.records.get("logs", {})
        return logs.get(node.step, self.records.get("log", []) if node.is_failed else [])


@pytest.fixture
def recorded() -> Callable[..., Recorded]:
    return Recorded
