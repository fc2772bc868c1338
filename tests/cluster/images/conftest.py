"""Confined containers of the images on an internal network, with an emulator of the store."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from kfp import local

from modelyard.components.store.settings import Store
from modelyard.pipelines.compile.compiler import create_arguments
from modelyard.pipelines.config.config import load
from modelyard.pipelines.steps import STEPS
from modelyard.pipelines.train_to_serve import build_pipeline

ROOT = Path(__file__).parents[3]
CONFINED = ("--read-only", "--tmpfs=/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
BUCKET = "modelyard"
EMULATOR = ("-scheme", "http", "-backend", "memory", "-external-url", "http://gcs:4443")


@pytest.fixture(scope="session")
def docker() -> Callable[..., str]:
    """Return a function that runs docker and returns its output; an error fails the test."""
    return run


def run(*arguments: str) -> str:
    process = subprocess.run(["docker", *arguments], capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="session")
def run_in_image() -> Callable[[str, str], str]:
    """Return a function that runs a Python script in an image without a network and returns its output."""
    options = ("--rm", "--network", "none", *CONFINED, "--entrypoint", "python")
    return lambda image, script: run("run", *options, image, "-c", script)


@pytest.fixture
def network() -> Iterator[str]:
    name = f"modelyard-{uuid4().hex[:8]}"
    run("network", "create", "--internal", name)
    try:
        yield name
    finally:
        run("network", "rm", name)


@pytest.fixture
def server(network: str) -> Iterator[Callable[..., str]]:
    """Return a function that starts a server from its image, waits until it is healthy and returns its IP."""
    with ExitStack() as stack:

        def start(
            image: str, *command: str, health: str = ":8501/v2/health/ready", alias: str = "server"
        ) -> str:
            address = stack.enter_context(run_container(image, network, *command, alias=alias))
            wait_until_healthy(f"http://{address}{health}")
            return address

        yield start


@contextmanager
def run_container(image: str, network: str, *command: str, alias: str) -> Iterator[str]:
    options = ("--network", network, "--network-alias", alias)
    name = run("run", "--detach", *CONFINED, *options, image, *command).strip()
    try:
        yield json.loads(run("inspect", name))[0]["NetworkSettings"]["Networks"][network]["IPAddress"]
    finally:
        sys.stdout.write(run("logs", name))
        run("rm", "--force", name)


def wait_until_healthy(url: str) -> None:
    for _ in range(1800):
        with suppress(httpx.TransportError):
            if httpx.get(url).is_success:
                return
        time.sleep(0.1)
    raise AssertionError(f"{url} is not healthy after 3 minutes")


@pytest.fixture
def stores(images: dict[str, str], server: Callable[..., str]) -> tuple[Store, Store]:
    """The store in an emulator, with its URL for containers and for this machine."""
    health = ":4443/_internal/healthcheck"
    address = server(images["gcs-emulator"], *EMULATOR, health=health, alias="gcs")
    outside = Store(url=f"gs://{BUCKET}/models", endpoint=f"http://{address}:4443")
    httpx.post(f"{outside.endpoint}/storage/v1/b", json={"name": BUCKET}).raise_for_status()
    return outside.model_copy(update={"endpoint": "http://gcs:4443"}), outside


@pytest.fixture
def run_digits(network: str, stores: tuple[Store, Store], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that runs the digits in containers and returns the folder of evaluate.

    The gate rejects every model.
    """
    root = tmp_path / "artifacts"
    root.mkdir()
    root.chmod(0o777)  # for the user of the containers
    options: dict[str, Any] = {"network": network, "read_only": True, "cap_drop": ["ALL"]}
    options["tmpfs"] = {"/tmp": ""}  # noqa: S108

    def run_pipeline(images: Mapping[str, str]) -> Path:
        local.init(local.DockerRunner(**options), pipeline_root=str(root))
        pipeline = build_pipeline(lambda step, task: task.set_container_image(images[STEPS[step].image]))
        pipeline(
            **create_arguments(load(None, ["training.epochs=5", "gate.minimum.accuracy=1.0"], {}, stores[0]))
        )
        (evaluation,) = root.glob("*/evaluate/evaluation")
        return evaluation

    return run_pipeline
