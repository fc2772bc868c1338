"""Waiting for pods: it ends as soon as Kubernetes knows that waiting does not help, with the reason."""

from collections.abc import Callable, Sequence

from modelyard.components.deploy import objects
from modelyard.components.deploy.objects import Track
from modelyard.components.deploy.serving_platform import ServingPlatform
from modelyard.components.errors import DeployError, UnreachableError
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.api_errors import explain_refusal
from modelyard.components.kubernetes.pod_problem import (
    OUT_OF_MEMORY,
    PodProblem,
    count_restarts,
    find_problem,
    is_ready,
    is_running,
    not_ready_problem,
)

POLL = 0.5
LONGEST_BACKOFF = 60.0  # seconds until the kubelet restarts a server that did not reach its store
CRASHES = ("Crashed", "CrashLoopBackOff")


def wait_until_complete(platform: ServingPlatform, track: Track, read: Callable[[], Json]) -> None:
    """Wait until all pods of a track are of its Deployment's template and available.

    `read` returns the Deployment, or raises when it is not the one that is waited for any more.

    Raises:
        DeployError: a pod cannot be created, does not start, ends or is not ready in time, with the reason.
    """
    watcher, best, since = PodWatcher(platform), (-1, -1), platform.now()
    limit = platform.target.start_timeout + platform.rollout.ready_timeout + platform.rollout.store_timeout
    while True:
        deployment = read()
        if is_complete(deployment):
            return
        if refusal := pods_refused(deployment):
            raise DeployError(refusal.message)
        for pod in platform.pods(track):
            if objects.made_from(deployment, pod):
                watcher.check(pod)
        status = deployment.get("status", {}) if _is_current(deployment) else {}
        progress = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
        if progress > best:  # pods that come and go are none
            best, since = progress, platform.now()
        elif platform.now() - since > limit:
            raise DeployError(
                f"{deployment['metadata']['name']} made no progress for {limit:g} s: {progress[0]} pods are "
                f"new, {progress[1]} are available. `kubectl describe deployment` says what Kubernetes waits "
                "for."
            )
        platform.sleep(POLL)


def is_complete(deployment: Json) -> bool:
    """Return whether all its pods are of the present template and available, and no other is left."""
    status, replicas = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    counts = (status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas"))
    return _is_current(deployment) and all(count == replicas for count in counts)


def pods_refused(deployment: Json) -> PodProblem | None:
    """Return why its pods may not be created, or None when they may."""
    for condition in deployment.get("status", {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return explain_refusal(condition.get("message", "")) if _is_current(deployment) else None
    return None


def _is_current(deployment: Json) -> bool:
    """Return whether the status is of the present spec."""
    generation = deployment["metadata"].get("generation", 0)
    return bool(deployment.get("status", {}).get("observedGeneration", 0) >= generation)


class PodWatcher:
    """Checks pods repeatedly, logs each problem once, and raises when waiting does not help.

    Args:
        platform: what serves the model.
        known: pods whose restarts up to now do not count.
    """

    def __init__(self, platform: ServingPlatform, known: Sequence[Json] = ()) -> None:
        self._platform = platform
        self._before = {pod["metadata"]["uid"]: count_restarts(pod) for pod in known}
        self._since: dict[str, float] = {}
        self._running: dict[str, float] = {}
        self._logged: set[tuple[str, str]] = set()

    def check(self, pod: Json, used: float | None = None) -> None:
        """Check a pod, which was last seen to use so many bytes of memory.

        Raises:
            DeployError: it cannot run as it should, or exceeded its time.
        """
        now, uid = self._platform.now(), pod["metadata"]["uid"]
        if is_ready(pod):
            self._since.pop(uid, None)  # a later problem has all its time again
            self._running.pop(uid, None)
            return
        events = self._platform.cluster.events(pod)
        waited = now - self._since.setdefault(uid, now)
        problem = find_problem(pod, events, self._platform.cluster.nodes, used)
        if problem and not self._is_over(pod, problem):
            if (uid, problem.reason) not in self._logged:
                self._logged.add((uid, problem.reason))
                self._platform.log(problem.message)
            if waited >= self._patience(pod, problem):
                raise DeployError(problem.message)
        elif pod["status"].get("phase") == "Running":
            limit = self._platform.rollout.ready_timeout
            if now - self._running.setdefault(uid, now) > limit:
                raise DeployError(not_ready_problem(pod, events, limit).message)
        elif waited > (limit := self._platform.target.start_timeout):
            last = f": {events[-1]['message'].rstrip('.')}" if events else ""
            name = pod["metadata"]["name"]
            raise DeployError(
                f"Pod {name} did not start within {limit:g} s{last}. Give it more time (start_timeout)."
            )

    def restarts(self, pod: Json) -> int:
        """Return how often a pod's containers ended since this watcher was created."""
        return count_restarts(pod) - self._before.get(pod["metadata"]["uid"], 0)

    def _is_over(self, pod: Json, problem: PodProblem) -> bool:
        """Return whether a pod's container ended before this watcher was created, and has run since."""
        ended = problem.reason in ("Crashed", OUT_OF_MEMORY) and pod["metadata"]["uid"] in self._before
        return ended and not self.restarts(pod) and is_running(pod)

    def _patience(self, pod: Json, problem: PodProblem) -> float:
        """Return how many seconds a pod with this problem has."""
        rollout = self._platform.rollout
        if problem.reason in CRASHES:
            if f"{UnreachableError.__name__}: " in problem.message:
                return rollout.store_timeout + LONGEST_BACKOFF
            return rollout.ready_timeout if self.restarts(pod) <= rollout.max_restarts else 0.0
        return self._platform.target.start_timeout if problem.patience is None else problem.patience
