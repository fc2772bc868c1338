"""A fake KFP server for each test, and an environment that uses it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelyard.pipelines import steps
from modelyard.pipelines.compile.compiler import compile_package
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.environments.environment import Pipelines as Endpoints
from modelyard.pipelines.runners.kfp import runs as kfp_runs
from modelyard.pipelines.runners.kfp import submission
from tests.command_line import CommandLine
from tests.integration.backend.pipelines import Pipelines
from tests.integration.backend.runs import Runs
from tests.integration.backend.server import BackendServer
from tests.integration.conftest import BUCKET

Command = Callable[..., tuple[int, Any]]
DIGEST = "sha256:" + 64 * "0"
NAMES = (*steps.IMAGES, *steps.ACCELERATED_IMAGES)
IMAGES = {name: f"registry.example/modelyard/{name}@{DIGEST}" for name in NAMES}


@cache
def compile_cached(environment: str) -> bytes:
    return compile_package(Environment.from_json(environment))


@pytest.fixture(autouse=True)
def _compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile once for all tests; the package does not depend on the URL of the server."""

    def package(environment: Environment) -> bytes:
        return compile_cached(environment.model_copy(update={"kfp": Endpoints()}).to_json())

    monkeypatch.setattr(submission, "compile_package", package)


@dataclass
class FakeKfp:
    """A fake KFP server and its services."""

    server: BackendServer
    pipelines: Pipelines
    runs: Runs


@pytest.fixture
def fake_kfp(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKfp]:
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_TOKEN", "KF_PIPELINES_COOKIE"):
        monkeypatch.delenv(name, raising=False)
    server = BackendServer()
    pipelines = Pipelines(server)
    runs = Runs(server, pipelines)
    server.mount(pipelines)
    server.mount(runs)
    server.start()
    yield FakeKfp(server, pipelines, runs)
    server.stop()


@pytest.fixture
def environment(fake_kfp: FakeKfp, emulator: str) -> Environment:
    return Environment(
        kind="kubernetes",
        images=IMAGES,
        store=f"gs://{BUCKET}/models",
        pipeline_root=f"gs://{BUCKET}/runs",
        storage_endpoint="http://gcs:4443",
        storage_endpoint_outside=emulator,
        kfp={"endpoint": fake_kfp.server.url},
    )


@pytest.fixture
def environment_file(environment: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Change to an empty folder, write the environment into a file there, and return its path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kfp_runs, "PAUSE", 0.02)
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    path = tmp_path / "environment.yaml"
    path.write_text(yaml.safe_dump(environment.model_dump(mode="json", exclude_defaults=True)))
    return str(path)


@pytest.fixture
def modelyard(environment_file: str, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command and returns its exit code and output, which is parsed if JSON.

    The option `-e` has this environment by default.
    """

    def run(*arguments: str) -> tuple[int, Any]:
        options = () if "-e" in arguments else ("-e", environment_file)
        result = CommandLine(capsys, *options)(*arguments)
        return result.code, result.json if "json" in arguments else result.out + result.err

    return run
