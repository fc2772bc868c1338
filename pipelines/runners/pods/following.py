"""A pod from its start to its end: what keeps it from running, what it prints, how it ends."""

import time
from typing import Any

from modelyard.components.errors import ClusterError
from modelyard.components.kubernetes.cluster import Cluster, retry_on_conflict
from modelyard.components.kubernetes.pod_problem import find_problem
from modelyard.pipelines.runners.pods import memory

MANAGER = "modelyard-run"
STEP = "step"
MEMORY = "OOMKilled"
PAUSE = 0.3
Json = dict[str, Any]


class PodLostError(ClusterError):
    """The pod was deleted or evicted while it ran: another attempt may do."""


class PodMemoryError(ClusterError):
    """The pod was killed because it used too much memory."""


def run(cluster: Cluster, pod: Json, start_timeout: float) -> int:
    """Make a pod, print what its step prints, remove it; return the step's exit code.

    Args:
        cluster: with the pod's namespace.
        pod: the pod; see step.yaml.
        start_timeout: seconds that it may wait for what may still come, such as a node.

    Raises:
        ClusterError: it is refused, cannot run, or was stopped.
        PodLostError: it was deleted, or its node was taken away.
        PodMemoryError: it used too much memory.
    """
    name = pod["metadata"]["name"]
    if not cluster.apply(pod, MANAGER):
        raise ClusterError(f"The pod {name} was made by somebody else meanwhile. Run it again.")
    try:
        for container in (STEP, "put"):
            started = _await(cluster, name, container, start_timeout)
            with memory.watched(cluster, started, container) as last_use:
                code = _print_log(cluster, name, container)
            if code:
                _raise_if_stopped(cluster, name, last_use())
                return code
        return 0
    finally:
        remove(cluster, name)


def remove(cluster: Cluster, name: str) -> None:
    """Delete a pod, whatever its state."""

    def delete() -> bool | None:
        seen = cluster.get("Pod", name)
        if seen is None or "deletionTimestamp" in seen["metadata"]:
            return True
        return cluster.delete("Pod", seen) or None

    retry_on_conflict(f"Pod {name}", delete)


def _await(cluster: Cluster, name: str, container: str, start_timeout: float) -> Json:
    """Return the pod when a container has started.

    Raises:
        ClusterError: it cannot start, or one before it failed.
    """
    since: dict[str, float] = {}
    while True:
        pod = _get(cluster, name)
        if _begun(_states(pod).get(container, {})):
            return pod
        if pod["status"].get("phase") == "Failed":
            raise _failure(pod)
        now = time.monotonic()
        found = find_problem(pod, cluster.events(pod), cluster.nodes)
        if found and found.reason not in since:
            print(found.message, flush=True)  # noqa: T201
        waited = now - since.setdefault(found.reason if found else "", now)
        if found and waited >= (start_timeout if found.patience is None else found.patience):
            raise ClusterError(found.message)
        if not found and waited > start_timeout and not any(map(_begun, _states(pod).values())):
            raise ClusterError(
                f"The pod {name} did not start within {start_timeout:g} s, and Kubernetes does not say why. "
                f"`kubectl describe pods -n {cluster.namespace}` shows more."
            )
        time.sleep(PAUSE)


def _print_log(cluster: Cluster, name: str, container: str) -> int:
    """Print a container's log until it ends, and return its exit code."""
    lines = 0
    while True:
        # asked before the log is read: what it printed between a cut of the stream and its end is read, too
        ended = _states(_get(cluster, name))[container].get("terminated")
        for line in cluster.log(name, container, skip=lines):
            print(line, flush=True)  # noqa: T201
            lines += 1
        if ended:
            return int(ended["exitCode"])
        time.sleep(PAUSE)


def _raise_if_stopped(cluster: Cluster, name: str, used: float | None) -> None:
    """Say why a pod was stopped, which its log does not; of an error of its own, the log says it.

    Args:
        cluster: with the pod's namespace.
        name: of the pod.
        used: bytes of memory that its container was last seen to use.

    Raises:
        ClusterError: Kubernetes stopped it.
    """
    pod = _get(cluster, name)
    found = find_problem(pod)
    if _deleted(pod) or pod["status"].get("reason") or (found and found.reason == MEMORY):
        raise _failure(pod, used)


def _failure(pod: Json, used: float | None = None) -> ClusterError:
    """Return why a pod failed."""
    reason, name = pod["status"].get("reason"), pod["metadata"]["name"]
    if _deleted(pod):
        return _lost(name)
    if reason == "DeadlineExceeded":
        seconds = pod["spec"]["activeDeadlineSeconds"]
        return ClusterError(
            f"The pod {name} was stopped because it did not end within {seconds} s. Give it more time "
            "(environment.steps.*.timeout), or less to do."
        )
    if reason:  # evicted, preempted, on a node that shut down
        said = pod["status"].get("message", "").rstrip(".") or "it does not say more"
        return PodLostError(f"The pod {name} was stopped by its node ({reason}: {said}). Give it retries.")
    found = find_problem(pod, used=used)
    if found and found.reason == MEMORY:
        return PodMemoryError(found.message)
    return ClusterError(found.message if found else f"The pod {name} failed, and does not say why.")


def _get(cluster: Cluster, name: str) -> Json:
    if pod := cluster.get("Pod", name):
        return pod
    raise _lost(name)


def _deleted(pod: Json) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _lost(name: str) -> PodLostError:
    return PodLostError(f"The pod {name} was deleted while it ran. Run it again: what is done is cached.")


def _states(pod: Json) -> dict[str, Json]:
    """Return the state of each container of which there is one."""
    status = pod["status"]
    every = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return {one["name"]: one["state"] for one in every}


def _begun(state: Json) -> bool:
    return "running" in state or "terminated" in state
