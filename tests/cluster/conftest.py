"""The cluster in KUBECONFIG, prepared by `make kind-up CLUSTER=current`."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import CommandResult

ROOT = Path(__file__).parents[2]


def run_command(*command: object, text: str | None = None, cwd: Path | None = None) -> CommandResult:
    words = [str(word) for word in command]
    process = subprocess.run(words, input=text, capture_output=True, text=True, check=False, cwd=cwd)
    return CommandResult(process.returncode, process.stdout, process.stderr)


def states(summary: dict[str, Any]) -> dict[str, str]:
    """Return the state of each step of a run, or `cached`."""
    return {step["name"]: "cached" if step["cached"] else step["state"] for step in summary["steps"]}


@pytest.fixture(scope="session")
def kubectl() -> Callable[..., str]:
    """Return a function that runs kubectl and returns its output; an error fails the test."""

    def run_kubectl(*arguments: object, text: str | None = None) -> str:
        result = run_command("kubectl", *arguments, text=text)
        assert result.code == 0, result.err
        return result.out

    return run_kubectl


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """The images of `make images` by name."""
    return json.loads((ROOT / "build/images.json").read_text())


@pytest.fixture(scope="session")
def missing_image(images: dict[str, str]) -> str:
    """The reference of an image that the registry does not have."""
    name, _, tag = images["serve"].split("@")[0].rpartition(":")
    return f"{tag if '/' in tag else name}:absent"


@pytest.fixture(scope="module")
def modelyard(
    tmp_path_factory: pytest.TempPathFactory, images: dict[str, str]
) -> Callable[..., CommandResult]:
    """Return a function that runs a command of modelyard in a new folder with build/images.json."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "build").mkdir()
    (folder / "build/images.json").write_text(json.dumps(images))
    program = Path(sys.executable).parent / "modelyard"
    return lambda *arguments: run_command(program, *arguments, cwd=folder)


@pytest.fixture
def no_new_nodes(kubectl: Callable[..., str]) -> Iterator[Callable[[str, str], None]]:
    """Return a function that waits for an unschedulable pod with given labels.

    It creates the event of an autoscaler that adds no node for the pod.
    """
    stopped, threads = threading.Event(), []

    def is_unschedulable(pod: Any) -> bool:
        conditions = pod["status"].get("conditions", ())
        return any(
            (condition["type"], condition["status"]) == ("PodScheduled", "False") for condition in conditions
        )

    def create_event(namespace: str, labels: str) -> None:
        query = ("get", "pods", "-n", namespace, "-l", labels, "-o", "json")
        while not (pods := [pod for pod in json.loads(kubectl(*query))["items"] if is_unschedulable(pod)]):
            if stopped.wait(0.5):
                return
        pod_fields = {key: pods[0]["metadata"][key] for key in ("name", "namespace", "uid")}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": "no-node-", "namespace": namespace},
            "involvedObject": {"kind": "Pod", **pod_fields},
            "reason": "NotTriggerScaleUp",
            "message": "pod didn't trigger scale-up",
        }
        kubectl("create", "-f", "-", text=json.dumps(event))

    def start(namespace: str, labels: str) -> None:
        threads.append(threading.Thread(target=create_event, args=(namespace, labels)))
        threads[-1].start()

    yield start
    stopped.set()
    for thread in threads:
        thread.join()
