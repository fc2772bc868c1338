"""Waiting for pods, with a reason at hand: it ends as soon as Kubernetes knows that waiting does not help."""

import time
from collections.abc import Callable, Sequence

from modelyard.components.deploy import objects
from modelyard.components.deploy.objects import Track
from modelyard.components.deploy.site import Site
from modelyard.components.errors import DeployError, UnreachableError
from modelyard.components.kubernetes import pod_problem
from modelyard.components.kubernetes.deployments import complete, progress, refused
from modelyard.components.kubernetes.pod_problem import Json, PodProblem

POLL = 0.5
LONGEST_BACKOFF = 60.0  # seconds in which the kubelet starts a server again that did not reach its store
CRASHES = ("Crashed", "CrashLoopBackOff")


def until_complete(site: Site, track: Track, expected: Callable[[Json | None], Json]) -> None:
    """Wait until all pods of a track are of its Deployment's template and available.

    Args:
        site: the model's place.
        track: which Deployment.
        expected: returns the Deployment, or raises when it is not the one that is waited for any more.

    Raises:
        DeployError: a pod cannot be made, does not start, ends or is not ready in time; why, in a sentence.
    """
    watchman, seen, since = Watchman(site), (-1, -1), time.monotonic()
    limit = site.target.start_timeout + site.rollout.ready_timeout + site.rollout.store_timeout
    while True:
        deployment = expected(site.deployment(track))
        if complete(deployment):
            return
        if refusal := refused(deployment):
            raise DeployError(refusal.message)
        for pod in site.pods(track):
            if objects.made_from(deployment, pod):
                watchman.judge(pod)
        if (now := progress(deployment)) > seen:  # pods that come and go are none
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > limit:
            raise DeployError(
                f"{deployment['metadata']['name']} came no further for {limit:g} s: {now[0]} pods are new, "
                f"{now[1]} are available. `kubectl describe deployment` says what Kubernetes waits for."
            )
        time.sleep(POLL)


class Watchman:
    """Looks at pods again and again, says each trouble once, and raises when waiting does not help.

    Args:
        site: the model's place.
        known: pods whose restarts up to now do not count.
    """

    def __init__(self, site: Site, known: Sequence[Json] = ()) -> None:
        self._site = site
        self._before = {pod["metadata"]["uid"]: pod_problem.count_restarts(pod) for pod in known}
        self._since: dict[str, float] = {}
        self._running: dict[str, float] = {}
        self._said: set[tuple[str, str]] = set()

    def judge(self, pod: Json, used: float | None = None) -> None:
        """Look at a pod.

        Args:
            pod: the pod.
            used: bytes of memory that it was last seen to use.

        Raises:
            DeployError: it cannot run as it should, or had its time.
        """
        now, uid = time.monotonic(), pod["metadata"]["uid"]
        if pod_problem.is_ready(pod):
            self._since.pop(uid, None)  # what comes later has its whole time again
            self._running.pop(uid, None)
            return
        events = self._site.cluster.events(pod)
        waited = now - self._since.setdefault(uid, now)
        trouble = pod_problem.find_problem(pod, events, self._site.cluster.nodes, used)
        if trouble and not self._over(pod, trouble):
            self._say(uid, trouble)
            if waited >= self._patience(pod, trouble):
                raise DeployError(trouble.message)
        elif pod["status"].get("phase") == "Running":
            limit = self._site.rollout.ready_timeout
            if now - self._running.setdefault(uid, now) > limit:
                raise DeployError(pod_problem.not_ready_problem(pod, events, limit).message)
        elif waited > (limit := self._site.target.start_timeout):
            last = f": {events[-1]['message'].rstrip('.')}" if events else ""
            name = pod["metadata"]["name"]
            raise DeployError(f"Pod {name} did not start within {limit:g} s{last}. Give it more time.")

    def restarts(self, pod: Json) -> int:
        """Return how often a pod's containers ended since this watchman began."""
        return pod_problem.count_restarts(pod) - self._before.get(pod["metadata"]["uid"], 0)

    def _over(self, pod: Json, trouble: PodProblem) -> bool:
        """Say whether a pod's container ended before this watchman began, and runs since."""
        ended = trouble.reason in ("Crashed", "OOMKilled") and pod["metadata"]["uid"] in self._before
        return ended and not self.restarts(pod) and pod_problem.is_running(pod)

    def _say(self, uid: str, trouble: PodProblem) -> None:
        if (uid, trouble.reason) not in self._said:
            self._said.add((uid, trouble.reason))
            self._site.say(trouble.message)

    def _patience(self, pod: Json, trouble: PodProblem) -> float:
        """Return how many seconds a pod with this trouble has."""
        rollout = self._site.rollout
        if trouble.reason in CRASHES:
            if f"{UnreachableError.__name__}: " in trouble.message:
                return rollout.store_timeout + LONGEST_BACKOFF
            return rollout.ready_timeout if self.restarts(pod) <= rollout.max_restarts else 0.0
        return self._site.target.start_timeout if trouble.patience is None else trouble.patience
