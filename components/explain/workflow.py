"""The Argo Workflow of a run on Kubeflow Pipelines: its pods, by step.

A task of the pipeline is a node, and the pod in it, or the pods of its attempts, are called `executor`.
Before each task, and before each group of tasks, runs a driver, a pod of Kubeflow Pipelines itself.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from modelyard.components.explain.explanation import EXIT_TASK
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.pod_problem import CREATE_REASONS, PULL_REASONS

ENDED_BADLY = ("Failed", "Error")
DRIVER = "-driver"
ATTEMPT = re.compile(r"\(\d+\)$")  # where the controller has a retry strategy for every template
STOPPED = ("Terminate", "Stop")
BLOCKED = ("Unschedulable", *PULL_REASONS, *CREATE_REASONS)
NEVER_STARTED = "Pod failed before main container starts due to "
NODE_NAME = "workflows.argoproj.io/node-name"


def task_of(pod: str, parent: str) -> tuple[str, bool]:
    """Return the task that a pod works for, and whether it is the driver that goes before it.

    Args:
        pod: the displayed name of its node.
        parent: that of the node around it.
    """
    name = ATTEMPT.sub("", pod)
    if name.endswith(DRIVER):
        return name.removesuffix(DRIVER), True
    return ATTEMPT.sub("", parent), False


@dataclass(frozen=True)
class PodNode:
    """One pod of a run.

    `step` is the task that it belongs to. `driver` says that it is not the task's own, but one of Kubeflow
    Pipelines. `phase` is Pending, Running, Succeeded, Failed, Error or Omitted; `started` and `finished` are
    ISO 8601 times, empty while there are none; `host` is the node of the cluster, empty until one takes it.
    """

    step: str
    driver: bool
    pod: str
    phase: str
    message: str
    started: str
    finished: str
    host: str = ""

    @property
    def ended_badly(self) -> bool:
        """Whether it failed."""
        return self.phase in ENDED_BADLY

    @property
    def blocked_by(self) -> str:
        """Kubernetes' reason why it may never start, which Argo writes before the message; empty if none."""
        begun = self.phase != "Pending" and not self.message.startswith(NEVER_STARTED)
        reason = self.message.removeprefix(NEVER_STARTED).partition(":")[0]
        return reason if not begun and reason in BLOCKED else ""


class Workflow:
    """A Workflow as its API gives it, or as Kubeflow Pipelines kept it."""

    def __init__(self, manifest: Json) -> None:
        self._manifest = manifest
        self._nodes: dict[str, Json] = manifest.get("status", {}).get("nodes") or {}

    @property
    def name(self) -> str:
        """Its name, with which those of its pods begin."""
        return str(self._manifest["metadata"]["name"])

    @property
    def phase(self) -> str:
        """Pending, Running, Succeeded, Failed or Error."""
        return str(self._manifest.get("status", {}).get("phase") or "Pending")

    @property
    def ended(self) -> bool:
        """Whether nothing of it goes on."""
        return self.phase in ("Succeeded", *ENDED_BADLY)

    @property
    def message(self) -> str:
        """What it says of itself as a whole."""
        return str(self._manifest.get("status", {}).get("message") or "")

    @property
    def overran(self) -> int | None:
        """The seconds that it may take, if they were over before it ended."""
        seconds = int(self._manifest.get("spec", {}).get("activeDeadlineSeconds") or 0)
        times = [
            node[key] for node in self._nodes.values() for key in ("startedAt", "finishedAt") if node.get(key)
        ]
        if not seconds or not times:
            return None
        took = datetime.fromisoformat(max(times)) - datetime.fromisoformat(min(times))
        return seconds if took.total_seconds() >= seconds else None

    @property
    def terminated(self) -> bool:
        """Whether somebody ended it: as Argo does, or by a deadline of 0, as Kubeflow Pipelines does."""
        spec = self._manifest.get("spec", {})
        return spec.get("shutdown") in STOPPED or spec.get("activeDeadlineSeconds") == 0

    def pods(self) -> Sequence[PodNode]:
        """Return its pods in the order in which they started."""
        found = [self._pod(key, node) for key, node in self._nodes.items() if node.get("type") == "Pod"]
        return sorted(found, key=lambda one: one.started)

    def failed(self) -> PodNode | None:
        """Return the pod that failed first and for good.

        An attempt that another one follows did not. When the time of a run is over, its exit task fails with
        the rest: it is named last.
        """
        last = {(one.step, one.driver): one for one in self.pods()}
        bad = [one for one in last.values() if one.ended_badly and not self._goes_on(one)]
        return min(bad, key=lambda one: (one.step == EXIT_TASK, one.finished), default=None)

    def waiting(self) -> PodNode | None:
        """Return the first pod that has not begun its work."""
        return next((one for one in self.pods() if one.phase == "Pending"), None)

    def working(self) -> PodNode | None:
        """Return the last pod that is at work."""
        return next((one for one in reversed(self.pods()) if one.phase == "Running"), None)

    def own(self, step: str) -> PodNode | None:
        """Return the last pod of a step itself; None when it did not run, or came from the cache."""
        pods = [one for one in self.pods() if one.step == step and not one.driver]
        return pods[-1] if pods else None

    def cached(self, step: str) -> bool:
        """Say whether a step's outputs came from the cache: its driver ran, and its own pod was left out."""
        left_out = [node for node in self._nodes.values() if node.get("type") == "Skipped"]
        return any(self._pod("", node).step == step for node in left_out)

    def _pod(self, key: str, node: Json) -> PodNode:
        name = str(node.get("displayName", key))
        step, driver = task_of(name, str(self._task(node).get("displayName", name)))
        return PodNode(
            step=step,
            driver=driver,
            pod=self._pod_name(key, node),
            phase=str(node.get("phase", "Pending")),
            message=str(node.get("message") or ""),
            started=str(node.get("startedAt") or ""),
            finished=str(node.get("finishedAt") or ""),
            host=str(node.get("hostNodeName") or ""),
        )

    def _task(self, node: Json) -> Json:
        """Return the node of the task that a pod works for."""
        return self._nodes.get(str(node.get("boundaryID")), {})

    def _pod_name(self, key: str, node: Json) -> str:
        """Return a pod's name as Argo makes it: workflow, template, and the number in the node's id."""
        return "-".join(filter(None, (self.name, node.get("templateName"), key.rpartition("-")[2])))

    def _goes_on(self, pod: PodNode) -> bool:
        """Say whether the task of a pod has not ended: there will be another attempt."""
        tasks = (node for node in self._nodes.values() if node.get("displayName") == pod.step)
        return any(node.get("phase") == "Running" for node in tasks)


def node_of(pod: Json) -> PodNode:
    """Return a pod as the node of its Workflow, whose path is in its annotations: `….train.executor`."""
    meta = pod["metadata"]
    *_, parent, name = ("", *str(meta.get("annotations", {}).get(NODE_NAME, meta["name"])).split("."))
    step, driver = task_of(name, parent or name)
    return PodNode(step, driver, meta["name"], pod["status"].get("phase", "Pending"), "", "", "")
