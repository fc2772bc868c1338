"""An environment with something in it: a bucket, Kubeflow Pipelines, a cluster, all answering over HTTP."""

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest
import yaml
from kubernetes.config import kube_config

from modelyard.components.store.address import open_objects
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.objects import Objects
from modelyard.pipelines.compile.compiler import compile_package
from modelyard.pipelines.config.config import Config, load
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.maintenance import plan
from modelyard.pipelines.maintenance.place import Place
from modelyard.pipelines.maintenance.thing import Thing
from modelyard.pipelines.runners.kfp import submission
from tests.integration.backend.conftest import IMAGES, Site, site  # noqa: F401 - a fixture
from tests.integration.backend.recurring import RecurringRuns
from tests.integration.store.conftest import manifest_of

BUCKET = "cleanup-for-tests"
DAY = 86400.0
LATER = 40 * DAY


class Kubernetes:
    """An API server that has what a test puts into it."""

    def __init__(self) -> None:
        self.deployments: list[Any] = []
        self.pods: list[Any] = []
        kubernetes = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = kubernetes.selected(self.path)
                name = re.search(r"/(?:pods|deployments)/([^/?]+)", self.path)
                if name:
                    found = [one for one in found if one["metadata"]["name"] == name[1]]
                self.answer(
                    200 if found or not name else 404, found[0] if name and found else {"items": found}
                )

            def do_DELETE(self) -> None:
                name = self.path.rpartition("/")[2]
                found = kubernetes.of(self.path)
                found[:] = [one for one in found if one["metadata"]["name"] != name]
                self.answer(200, {})

            def answer(self, status: int, value: Any) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def of(self, path: str) -> list[Any]:
        return self.pods if "/pods" in path else self.deployments

    def selected(self, path: str) -> list[Any]:
        asked = parse_qs(urlsplit(path).query).get("labelSelector", [""])[0]
        pairs = [pair.partition("=") for pair in asked.split(",") if pair]
        return [one for one in self.of(path) if all(_has(one, key, value) for key, _, value in pairs)]

    def serves(self, name: str, version: int) -> None:
        labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "modelyard"}
        labels["modelyard.dev/version"] = str(version)
        self.deployments.append({"metadata": {"name": f"{name}-stable", "labels": labels}})

    def runs(self, run: str, phase: str = "Running") -> None:
        labels = {"modelyard.dev/run": run, "app.kubernetes.io/component": "step"}
        self._pod(f"{run}-train", labels, phase)

    def probes(self, name: str, phase: str) -> None:
        self._pod(name, {"app.kubernetes.io/component": "probe"}, phase)

    def _pod(self, name: str, labels: dict[str, str], phase: str) -> None:
        seen = {"uid": "1", "resourceVersion": "1", "name": name, "labels": labels}
        seen["creationTimestamp"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        spec = {"activeDeadlineSeconds": 3600}
        self.pods.append({"metadata": seen, "spec": spec, "status": {"phase": phase}})


def _has(one: Any, key: str, value: str) -> bool:
    found = one["metadata"]["labels"].get(key)
    return found is not None and value in ("", found)


@dataclass
class Yard:
    """The environment, and what a test asks of it; a run of `gc` happens 40 days later."""

    config_file: Path
    environment_file: Path
    home: Path
    kubernetes: Kubernetes
    site: Site
    schedules: RecurringRuns

    @property
    def environment(self) -> Environment:
        return load_environment(str(self.environment_file), environ={})

    def config(self, *overrides: str) -> Config:
        store = self.environment.model_store()
        return load(self.config_file, overrides, environ={}, store=store)

    @property
    def models(self) -> ModelStore:
        return open_store(self.config().store)

    @property
    def store(self) -> Objects:
        return open_objects(self.config().store)

    @property
    def bucket(self) -> Objects:
        return open_objects(self.environment.artifacts())

    def place(self, *overrides: str, later: float = LATER) -> Place:
        place = Place(self.config(*overrides), self.environment, self.home, time.time() + later)
        place.look(None)
        return place

    def found(self, *overrides: str, later: float = LATER) -> dict[str, Thing]:
        return {thing.name: thing for thing in plan.find(self.place(*overrides, later=later))}

    def gc(self, *overrides: str, later: float = LATER) -> tuple[set[str], set[str]]:
        """Remove what may go; return the names of what is gone, and of what was to go and is left."""
        going = {name: one for name, one in self.found(*overrides, later=later).items() if one.kept is None}
        gone = {name for name, one in going.items() if one.remove()}
        return gone, going.keys() - gone

    def publish(self, run: str, folder: Path, name: str = "digits", **config: Any) -> int:
        """Publish a version as a run, made of a configuration."""
        (folder / "model.onnx").write_bytes(b"onnx" * 1000)
        files = {"model.onnx": folder / "model.onnx"}
        version = self.models.reserve(name, run)
        manifest = manifest_of(name, version, run, files).model_copy(update={"config": config})
        self.models.publish(name, version, files, manifest)
        return version

    def upload(self, key: str, data: bytes = b"data") -> str:
        self.store.add(key, io.BytesIO(data), len(data))
        return key

    def write(self, key: str, data: bytes = b"artifact") -> None:
        """Write an artifact."""
        self.bucket.add(key, io.BytesIO(data), len(data))


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    one = Kubernetes()
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": f"http://127.0.0.1:{one.server.server_port}"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "users": [{"name": "a", "user": {}}],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    # the client reads the variable once, when it is imported
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    yield one
    one.server.shutdown()


@pytest.fixture(autouse=True)
def _compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    package = compiled()
    monkeypatch.setattr(submission, "compile_package", lambda _: package)


@cache
def compiled() -> bytes:
    places = {"store": "gs://b/models", "pipeline_root": "gs://b/runs"}
    return compile_package(Environment.model_validate({"kind": "kubernetes", "images": IMAGES, **places}))


@pytest.fixture(scope="session")
def bucket_server(emulator: str) -> str:
    httpx.post(f"{emulator}/storage/v1/b", json={"name": BUCKET}).raise_for_status()
    return emulator


@pytest.fixture
def yard(
    tmp_path: Path,
    bucket_server: str,
    kubernetes: Kubernetes,
    site: Site,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Yard:
    schedules = RecurringRuns(site.server, site.pipelines, site.runs)
    site.server.mount(schedules)
    base = f"gs://{BUCKET}/{uuid4().hex}"
    environment = {
        "kind": "kubernetes",
        "store": f"{base}/models",
        "pipeline_root": f"{base}/runs",
        "storage_endpoint": "http://inside:1",
        "storage_endpoint_outside": bucket_server,
        "images": IMAGES,
        "kfp": {"endpoint": site.server.url},
    }
    (tmp_path / "environment.yaml").write_text(yaml.safe_dump(environment))
    retention = {"versions": 1, "runs": 1, "younger_than": "30d"}
    config = {"name": "digits", "data": {"kind": "digits", "scale": 16.0}, "retention": retention}
    (tmp_path / "digits.yaml").write_text(yaml.safe_dump(config))
    home = tmp_path / "home"
    (home / "runs").mkdir(parents=True)
    (home / "cache").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELYARD_HOME", str(home))
    return Yard(tmp_path / "digits.yaml", tmp_path / "environment.yaml", home, kubernetes, site, schedules)


@pytest.fixture
def publish(yard: Yard, tmp_path: Path) -> Callable[..., int]:
    return lambda run, **config: yard.publish(run, tmp_path, **config)
