"""Objects of a real cluster (Kubernetes 1.34), in recorded/."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RECORDED = Path(__file__).parent / "recorded"


@pytest.fixture
def recorded() -> Callable[[str], Any]:
    return lambda name: json.loads((RECORDED / f"{name}.json").read_text())


@pytest.fixture
def node(recorded: Callable[[str], Any]) -> Any:
    """A node with 2 cores and 23.3 GiB."""
    return recorded("node")
