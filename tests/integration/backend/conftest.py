"""A server of Kubeflow Pipelines for each test, and an environment whose pipelines it takes."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from modelyard.pipelines import steps
from modelyard.pipelines.cli import invoke
from modelyard.pipelines.compile.compiler import compile_package
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.environments.environment import Pipelines as Endpoints
from modelyard.pipelines.runners.kfp import runs as kfp_runs
from modelyard.pipelines.runners.kfp import submission
from tests.integration.backend.pipelines import Pipelines
from tests.integration.backend.runs import Runs
from tests.integration.backend.server import BackendServer

Command = Callable[..., tuple[int, Any]]
BUCKET = "bucket"
DIGEST = "sha256:" + 64 * "0"
NAMES = (*steps.IMAGES, *steps.ACCELERATED_IMAGES)
IMAGES = {name: f"registry.example/modelyard/{name}@{DIGEST}" for name in NAMES}


@cache
def compiled(environment: str) -> bytes:
    return compile_package(Environment.of(environment))


@pytest.fixture(autouse=True)
def _compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for all tests: each has a server of its own, of which the package says nothing."""

    def package(environment: Environment) -> bytes:
        return compiled(environment.model_copy(update={"kfp": Endpoints()}).text())

    monkeypatch.setattr(submission, "compile_package", package)


@dataclass
class Site:
    """The server with its services."""

    server: BackendServer
    pipelines: Pipelines
    runs: Runs


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_TOKEN", "KF_PIPELINES_COOKIE"):
        monkeypatch.delenv(name, raising=False)
    server = BackendServer()
    pipelines = Pipelines(server)
    runs = Runs(server, pipelines)
    server.mount(pipelines)
    server.mount(runs)
    server.start()
    yield Site(server, pipelines, runs)
    server.stop()


@pytest.fixture(scope="session")
def bucket(emulator: str) -> str:
    httpx.post(f"{emulator}/storage/v1/b", json={"name": BUCKET}).raise_for_status()
    return f"gs://{BUCKET}"


@pytest.fixture
def environment(site: Site, emulator: str, bucket: str) -> Environment:
    return Environment(
        kind="kubernetes",
        images=IMAGES,
        store=f"{bucket}/models",
        pipeline_root=f"{bucket}/runs",
        storage_endpoint="http://gcs:4443",
        storage_endpoint_outside=emulator,
        kfp={"endpoint": site.server.url},
    )


@pytest.fixture
def there(environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Go to a folder of one's own; return the file that names the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kfp_runs, "PAUSE", 0.02)
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    path = tmp_path / "there.yaml"
    path.write_text(yaml.safe_dump(environment.model_dump(mode="json", exclude_defaults=True)))
    return str(path)


@pytest.fixture
def modelyard(there: str, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command, `there` unless it says where; return its exit code, and its JSON or its text."""

    def modelyard(*words: str) -> tuple[int, Any]:
        try:
            code = invoke([*words, *(() if "-e" in words else ("-e", there))])
        except SystemExit as end:  # Typer ends so when it prints for people
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, json.loads(said.out) if "json" in words else said.out + said.err

    return modelyard
