"""What a compiled pipeline says of its steps: images, sizes, nodes, times and attempts."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from modelyard.pipelines.runners.differences import flat

EXECUTOR = "exec-"
PROGRAM = ("command", "args")
TWICE = re.compile(r"resources\.(cpu|memory)(Request|Limit)")  # the same as a number


def parts(spec: Mapping[str, Any], platform: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a package says of where and how its steps run, but for their programs.

    Args:
        spec: its first document, which is the same everywhere.
        platform: its second document, with the values of Kubernetes.

    Returns:
        The values, with keys such as "image of train" and "train: resources.resourceMemoryLimit".
    """
    kubernetes = platform.get("platforms", {}).get("kubernetes", {})
    found = {f"pipeline: {key}": value for key, value in _told(kubernetes.get("pipelineConfig", {}))}
    for step, said in _steps(spec, kubernetes):
        for key, value in _told(said):
            if not TWICE.fullmatch(key):
                found[f"image of {step}" if key == "image" else f"{step}: {key}"] = value
    return found


def _steps(spec: Mapping[str, Any], kubernetes: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, executor in spec.get("deploymentSpec", {}).get("executors", {}).items():
        container = executor.get("container", {})
        yield (
            name.removeprefix(EXECUTOR),
            {key: value for key, value in container.items() if key not in PROGRAM},
        )
    for name, pod in kubernetes.get("deploymentSpec", {}).get("executors", {}).items():
        yield name.removeprefix(EXECUTOR), pod
    for group in (spec.get("root", {}), *spec.get("components", {}).values()):
        for name, task in group.get("dag", {}).get("tasks", {}).items():
            if "retryPolicy" in task:
                yield name, {"retryPolicy": task["retryPolicy"]}


def _told(said: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from flat(_numbered(said)).items()


def _numbered(value: Any) -> Any:
    """Return nested values with lists as dicts by number, so that each of their values has a key."""
    if isinstance(value, list):
        value = {str(number): one for number, one in enumerate(value)}
    return {key: _numbered(one) for key, one in value.items()} if isinstance(value, dict) else value
