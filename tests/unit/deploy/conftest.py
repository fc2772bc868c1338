"""A model on a platform in memory, and on a cluster in memory with a recorded pod."""

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Golden
from modelyard.components.deploy.platforms import deployment, objects
from modelyard.components.deploy.platforms.deployment import DeploymentPlatform
from modelyard.components.deploy.rollout import RolloutController
from modelyard.components.deploy.settings import Rollout, Target
from modelyard.components.deploy.verification import PinnedVersion
from modelyard.components.kubernetes import cluster as kubernetes
from modelyard.components.kubernetes.cluster import ProxiedServer
from modelyard.components.store.models import ModelStore
from tests import versions
from tests.unit.deploy.memory import MemoryObjects, MemoryPlatform, World

RECORDED = Path(__file__).parents[1] / "kubernetes" / "recorded"
SIGNATURE = versions.classifier_signature((1,), "float32", ("no", "yes"))
METRICS = 'modelyard_request_seconds_count{{traffic="client"}} {}\n'


class Cluster:
    """The methods of Cluster that a rollout uses.

    A pod has one more request at each read of its metrics. The only pod of a Deployment exists immediately.
    Pods of `broken` versions are refused and the earlier pod remains, as in a rolling update.
    """

    namespace, in_cluster, nodes = "serving", False, ()

    def __init__(self) -> None:
        self.pods: list[Any] = []
        self.objects: dict[str, Any] = {}
        self.broken: set[int] = set()
        self.request_count = 0
        self.on_list: Callable[[], None] = lambda: None
        self.deployment_pods: dict[str, Any] = {}
        self._writes = itertools.count(1)

    def list_objects(self, kind: str, labels: str) -> Any:
        self.on_list()
        if kind != "Pod":
            return []
        desired = dict(label.split("=") for label in labels.split(","))
        pods = [*self.pods, *self.deployment_pods.values()]
        return [pod for pod in pods if desired.items() <= pod["metadata"]["labels"].items()]

    def get(self, kind: str, name: str) -> Any:
        return copy.deepcopy(self.objects.get(f"{kind} {name}"))

    def apply(self, desired: Any, manager: str) -> Any:
        """Apply as the API server does: check the resourceVersion, and do not write without changes."""
        key = f"{desired['kind']} {desired['metadata']['name']}"
        observed, written = self.objects.get(key), copy.deepcopy(desired)
        for field in ("uid", "resourceVersion"):
            expected = written["metadata"].pop(field, None)
            if expected and (observed is None or observed["metadata"][field] != expected):
                return None
        if manager == deployment.HEARTBEAT_MANAGER:
            observed["metadata"]["annotations"] |= written["metadata"]["annotations"]
            observed["metadata"]["resourceVersion"] = str(next(self._writes))
            return self.get(*key.split())
        if observed and all(
            written.get(part) == observed["desired"].get(part) for part in ("metadata", "spec")
        ):
            return self.get(*key.split())
        uid = observed["metadata"]["uid"] if observed else f"u{next(self._writes)}"
        written["desired"] = copy.deepcopy(written)
        written["metadata"] |= {"uid": uid, "resourceVersion": str(next(self._writes)), "generation": 1}
        self.objects[key] = written
        if written["kind"] == "Deployment":
            self._run(written)
        return self.get(*key.split())

    def delete(self, kind: str, observed: Any) -> bool:
        name = observed["metadata"]["name"]
        self.deployment_pods.pop(name, None)
        return bool(self.objects.pop(f"{kind} {name}", None))

    def _run(self, written: Any) -> None:
        name, labels = written["metadata"]["name"], written["metadata"]["labels"]
        if objects.version(written) in self.broken:
            message = f'pods "{name}" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1'
            refusal = {"type": "ReplicaFailure", "status": "True", "message": f"{message}, limited: pods=1"}
            written["status"] = {"observedGeneration": 1, "conditions": [refusal]}
            return
        counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), 1)
        written["status"] = {"observedGeneration": 1, **counts}
        pod = Pod(f"{name}-{objects.version(written)}").json
        pod["metadata"]["labels"] = labels
        self.deployment_pods[name] = pod

    def list_events(self, _of: Any) -> Any:
        return []

    def proxy_request(self, _server: ProxiedServer, method: str, *_: Any) -> tuple[int, bytes]:
        self.request_count += 1
        return 200, b'{"predictions": [[1.0]]}' if method == "POST" else METRICS.format(
            self.request_count
        ).encode()


class Pod:
    """The recorded pod of a server that ended twice, and its later states."""

    def __init__(self, name: str = "digits-candidate-1") -> None:
        self.json = json.loads((RECORDED / "crash-loop.json").read_text())["pod"]
        labels = {objects.NAME_LABEL: "digits", objects.PART_OF_LABEL: "modelyard"}
        labels |= {objects.TRACK_LABEL: "candidate", objects.VERSION_LABEL: "2"}
        self.json["metadata"] |= {"name": name, "uid": name, "labels": labels}
        self.set_running(restarts=2)

    def set_running(self, *, restarts: int, ready: bool = True) -> None:
        status = self.json["status"]
        status["phase"] = "Running"
        status["conditions"] = [{"type": "Ready", "status": str(ready)}]
        status["containerStatuses"][0] |= {"state": {"running": {}}, "restartCount": restarts}
        if not restarts:
            status["containerStatuses"][0]["lastState"] = {}

    def set_out_of_memory(self, *, restarts: int, ready: bool) -> None:
        """Set the state after a restart because of too little memory."""
        self.set_running(restarts=restarts, ready=ready)
        ended = {"exitCode": 137, "reason": "OOMKilled"}
        self.json["status"]["containerStatuses"][0]["lastState"] = {"terminated": ended}


class Clock:
    """A clock that advances during sleeps, and by 1 ms at each read; each sleep calls `during`."""

    def __init__(self) -> None:
        self.time = 0.0
        self.during: Callable[[], None] = lambda: None

    def now(self) -> float:
        self.time += 0.001
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.during()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(kubernetes, "RETRY_INTERVAL", 0.0)
    return Cluster()


@pytest.fixture
def pod(cluster: Cluster) -> Pod:
    """The candidate's only pod; it is ready, and ended twice before."""
    pod = Pod()
    cluster.pods.append(pod.json)
    return pod


def intercept(owner: Any, name: str, before: Any = lambda: None, after: Any = lambda: None) -> None:
    """Call a function before or after the next call of a method."""
    method = getattr(owner, name)

    def intercepted(*arguments: Any, **options: Any) -> Any:
        setattr(owner, name, method)
        before()
        result = method(*arguments, **options)
        after()
        return result

    setattr(owner, name, intercepted)


ROLLOUT = Rollout(bake_seconds=0.0, min_requests=3, ready_timeout=100.0)


@pytest.fixture
def platform(cluster: Any, clock: Clock) -> DeploymentPlatform:
    return DeploymentPlatform(
        name="digits",
        models=ModelStore(MemoryObjects()),
        cluster=cluster,
        target=Target(platform="deployment", image="serve:1"),
        store="{}",
        serving=lambda _: {},
        rollout=ROLLOUT,
        log=lambda _: None,
        now=clock.now,
        sleep=clock.sleep,
    )


@pytest.fixture
def claim(platform):
    """Return a function that claims a candidate of a version for a rollout and returns its servers."""

    def claim_version(token="token", version=2):  # noqa: S107
        servers = platform.describe_servers(version, "d" * 64)
        platform.claim(token, servers)
        return servers

    return claim_version


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def models() -> ModelStore:
    objects: Any = MemoryObjects()
    return ModelStore(objects)


@pytest.fixture
def new_controller(world, models, clock):
    """Return a function that creates the controller of another process."""

    def new(platform=None, store=None):
        platform, store = platform or MemoryPlatform(world), store or models
        return RolloutController(platform, store, ROLLOUT, "test", lambda _: None, clock.now, clock.sleep)

    return new


@pytest.fixture
def controller(new_controller) -> RolloutController:
    return new_controller()


@pytest.fixture
def logged(controller):
    lines = []
    controller.log = lines.append
    return lines


@pytest.fixture
def on_log(controller):
    """Return a function that arranges a call when a line is logged that begins with a word."""

    def arrange(word, action):
        controller.log = lambda line: action() if line.startswith(word) else None

    return arrange


@pytest.fixture
def publish(models, tmp_path):
    """Return a function that publishes a version and returns it."""
    model, requests = tmp_path / "model.onnx", tmp_path / "golden.json"
    model.write_bytes(b"onnx")

    def publish_pinned(prediction=1.0, count=1):
        """Publish a version with `count` golden requests and the recorded `prediction`."""
        golden = Golden(problem="classification", instances=[[0]] * count, predictions=[[prediction]] * count)
        artifacts.write(requests, golden)
        files = {file.name: file for file in (model, requests)}
        number = versions.publish(models, "digits", files, SIGNATURE)
        return PinnedVersion(number, models.digest("digits", number), golden)

    return publish_pinned


@pytest.fixture
def deploy(controller):
    return lambda pin: controller.roll_out(pin, None, "better")


@pytest.fixture
def v1(publish, deploy):
    """Version 1, promoted."""
    pin = publish()
    deploy(pin)
    return pin


@pytest.fixture
def promote(models):
    """Return a function that moves only the champion pointer, as `models promote` does."""
    return lambda pin: models.promote("digits", pin.version, reason="manually", by="test")


@pytest.fixture
def state(world, models):
    """Return a function that returns the state of the model.

    The state is the version of the champion, of stable and of the candidate, and whether all traffic goes to
    stable.
    """

    def read_state():
        champion = models.champion("digits")
        tracks = [servers.version if servers else None for servers in (world.stable, world.candidate)]
        return (champion.version if champion else None, *tracks, not world.canary)

    return read_state
