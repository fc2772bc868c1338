"""A model on a cluster that is a few objects in memory, with a recorded pod of a real one."""

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Golden, Signature
from modelyard.components.deploy import heartbeat, objects, rollout
from modelyard.components.deploy.serving_platform import ServingPlatform
from modelyard.components.deploy.settings import Rollout, Target
from modelyard.components.deploy.verification import PinnedVersion
from modelyard.components.kubernetes import cluster as kubernetes
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store
from tests.published import publish as publish_version

RECORDED = Path(__file__).parents[1] / "kubernetes" / "recorded"
SIGNATURE = Signature(shape=(1,), dtype="float32", classes=("no", "yes"))
METRICS = 'modelyard_requests_total{{code="200",traffic="client"}} {}\n'


class Cluster:
    """As much of a Cluster as a rollout asks for; its pods have answered one more request at each look.

    A Deployment's only pod is there at once. Pods of the `broken` versions are refused; then the earlier one
    stays, as in a rolling update. Pods whose image is `wrong` answer otherwise than evaluate saw.
    """

    namespace, inside, nodes = "serving", False, ()

    def __init__(self) -> None:
        self.pods: list[Any] = []
        self.objects: dict[str, Any] = {}
        self.broken: set[int] = set()
        self.wrong: set[str] = set()
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
        if manager == heartbeat.HEARTBEAT_MANAGER:
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

    def _run(self, deployment: Any) -> None:
        name, labels = deployment["metadata"]["name"], deployment["metadata"]["labels"]
        if objects.version(deployment) in self.broken:
            said = f'pods "{name}" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1'
            refusal = {"type": "ReplicaFailure", "status": "True", "message": f"{said}, limited: pods=1"}
            deployment["status"] = {"observedGeneration": 1, "conditions": [refusal]}
            return
        one = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), 1)
        deployment["status"] = {"observedGeneration": 1, **one}
        pod = Pod(f"{name}-{objects.version(deployment)}").json
        pod["metadata"]["labels"] = labels
        pod["spec"]["containers"][0]["image"] = objects.image(deployment)
        self._of[name] = pod

    def events(self, _of: Any) -> Any:
        return []

    def proxy_request(self, _kind: str, name: str, _port: int, method: str, *_: Any) -> tuple[int, bytes]:
        self.answered += 1
        if method == "POST":
            wrong = {pod["metadata"]["name"] for pod in self._of.values() if _image(pod) in self.wrong}
            return 200, b'{"predictions": [[0.3]]}' if name in wrong else b'{"predictions": [[1.0]]}'
        return 200, METRICS.format(self.answered).encode()


def _image(pod: Any) -> str:
    return str(pod["spec"]["containers"][0]["image"])


class Pod:
    """The recorded pod of a server that ended twice, and what becomes of it."""

    def __init__(self, name: str = "digits-candidate-1") -> None:
        self.json = json.loads((RECORDED / "crash-loop.json").read_text())["pod"]
        labels = {objects.NAME: "digits", objects.PART: "modelyard"}
        labels |= {objects.TRACK: "candidate", objects.VERSION: "2"}
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
    monkeypatch.setattr(kubernetes, "PAUSE", 0.0)
    return Cluster()


@pytest.fixture
def pod(cluster: Cluster) -> Pod:
    """The candidate's only pod; it is ready, and ended twice before."""
    made = Pod()
    cluster.pods.append(made.json)
    return made


@pytest.fixture
def platform(cluster: Any, clock: Clock) -> ServingPlatform:
    models: Any = None
    return ServingPlatform(
        name="digits",
        cluster=cluster,
        models=models,
        store="{}",
        serving=lambda _: {},
        rollout=Rollout(watch_seconds=0.0, min_requests=3, ready_timeout=100.0),
        target=Target(kind="kubernetes", image="serve:1"),
        log=lambda _: None,
        now=clock.now,
        sleep=clock.sleep,
    )


@pytest.fixture
def logged(platform):
    sentences = []
    platform.log = sentences.append
    return sentences


@pytest.fixture
def on_log(platform):
    """Let something happen when a line is logged that begins with a word."""

    def arrange(word, action):
        platform.log = lambda line: action() if line.startswith(word) else None

    return arrange


@pytest.fixture
def version(platform, tmp_path):
    """Publish a version in a real store, and return it."""
    platform.models = open_store(Store(url=f"file://{tmp_path}/models"))
    model, requests = tmp_path / "model.onnx", tmp_path / "golden.json"
    model.write_bytes(b"onnx")

    def publish(answer=1.0, count=1):
        """Publish one; evaluate saw `answer` to each of `count` golden requests."""
        golden = Golden(instances=[[0]] * count, predictions=[[answer]] * count)
        artifacts.write(requests, golden)
        number = publish_version(
            platform.models, "digits", {file.name: file for file in (model, requests)}, SIGNATURE
        )
        return PinnedVersion(number, platform.models.digest("digits", number), golden)

    return publish


@pytest.fixture
def deploy(platform):
    return lambda served: rollout.roll_out(platform, served, None, "better", "test")


@pytest.fixture
def state(platform):
    """Return the champion, what stable serves, the candidate, and whether clients reach stable alone."""

    def look():
        champion, stable = platform.models.champion("digits"), platform.deployment("stable")
        service, candidate = platform.service(), platform.deployment("candidate")
        return (
            champion.version,
            objects.version(stable) if stable else None,
            objects.version(candidate) if candidate else None,
            service is None or objects.TRACK in service["spec"]["selector"],
        )

    return look
