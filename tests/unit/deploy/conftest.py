"""A model on a platform in memory; and on a cluster that is a few objects in memory, with a recorded pod."""

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
from modelyard.components.store.models import ModelStore
from tests.unit.deploy.memory import MemoryObjects, MemoryPlatform, World
from tests.versions import classifier_signature
from tests.versions import publish as publish_version

RECORDED = Path(__file__).parents[1] / "kubernetes" / "recorded"
SIGNATURE = classifier_signature((1,), "float32", ("no", "yes"))
METRICS = 'modelyard_request_seconds_count{{traffic="client"}} {}\n'


class Cluster:
    """As much of a Cluster as a rollout asks for; its pods have answered one more request at each look.

    A Deployment's only pod is there at once. Pods of the `broken` versions are refused; then the earlier one
    stays, as in a rolling update.
    """

    namespace, in_cluster, nodes = "serving", False, ()

    def __init__(self) -> None:
        self.pods: list[Any] = []
        self.objects: dict[str, Any] = {}
        self.broken: set[int] = set()
        self.answered = 0
        self.look: Callable[[], None] = lambda: None
        self._of: dict[str, Any] = {}
        self._writes = itertools.count(1)

    def list_objects(self, kind: str, labels: str) -> Any:
        self.look()
        if kind != "Pod":
            return []
        wanted = dict(label.split("=") for label in labels.split(","))
        there = [*self.pods, *self._of.values()]
        return [pod for pod in there if wanted.items() <= pod["metadata"]["labels"].items()]

    def get(self, kind: str, name: str) -> Any:
        return copy.deepcopy(self.objects.get(f"{kind} {name}"))

    def apply(self, wanted: Any, manager: str) -> Any:
        """Write as the API server does: over what was seen only, and no write where nothing changes."""
        key = f"{wanted['kind']} {wanted['metadata']['name']}"
        seen, found = self.objects.get(key), copy.deepcopy(wanted)
        for fact in ("uid", "resourceVersion"):
            expected = found["metadata"].pop(fact, None)
            if expected and (seen is None or seen["metadata"][fact] != expected):
                return None
        if manager == deployment.HEARTBEAT_MANAGER:
            seen["metadata"]["annotations"] |= found["metadata"]["annotations"]
            seen["metadata"]["resourceVersion"] = str(next(self._writes))
            return self.get(*key.split())
        if seen and all(found.get(part) == seen["wanted"].get(part) for part in ("metadata", "spec")):
            return self.get(*key.split())
        uid = seen["metadata"]["uid"] if seen else f"u{next(self._writes)}"
        found["wanted"] = copy.deepcopy(found)
        found["metadata"] |= {"uid": uid, "resourceVersion": str(next(self._writes)), "generation": 1}
        self.objects[key] = found
        if found["kind"] == "Deployment":
            self._run(found)
        return self.get(*key.split())

    def delete(self, kind: str, seen: Any) -> bool:
        name = seen["metadata"]["name"]
        self._of.pop(name, None)
        return bool(self.objects.pop(f"{kind} {name}", None))

    def _run(self, found: Any) -> None:
        name, labels = found["metadata"]["name"], found["metadata"]["labels"]
        if objects.version(found) in self.broken:
            said = f'pods "{name}" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1'
            refusal = {"type": "ReplicaFailure", "status": "True", "message": f"{said}, limited: pods=1"}
            found["status"] = {"observedGeneration": 1, "conditions": [refusal]}
            return
        one = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), 1)
        found["status"] = {"observedGeneration": 1, **one}
        pod = Pod(f"{name}-{objects.version(found)}").json
        pod["metadata"]["labels"] = labels
        self._of[name] = pod

    def list_events(self, _of: Any) -> Any:
        return []

    def proxy_request(self, _kind: str, _name: str, _port: int, method: str, *_: Any) -> tuple[int, bytes]:
        self.answered += 1
        return 200, b'{"predictions": [[1.0]]}' if method == "POST" else METRICS.format(
            self.answered
        ).encode()


class Pod:
    """The recorded pod of a server that ended twice, and what becomes of it."""

    def __init__(self, name: str = "digits-candidate-1") -> None:
        self.json = json.loads((RECORDED / "crash-loop.json").read_text())["pod"]
        labels = {objects.NAME_LABEL: "digits", objects.PART_OF_LABEL: "modelyard"}
        labels |= {objects.TRACK_LABEL: "candidate", objects.VERSION_LABEL: "2"}
        self.json["metadata"] |= {"name": name, "uid": name, "labels": labels}
        self.runs(restarts=2)

    def runs(self, *, restarts: int, ready: bool = True) -> None:
        status = self.json["status"]
        status["phase"] = "Running"
        status["conditions"] = [{"type": "Ready", "status": str(ready)}]
        status["containerStatuses"][0] |= {"state": {"running": {}}, "restartCount": restarts}
        if not restarts:
            status["containerStatuses"][0]["lastState"] = {}

    def was_out_of_memory(self, *, restarts: int, ready: bool) -> None:
        """Run again after a container that used too much memory."""
        self.runs(restarts=restarts, ready=ready)
        ended = {"exitCode": 137, "reason": "OOMKilled"}
        self.json["status"]["containerStatuses"][0]["lastState"] = {"terminated": ended}


class Clock:
    """A clock that only goes on while code sleeps, and a moment at each look; `during` happens meanwhile."""

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
    made = Pod()
    cluster.pods.append(made.json)
    return made


ROLLOUT = Rollout(bake_seconds=0.0, min_requests=3, ready_timeout=100.0)


@pytest.fixture
def platform(cluster: Any, clock: Clock) -> DeploymentPlatform:
    return DeploymentPlatform(
        name="digits",
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
def claimed(platform):
    """Claim a candidate of a version for a rollout, and return its servers."""

    def claim(token="mine", version=2):  # noqa: S107
        servers = platform.describe_servers(version, "d" * 64)
        platform.claim(token, servers)
        return servers

    return claim


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def models() -> ModelStore:
    objects: Any = MemoryObjects()
    return ModelStore(objects)


@pytest.fixture
def new_controller(world, models, clock):
    """Return what makes the controller of another process."""

    def new(platform=None, store=None):
        platform, store = platform or MemoryPlatform(world), store or models
        return RolloutController(platform, store, ROLLOUT, "test", lambda _: None, clock.now, clock.sleep)

    return new


@pytest.fixture
def controller(new_controller) -> RolloutController:
    return new_controller()


@pytest.fixture
def logged(controller):
    sentences = []
    controller.log = sentences.append
    return sentences


@pytest.fixture
def on_log(controller):
    """Let something happen when a line is logged that begins with a word."""

    def arrange(word, action):
        controller.log = lambda line: action() if line.startswith(word) else None

    return arrange


@pytest.fixture
def version(models, tmp_path):
    """Publish a version, and return it."""
    model, requests = tmp_path / "model.onnx", tmp_path / "golden.json"
    model.write_bytes(b"onnx")

    def publish(answer=1.0, count=1):
        """Publish one; evaluate saw `answer` to each of `count` golden requests."""
        golden = Golden(problem="classification", instances=[[0]] * count, predictions=[[answer]] * count)
        artifacts.write(requests, golden)
        number = publish_version(models, "digits", {file.name: file for file in (model, requests)}, SIGNATURE)
        return PinnedVersion(number, models.digest("digits", number), golden)

    return publish


@pytest.fixture
def deploy(controller):
    return lambda served: controller.roll_out(served, None, "better")


@pytest.fixture
def promote(models):
    """Move the pointer alone, as `models promote` does."""
    return lambda served: models.promote("digits", served.version, reason="by hand", by="test")


@pytest.fixture
def state(world, models):
    """Return the champion, what stable serves, the candidate, and whether clients reach stable alone."""

    def look():
        champion = models.champion("digits")
        tracks = [one.version if one else None for one in (world.stable, world.candidate)]
        return (champion.version if champion else None, *tracks, not world.canary)

    return look
