"""The Argo Workflow of a run on Kubeflow Pipelines: its pods, by step.

A task of the pipeline is a node; its pod, or the pods of its retries, are named `executor`. A driver, a pod
of Kubeflow Pipelines, runs before each task and each group of tasks.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from modelyard.components.explain.explanation import EXIT_TASK
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.pod_problem import CREATE_REASONS, PULL_REASONS

FAILED_PHASES = ("Failed", "Error")
DRIVER = "-driver"
RETRY_SUFFIX = re.compile(r"\(\d+\)$")  # added if the controller has a retry strategy for all templates
SHUTDOWN_STRATEGIES = ("Terminate", "Stop")
START_PROBLEMS = ("Unschedulable", *PULL_REASONS, *CREATE_REASONS)
NEVER_STARTED = "Pod failed before main container starts due to "
NODE_NAME = "workflows.argoproj.io/node-name"


def parse_task(pod: str, parent: str) -> tuple[str, bool]:
    """Return the task of a pod, and whether the pod is its driver, from the display names of the nodes."""
    name = RETRY_SUFFIX.sub("", pod)
    if name.endswith(DRIVER):
        return name.removesuffix(DRIVER), True
    return RETRY_SUFFIX.sub("", parent), False


@dataclass(frozen=True)
class PodNode:
    """One pod of a run.

    `step` is the task of the pod, `driver` whether the pod is the driver of the task. `phase` is Pending,
    Running, Succeeded, Failed, Error or Omitted. `started_at` and `finished_at` are ISO 8601 times, empty if
    unknown.
    """

    step: str
    driver: bool
    pod: str
    phase: str
    message: str
    started_at: str
    finished_at: str

    @property
    def is_failed(self) -> bool:
        """Whether the pod failed."""
        return self.phase in FAILED_PHASES

    @property
    def start_problem(self) -> str:
        """The Kubernetes reason why the pod may never start, which begins Argo's message; empty if none."""
        started_running = self.phase != "Pending" and not self.message.startswith(NEVER_STARTED)
        reason = self.message.removeprefix(NEVER_STARTED).partition(":")[0]
        return reason if not started_running and reason in START_PROBLEMS else ""


class Workflow:
    """A Workflow from the Kubernetes API, or archived by Kubeflow Pipelines."""

    def __init__(self, manifest: Json) -> None:
        self._manifest = manifest
        self._nodes: dict[str, Json] = manifest.get("status", {}).get("nodes") or {}

    @property
    def name(self) -> str:
        """The name of the Workflow, the prefix of the names of its pods."""
        return str(self._manifest["metadata"]["name"])

    @property
    def phase(self) -> str:
        """Pending, Running, Succeeded, Failed or Error."""
        return str(self._manifest.get("status", {}).get("phase") or "Pending")

    @property
    def ended(self) -> bool:
        """Whether the Workflow ended."""
        return self.phase in ("Succeeded", *FAILED_PHASES)

    @property
    def message(self) -> str:
        """The message in the status of the Workflow."""
        return str(self._manifest.get("status", {}).get("message") or "")

    @property
    def exceeded_deadline(self) -> int | None:
        """The deadline of the Workflow in seconds if it took longer, else None."""
        seconds = int(self._manifest.get("spec", {}).get("activeDeadlineSeconds") or 0)
        times = [
            node[key] for node in self._nodes.values() for key in ("startedAt", "finishedAt") if node.get(key)
        ]
        if not seconds or not times:
            return None
        duration = datetime.fromisoformat(max(times)) - datetime.fromisoformat(min(times))
        return seconds if duration.total_seconds() >= seconds else None

    @property
    def terminated(self) -> bool:
        """Whether the run was cancelled: by Argo's `shutdown`, or by a deadline of 0, which KFP sets."""
        spec = self._manifest.get("spec", {})
        return spec.get("shutdown") in SHUTDOWN_STRATEGIES or spec.get("activeDeadlineSeconds") == 0

    def pods(self) -> Sequence[PodNode]:
        """Return the pods in the order of their start."""
        pods = [self._pod(key, node) for key, node in self._nodes.items() if node.get("type") == "Pod"]
        return sorted(pods, key=lambda pod: pod.started_at)

    def failed_pod(self) -> PodNode | None:
        """Return the pod that failed first, without pods that are retried.

        The exit task counts last, because it fails with the other pods at the deadline of the run.
        """
        last = {(pod.step, pod.driver): pod for pod in self.pods()}
        failed_pods = [pod for pod in last.values() if pod.is_failed and not self._will_retry(pod)]
        return min(failed_pods, key=lambda pod: (pod.step == EXIT_TASK, pod.finished_at), default=None)

    def pending_pod(self) -> PodNode | None:
        """Return the first pending pod."""
        return next((pod for pod in self.pods() if pod.phase == "Pending"), None)

    def running_pod(self) -> PodNode | None:
        """Return the last running pod."""
        return next((pod for pod in reversed(self.pods()) if pod.phase == "Running"), None)

    def step_pod(self, step: str) -> PodNode | None:
        """Return the last pod of a step, not of its driver; None if the step did not run or was cached."""
        pods = [pod for pod in self.pods() if pod.step == step and not pod.driver]
        return pods[-1] if pods else None

    def cached(self, step: str) -> bool:
        """Return whether a step was cached: its driver ran, and its pod was skipped."""
        skipped_nodes = [node for node in self._nodes.values() if node.get("type") == "Skipped"]
        return any(self._pod("", node).step == step for node in skipped_nodes)

    def _pod(self, key: str, node: Json) -> PodNode:
        name = str(node.get("displayName", key))
        task_node = self._nodes.get(str(node.get("boundaryID")), {})
        step, driver = parse_task(name, str(task_node.get("displayName", name)))
        return PodNode(
            step=step,
            driver=driver,
            pod=self._pod_name(key, node),
            phase=str(node.get("phase", "Pending")),
            message=str(node.get("message") or ""),
            started_at=str(node.get("startedAt") or ""),
            finished_at=str(node.get("finishedAt") or ""),
        )

    def _pod_name(self, key: str, node: Json) -> str:
        """Return the name of a pod according to Argo: workflow, template, and the number in the node ID."""
        return "-".join(filter(None, (self.name, node.get("templateName"), key.rpartition("-")[2])))

    def _will_retry(self, pod: PodNode) -> bool:
        """Return whether the task of a pod is still running, so that it will be retried."""
        tasks = (node for node in self._nodes.values() if node.get("displayName") == pod.step)
        return any(node.get("phase") == "Running" for node in tasks)


def parse_pod(pod: Json) -> PodNode:
    """Return the Workflow node of a pod; its annotation has the path: `….train.executor`."""
    meta = pod["metadata"]
    *_, parent, name = ("", *str(meta.get("annotations", {}).get(NODE_NAME, meta["name"])).split("."))
    step, driver = parse_task(name, parent or name)
    return PodNode(step, driver, meta["name"], pod["status"].get("phase", "Pending"), "", "", "")
