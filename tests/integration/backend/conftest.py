"""A server of Kubeflow Pipelines for each test, and an environment whose pipelines it takes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import pytest

from pipelines.environment_settings import Environment, Image
from tests.integration.backend.pipelines import Pipelines
from tests.integration.backend.runs import Runs
from tests.integration.backend.server import BackendServer

DIGEST = "sha256:" + 64 * "0"
IMAGES = {name: f"registry.example/modelyard/{name}@{DIGEST}" for name in get_args(Image)}


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


@pytest.fixture
def environment(site: Site) -> Environment:
    return Environment(
        kind="kubernetes",
        images=IMAGES,
        store="gs://bucket/models",
        pipeline_root="gs://bucket/runs",
        kfp={"endpoint": site.server.url},
    )
