"""A model's place on a cluster that is a few objects in memory, with a recorded pod of a real one."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.deploy import objects
from components.deploy.settings import Rollout, Target
from components.deploy.site import Site

RECORDED = Path(__file__).parents[1] / "kubernetes" / "recorded"
METRICS = 'modelyard_requests_total{{code="200",traffic="client"}} {}\n'


class Cluster:
    """As much of a Cluster as a rollout asks for; its pods have answered one more request at each look."""

    namespace, inside, nodes = "serving", False, ()

    def __init__(self) -> None:
        self.pods: list[Any] = []
        self.objects: dict[str, Any] = {}
        self.answered = 0
        self.look: Callable[[], None] = lambda: None

    def find(self, _kind: str, labels: str) -> list[Any]:
        self.look()
        wanted = dict(label.split("=") for label in labels.split(","))
        return [pod for pod in self.pods if wanted.items() <= pod["metadata"]["labels"].items()]

    def get(self, kind: str, name: str) -> Any:
        return self.objects.get(f"{kind} {name}")

    def apply(self, wanted: Any, _manager: str) -> Any:
        found = copy.deepcopy(wanted)
        found["metadata"] |= {"uid": "u", "resourceVersion": "1", "generation": 1}
        replicas = found["spec"].get("replicas", 1)
        counts = {f"{word}Replicas": replicas for word in ("updated", "available")}
        found["status"] = {"observedGeneration": 1, "replicas": replicas, **counts}
        self.objects[f"{found['kind']} {found['metadata']['name']}"] = found
        return found

    def delete(self, kind: str, seen: Any) -> bool:
        return bool(self.objects.pop(f"{kind} {seen['metadata']['name']}", None))

    def events(self, _of: Any) -> list[Any]:
        return []

    def proxied(self, *_: Any) -> tuple[int, bytes]:
        self.answered += 1
        return 200, METRICS.format(self.answered).encode()


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


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def pod(cluster: Cluster) -> Pod:
    """The candidate's only pod; it is ready, and ended twice before."""
    made = Pod()
    cluster.pods.append(made.json)
    return made


@pytest.fixture
def site(cluster: Any) -> Site:
    models: Any = None
    return Site(
        name="digits",
        cluster=cluster,
        models=models,
        store="{}",
        serving=lambda _: {},
        rollout=Rollout(watch_seconds=0.0, min_requests=3, ready_timeout=100.0),
        target=Target(kind="kubernetes", image="serve:1"),
        say=lambda _: None,
    )
