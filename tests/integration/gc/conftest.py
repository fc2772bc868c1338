"""A bucket, fake API servers of Kubernetes and Kubeflow Pipelines, and local runs."""

import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
import yaml

from modelyard.components.artifacts import write
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.objects import Objects
from modelyard.components.store.storage import open_objects
from modelyard.pipelines.config.config import Config, load
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.maintenance.garbage_collection import GarbageCollector, Removable
from modelyard.pipelines.runners.pods.launcher import LaunchConfig
from tests.http_server import Handler, serve
from tests.integration.conftest import BUCKET
from tests.integration.store.conftest import create_manifest
from tests.kubeconfig import use_cluster

DAY = 86400.0
LATER = 40 * DAY


class FakeApiServers:
    """Fake API servers of Kubernetes and Kubeflow Pipelines with the objects of a test."""

    def __init__(self) -> None:
        self.deployments: list[Any] = []
        self.pods: list[Any] = []
        self.runs: list[Any] = []
        self.schedules: list[Any] = []
        self.url = ""

    @contextmanager
    def run(self) -> Iterator[None]:
        servers = self

        class ApiServer(Handler):
            def handle_request(self) -> None:
                url = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(url.query).items()}
                result = servers.find_objects(url.path, query)
                body = json.dumps(result or {"message": "not found"}).encode()
                self.respond(200 if result else 404, body, content_type="application/json")

        with serve(ApiServer) as self.url:
            yield

    def find_objects(self, path: str, query: dict[str, str]) -> Any:
        if path.endswith("/healthz"):
            return {"multi_user": False}
        if path.endswith("/v2beta1/recurringruns"):
            return {"recurringRuns": self.schedules}
        if path.endswith("/v2beta1/runs"):
            states = {predicate["string_value"] for predicate in json.loads(query["filter"])["predicates"]}
            return {"runs": [run for run in self.runs if run["state"] not in states]}
        folder, _, name = path.rpartition("/")
        if folder.endswith("/deployments"):
            return next((item for item in self.deployments if item["metadata"]["name"] == name), None)
        objects = {"pods": self.pods}.get(name)
        if objects is None:
            return None
        pairs = [pair.partition("=") for pair in query.get("labelSelector", "").split(",")]
        labels = [(item, item["metadata"]["labels"]) for item in objects]
        return {
            "items": [item for item, present in labels if all(_has_label(present, *pair) for pair in pairs)]
        }

    def serve(self, name: str, version: int) -> None:
        labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "modelyard"}
        labels |= {"modelyard.dev/version": str(version), "modelyard.dev/track": "stable"}
        template = {"metadata": {}, "spec": {"containers": [{"image": "serve"}]}}
        metadata = {"name": f"{name}-stable", "labels": labels}
        self.deployments.append({"metadata": metadata, "spec": {"template": template}})

    def run_pod(self, run: str, phase: str = "Running") -> None:
        labels = {"modelyard.dev/run": run, "app.kubernetes.io/component": "step"}
        self.pods.append({"metadata": {"name": f"{run}-train", "labels": labels}, "status": {"phase": phase}})

    def submit(self, state: str = "RUNNING", **parameters: str) -> Any:
        run = {"run_id": str(uuid4()), "display_name": f"run-{len(self.runs)}", "state": state}
        created = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        self.runs.append({**run, "created_at": created, "runtime_config": {"parameters": parameters}})
        return self.runs[-1]

    def schedule(self, **parameters: str) -> None:
        self.schedules.append({"display_name": "digits", "runtime_config": {"parameters": parameters}})


def _has_label(labels: dict[str, str], key: str, equals: str, value: str) -> bool:
    return key in labels and (not equals or labels[key] == value)


@dataclass
class Workspace:
    """A configuration, an environment and local runs. By default, `gc` runs 40 days later."""

    config_file: Path
    environment_file: Path
    home: Path
    servers: FakeApiServers

    @property
    def environment(self) -> Environment:
        return load_environment(str(self.environment_file), environ={})

    def config(self, *overrides: str) -> Config:
        return load(self.config_file, overrides, environ={}, store=self.environment.model_store())

    @property
    def models(self) -> ModelStore:
        return open_store(self.config().store)

    @property
    def store(self) -> Objects:
        return open_objects(self.config().store)

    @property
    def bucket(self) -> Objects:
        return open_objects(self.environment.artifact_store())

    def find(
        self, *overrides: str, later: float = LATER, environment: Environment | None = None
    ) -> dict[str, Removable]:
        environment = environment or self.environment
        now = time.time() + later
        collector = GarbageCollector(self.config(*overrides), environment, self.home, now)
        return {item.name: item for item in collector.find()}

    def reasons(self, *overrides: str, later: float = LATER) -> dict[str, str | None]:
        return {name: item.keep_reason for name, item in self.find(*overrides, later=later).items()}

    def gc(self, *overrides: str, later: float = LATER) -> tuple[set[str], set[str]]:
        """Remove unused objects; return the names of those that were removed, and of those that were not."""
        unused = {
            name: item
            for name, item in self.find(*overrides, later=later).items()
            if item.keep_reason is None
        }
        removed = {name for name, item in unused.items() if item.remove()}
        return removed, unused.keys() - removed

    def publish(self, run: str, name: str = "digits", **config: Any) -> int:
        """Publish the version of a run with a configuration."""
        model = self.config_file.with_name("model.onnx")
        model.write_bytes(b"onnx" * 1000)
        version = self.models.reserve(name, run)
        manifest = create_manifest(name, version, run, {"model.onnx": model})
        manifest = manifest.model_copy(update={"config": config})
        self.models.publish(name, version, {"model.onnx": model}, manifest)
        return version

    def publish_runs(self, count: int) -> None:
        for number in range(count):
            self.publish(f"run {number}")

    def promote(self, *versions: int) -> None:
        for version in versions:
            self.models.promote("digits", version, reason="better", by="test")

    def upload(self, key: str, data: bytes = b"data") -> str:
        self.store.create_from_file(key, io.BytesIO(data), len(data))
        return key

    def run(self, name: str, uses: tuple[str, ...] = (), pods: bool = False) -> Path:
        """Create an ended local run with a cached artifact."""
        run = self.home / "runs" / name
        (run / "artifacts").mkdir(parents=True)
        (run / "artifacts/model.onnx").write_bytes(b"onnx" * 100)
        (run / "lifeline").touch()
        summary = {"run": name, "model": "digits", "state": "succeeded", "steps": [], "seconds": 1.0}
        (run / "run.json").write_text(json.dumps({**summary, "store": "s", "reused_runs": uses}))
        uri = f"{run}/artifacts"
        if pods:
            uri = f"{self.environment.pipeline_root}/{name}"
            launch = LaunchConfig(
                run=name,
                namespace="modelyard-runs",
                pods={},
                local_root=str(run),
                bucket_root=uri,
                endpoint=None,
                endpoint_in_pods=None,
                start_timeout=60,
                retries={},
            )
            write(run / "pods.json", launch)
            self.bucket.create_from_file(f"{name}/train/model.onnx", io.BytesIO(b"onnx"), 4)
        (self.home / f"cache/{name}.json").write_text(json.dumps({"model": {"uri": f"{uri}/train/model"}}))
        return run

    def cached(self) -> list[str]:
        return sorted(path.stem for path in (self.home / "cache").glob("*.json"))

    def local_runs(self) -> list[str]:
        return sorted(path.name for path in (self.home / "runs").iterdir())


@pytest.fixture
def servers() -> Iterator[FakeApiServers]:
    servers = FakeApiServers()
    with servers.run():
        yield servers


@pytest.fixture
def workspace(
    tmp_path: Path, emulator: str, servers: FakeApiServers, monkeypatch: pytest.MonkeyPatch
) -> Workspace:
    use_cluster(monkeypatch, tmp_path, servers.url)
    base = f"gs://{BUCKET}/{uuid4().hex}"
    environment = {
        "kind": "kubernetes",
        "store": f"{base}/models",
        "pipeline_root": f"{base}/runs",
        "storage_endpoint": "http://inside:1",
        "storage_endpoint_outside": emulator,
        "kfp": {"endpoint": servers.url},
    }
    (tmp_path / "environment.yaml").write_text(yaml.safe_dump(environment))
    retention = {"versions": 1, "runs": 1, "younger_than": "30d"}
    config = {"name": "digits", "data": {"kind": "digits", "scale": 16.0}, "retention": retention}
    (tmp_path / "digits.yaml").write_text(yaml.safe_dump(config))
    home = tmp_path / "home"
    for part in ("runs", "cache"):
        (home / part).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELYARD_HOME", str(home))
    return Workspace(tmp_path / "digits.yaml", tmp_path / "environment.yaml", home, servers)
