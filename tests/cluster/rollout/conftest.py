"""A namespace for rollouts on the cluster, a bucket for its pods, and tiny models."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Golden, Outcome
from modelyard.components.deploy.platforms import objects
from modelyard.components.deploy.platforms.deployment import DeploymentPlatform
from modelyard.components.deploy.rollout import RolloutController
from modelyard.components.deploy.settings import Resources, Rollout, Target
from modelyard.components.deploy.verification import pin_version
from modelyard.components.kubernetes.cluster import connect
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.settings import Store
from tests.cluster.rollout.bucket import BUCKET, Bucket
from tests.cluster.rollout.load import Load
from tests.cluster.rollout.tiny_model import write_model
from tests.versions import classifier_signature, publish

DARK, BRIGHT = [0.0] * 4, [1.0] * 4
SIGNATURE = classifier_signature((4,), "float32", ("dark", "bright"))
QUICK = Rollout(
    bake_seconds=2.0,
    min_requests=40,
    latency_margin=1.0,  # tolerates a machine that stalls
    ready_timeout=60.0,
    store_timeout=60.0,
)
LONG_BAKE_SECONDS = 8.0  # clients send enough requests before golden requests are sent
TOLERANT = ("--set", f"rollout.latency_margin={QUICK.latency_margin:g}", "--set", "rollout.min_requests=20")
MODELYARD = str(Path(sys.executable).parent / "modelyard")


@dataclass
class Workspace:
    """A model on the cluster with its store, its clients and the commands of a user."""

    platform: DeploymentPlatform
    models: ModelStore
    scratch: Path
    log_lines: list[str]

    @property
    def name(self) -> str:
        return self.platform.name

    def publish(
        self,
        kind: str = "plain",
        recorded: float = 0.0,
        golden: bool = True,
        onnx: bytes | None = None,
        config: dict[str, Any] | None = None,
    ) -> int:
        """Publish a version; golden.json has `recorded` as the dark example's probability of `bright`."""
        folder = self.scratch / uuid4().hex
        folder.mkdir()
        if onnx is None:
            write_model(folder / "model.onnx", kind)
        else:
            (folder / "model.onnx").write_bytes(onnx)
        if golden:
            predictions = [[1 - recorded, recorded]]
            requests = Golden(problem="classification", instances=[DARK], predictions=predictions)
            artifacts.write(folder / "golden.json", requests)
        files = {path.name: path for path in folder.iterdir()}
        return publish(self.models, self.name, files, SIGNATURE, config=config or {})

    def deploy(
        self, version: int, platform: DeploymentPlatform | None = None, expected: int | None = None
    ) -> Outcome:
        """Roll out a version as the step deploy does."""
        pin = pin_version(self.models, self.name, version)
        return self.controller(platform).roll_out(pin, expected, "better")

    def controller(self, platform: DeploymentPlatform | None = None) -> RolloutController:
        """Return the controller of rollouts."""
        platform = platform or self.platform
        return RolloutController(platform, self.models, platform.rollout, "test", platform.log)

    def modelyard(self, *arguments: str) -> list[str]:
        """Return the command line of a command on this cluster."""
        target, store = self.platform.target, Store.from_json(self.platform.store)
        environment = {
            "kind": "kubernetes",
            "images": {"serve": target.image},
            "store": store.url,
            "pipeline_root": f"gs://{BUCKET}/runs",
            "storage_endpoint": store.endpoint,
            "start_timeout": 60,
            "serving": {
                "namespace": target.namespace,
                "cpu": target.resources.cpu,
                "memory": target.resources.memory,
            },
        }
        path = self.scratch / "workspace.yaml"
        path.write_text(json.dumps(environment))
        return [MODELYARD, *arguments, "-e", str(path)]

    def run(self, *arguments: str, code: int = 0) -> Any:
        """Run a command with `--output json` and return its output."""
        command = [*self.modelyard(*arguments), "--output", "json"]
        process = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
        assert process.returncode == code, process.stdout + process.stderr
        return json.loads(process.stdout)

    def platform_with(self, **changes: Any) -> DeploymentPlatform:
        """Return the platform with another target or rollout."""
        target = {key: changes.pop(key) for key in list(changes) if key in Target.model_fields}
        return replace(
            self.platform,
            target=self.platform.target.model_copy(update=target),
            rollout=self.platform.rollout.model_copy(update=changes),
        )

    @property
    def address(self) -> tuple[str, int]:
        service = self.platform.cluster.get("Service", self.name)
        assert service
        return service["spec"]["clusterIP"], 8501

    def load(self, instance: list[float] = DARK) -> Load:
        return Load(self.address, f"/v1/models/{self.name}:predict", instance)

    def stable(self) -> int:
        """Return the version of stable."""
        deployment = self.platform.deployment("stable")
        assert deployment
        return int(deployment["metadata"]["labels"]["modelyard.dev/version"])

    def wait_for_other_pods(self, version: int) -> None:
        """Wait until the servers of all other versions have ended."""
        deadline = time.monotonic() + 240
        servers = f"app.kubernetes.io/name={self.name}"
        while {objects.version(pod) for pod in self.platform.cluster.list_objects("Pod", servers)} != {
            version
        }:
            assert time.monotonic() < deadline, "pods of other versions do not end"
            time.sleep(0.5)

    def wait_until_serving(self) -> None:
        """Wait until the Service has no endpoint of a killed server, which takes up to two seconds."""
        deadline, load = time.monotonic() + 120, self.load()
        while not all(load.send_once() for _ in range(30)):
            assert time.monotonic() < deadline, load.failed[-1]

    def assert_settled(self, version: int) -> None:
        """Assert that pointer, stable and Service agree, without a candidate."""
        champion = self.models.champion(self.name)
        assert champion
        assert champion.version == version
        assert self.stable() == version
        candidate = self.platform.deployment("candidate")
        assert candidate is None or "deletionTimestamp" in candidate["metadata"]
        service = self.platform.cluster.get("Service", self.name)
        assert service
        assert service["spec"]["selector"]["modelyard.dev/track"] == "stable"

    def log(self) -> str:
        return "\n".join(self.log_lines)


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    bucket = Bucket(tmp_path_factory.mktemp("bucket"))
    yield bucket
    bucket.stop()


@pytest.fixture(scope="session")
def namespace(kubectl: Callable[..., str]) -> Iterator[str]:
    """A namespace with the Pod Security of the servers' namespace."""
    name = f"rollout-{uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    kubectl("create", "serviceaccount", "modelyard-serve", "-n", name)
    kubectl("create", "quota", "memory", "--hard=requests.memory=100Gi", "-n", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def new_workspace(
    bucket: Bucket, images: dict[str, str], namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Workspace]:
    def new() -> Workspace:
        store = Store(url=f"gs://{BUCKET}/store", endpoint=bucket.url)
        models, log_lines = open_store(store), list[str]()
        platform = DeploymentPlatform(
            name=f"m{uuid4().hex[:6]}",
            models=models,
            cluster=connect(namespace),
            store=store.to_json(),
            serving=lambda _: {},
            rollout=QUICK,
            target=Target(
                platform="deployment",
                namespace=namespace,
                image=images["serve"],
                resources=Resources(cpu="50m", memory="256Mi"),
                start_timeout=60.0,
            ),
            log=log_lines.append,
        )
        return Workspace(platform, models, tmp_path_factory.mktemp("workspace"), log_lines)

    return new


@pytest.fixture
def workspace(new_workspace: Callable[[], Workspace]) -> Workspace:
    return new_workspace()


@pytest.fixture(scope="module")
def served(new_workspace: Callable[[], Workspace]) -> Workspace:
    """A model whose version 1 is served."""
    workspace = new_workspace()
    workspace.deploy(workspace.publish())
    return workspace
