"""Runs of a real Kubeflow Pipelines 2.17.0, recorded: the Workflow, the pod in question, and its log."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from modelyard.components.explain.kfp_run import Evidence
from modelyard.components.explain.workflow import PodNode, Workflow

RECORDED = Path(__file__).parent / "recorded"


class Recorded:
    """The records of a run; with `gone`, its pods were deleted, as after an hour."""

    def __init__(self, name: str, gone: bool = False) -> None:
        self.found: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
        self.gone = gone

    def workflow(self) -> Workflow:
        return Workflow(self.found["workflow"])

    def evidence(self, node: PodNode) -> Evidence:
        pod = self.found.get("pod")
        assert pod is None or pod["metadata"]["name"] == node.pod
        return Evidence(node, self.log(node), None if self.gone else pod)

    def log(self, node: PodNode) -> Sequence[str]:
        logs = self.found.get("logs", {})
        return logs.get(node.step, self.found.get("log", []) if node.is_failed else [])


@pytest.fixture
def recorded() -> Callable[..., Recorded]:
    return Recorded
