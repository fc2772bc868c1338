"""Waits until a model's pods are ready, and reads their metrics.

As soon as the status of a pod shows that waiting cannot help, an error with the reason is raised.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from modelyard.components.deploy.platforms import objects
from modelyard.components.deploy.platforms.base import (
    PlatformConfig,
    RequestCounts,
    Traffic,
    superseded_error,
)
from modelyard.components.deploy.platforms.objects import Track
from modelyard.components.errors import DeployError, ServeError, UnreachableError
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.api_errors import explain_refusal
from modelyard.components.kubernetes.cluster import Cluster, ProxiedServer, read_token
from modelyard.components.kubernetes.pod_problem import (
    OUT_OF_MEMORY,
    PodProblem,
    count_restarts,
    describe_unready,
    find_problem,
    is_ready,
    is_running,
)
from modelyard.components.server import GOLDEN_HEADERS, PORT, HttpServer, Server, predict_one, send

POLL_SECONDS = 0.5
TOKEN_CACHE_SECONDS = 10.0  # for which a token from the Secret is cached
MAX_BACKOFF = 60.0  # seconds until the kubelet restarts a server without its store
CRASH_REASONS = ("Crashed", "CrashLoopBackOff")
ENDED_PHASES = ("Failed", "Succeeded")  # also evicted pods, which remain beside their replacement
EXECUTED_METRIC, SECONDS_METRIC = "modelyard_request_seconds_count", "modelyard_request_seconds_sum"
FAILED_METRIC = "modelyard_failures_total"
MEMORY_METRIC = "process_resident_memory_bytes"


@dataclass(kw_only=True)
class ModelPods(PlatformConfig):
    """A model's Deployments and pods in a namespace of a cluster.

    PlatformConfig describes the other arguments; `now` is a monotonic clock in seconds.
    """

    cluster: Cluster
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _token: tuple[float, str | None] | None = field(default=None, init=False, repr=False)

    def token(self) -> str | None:
        """Return the token for the servers, cached for TOKEN_CACHE_SECONDS; None if they require none."""
        if self._token is None or self.now() > self._token[0] + TOKEN_CACHE_SECONDS:
            self._token = self.now(), read_token(self.cluster, self.target.token_secret)
        return self._token[1]

    def deployment(self, track: Track) -> Json | None:
        """Return the Deployment of a track, or None if it does not exist."""
        return self.cluster.get("Deployment", f"{self.name}-{track}")

    def owned_candidate(self, token: str) -> Json:
        """Return the candidate's Deployment.

        Raises:
            Superseded: it belongs to another rollout.
        """
        deployment = self.deployment("candidate")
        if deployment is None or is_terminating(deployment):
            raise superseded_error(self.name, None)
        if objects.token(deployment) != token:
            raise superseded_error(self.name, objects.version(deployment))
        return deployment

    def pods(self, track: Track, version: int | None = None) -> list[Json]:
        """Return the pods of a track or a version, without pods that have ended or are terminating."""
        pods = self.cluster.list_objects("Pod", objects.selector(self.name, track, version))
        return [pod for pod in pods if is_active(pod) and not is_terminating(pod)]

    def ready_pods(self, track: Track, version: int | None = None) -> list[Json]:
        """Return the ready pods of a track or a version."""
        return [pod for pod in self.pods(track, version) if is_ready(pod)]

    def pod_server(self, pod: Json, retry_seconds: float = 0.0) -> Server:
        """Return the server in a pod."""
        token, tls = self.token(), objects.uses_tls(pod)
        if not self.cluster.in_cluster:
            name = pod["metadata"]["name"]
            return ProxiedServer(self.cluster, "Pod", name, retry_seconds=retry_seconds, token=token, tls=tls)
        ip, scheme = pod["status"]["podIP"], "https" if tls else "http"
        host = f"[{ip}]" if ":" in ip else ip
        return HttpServer(f"{scheme}://{host}:{PORT}", token=token, verify=False)

    def service(self) -> Server:
        """Return the servers behind the Service."""
        token, tls = self.token(), self.target.tls_secret is not None
        if not self.cluster.in_cluster:
            return ProxiedServer(self.cluster, "Service", self.name, token=token, tls=tls)
        url = objects.service_url(self.name, self.cluster.namespace, tls)
        return HttpServer(url, token=token, verify=False)

    def wait_until_complete(self, track: Track, read: Callable[[], Json]) -> None:
        """Wait until all pods of a track have the Deployment's template and are available.

        `read` returns the Deployment, or raises Superseded.

        Raises:
            DeployError: a pod cannot be created, does not start, ends or is not ready in time.
        """
        watcher, best_progress, progress_time = PodWatcher(self), (-1, -1), self.now()
        limit = self.target.start_timeout + self.rollout.ready_timeout + self.rollout.store_timeout
        while True:
            deployment = read()
            if is_complete(deployment):
                return
            if refusal := find_refusal(deployment):
                raise DeployError(refusal)
            for pod in self.pods(track):
                if objects.matches_template(deployment, pod):
                    watcher.check(pod)
            status = deployment.get("status", {}) if _is_current(deployment) else {}
            progress = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
            if progress > best_progress:  # a pod that repeatedly becomes unready makes no progress
                best_progress, progress_time = progress, self.now()
            elif self.now() - progress_time > limit:
                raise DeployError(
                    f"Deployment {deployment['metadata']['name']} made no progress for {limit:g} s: "
                    f"updated pods: {progress[0]}, available pods: {progress[1]}. `kubectl describe "
                    "deployment` shows the reason."
                )
            self.sleep(POLL_SECONDS)


def is_complete(deployment: Json) -> bool:
    """Return whether all pods of a Deployment have its current template and are available."""
    status, replicas = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    counts = (status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas"))
    return _is_current(deployment) and all(count == replicas for count in counts)


def find_refusal(deployment: Json) -> str | None:
    """Return the reason why the pods of a Deployment cannot be created, or None."""
    for condition in deployment.get("status", {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return explain_refusal(condition.get("message", "")) if _is_current(deployment) else None
    return None


def _is_current(deployment: Json) -> bool:
    """Return whether the status of a Deployment belongs to its current spec."""
    generation = deployment["metadata"].get("generation", 0)
    return bool(deployment.get("status", {}).get("observedGeneration", 0) >= generation)


def is_terminating(item: Json) -> bool:
    """Return whether an object is being deleted."""
    return "deletionTimestamp" in item["metadata"]


def is_active(pod: Json) -> bool:
    """Return whether a pod has not ended."""
    return pod["status"].get("phase") not in ENDED_PHASES


class PodWatcher:
    """Checks pods, logs each problem once, and raises an error if waiting cannot help.

    Restarts that `earlier_pods` already have are not counted.
    """

    def __init__(self, model: ModelPods, earlier_pods: Sequence[Json] = ()) -> None:
        self._model = model
        self._earlier_restarts = {pod["metadata"]["uid"]: count_restarts(pod) for pod in earlier_pods}
        self._unready_since: dict[str, float] = {}
        self._running_since: dict[str, float] = {}
        self._logged_reasons: set[tuple[str, str]] = set()

    def check(self, pod: Json, memory_used: float | None = None) -> None:
        """Check a pod; `memory_used` is the last measurement, in bytes.

        Raises:
            DeployError: the pod cannot run, or exceeded its timeout.
        """
        now, uid = self._model.now(), pod["metadata"]["uid"]
        if is_ready(pod):
            self._unready_since.pop(uid, None)  # a later problem starts a new timeout
            self._running_since.pop(uid, None)
            return
        events = self._model.cluster.list_events(pod)
        wait_seconds = now - self._unready_since.setdefault(uid, now)
        problem = find_problem(pod, events, self._model.cluster.nodes, memory_used)
        if problem and not self._has_recovered(pod, problem):
            if (uid, problem.reason) not in self._logged_reasons:
                self._logged_reasons.add((uid, problem.reason))
                self._model.log(problem.message)
            if wait_seconds >= self._wait_limit(pod, problem):
                raise DeployError(problem.message)
        elif pod["status"].get("phase") == "Running":
            limit = self._model.rollout.ready_timeout
            if now - self._running_since.setdefault(uid, now) > limit:
                raise DeployError(describe_unready(pod, events, limit))
        elif wait_seconds > (limit := self._model.target.start_timeout):
            last = f": {events[-1]['message'].rstrip('.')}" if events else ""
            name = pod["metadata"]["name"]
            raise DeployError(
                f"Pod {name} did not start within {limit:g} s{last}. If it needs longer, raise "
                "environment.start_timeout."
            )

    def restarts(self, pod: Json) -> int:
        """Return how often a pod's containers ended since the watcher was created."""
        return count_restarts(pod) - self._earlier_restarts.get(pod["metadata"]["uid"], 0)

    def _has_recovered(self, pod: Json, problem: PodProblem) -> bool:
        """Return whether a pod's container ended before the watcher was created, and has run since."""
        ended = (
            problem.reason in ("Crashed", OUT_OF_MEMORY) and pod["metadata"]["uid"] in self._earlier_restarts
        )
        return ended and not self.restarts(pod) and is_running(pod)

    def _wait_limit(self, pod: Json, problem: PodProblem) -> float:
        """Return the seconds after which a problem is final."""
        rollout = self._model.rollout
        if problem.reason in CRASH_REASONS:
            if problem.error == UnreachableError.__name__:
                return rollout.store_timeout + MAX_BACKOFF
            return rollout.ready_timeout if self.restarts(pod) <= rollout.max_restarts else 0.0
        return self._model.target.start_timeout if problem.wait_limit is None else problem.wait_limit


class PodTrafficWindow:
    """Counts the requests of both tracks, from /metrics of each pod, for the rollout with this token."""

    def __init__(self, model: ModelPods, token: str) -> None:
        self._model, self._token = model, token
        version = objects.version(model.owned_candidate(token))
        self._candidate = _TrackWindow(model, "candidate", version)
        self._stable = _TrackWindow(model, "stable")
        self._service = model.service()

    def read(self) -> Traffic:
        """Return the requests since the window was opened."""
        complete = is_complete(self._model.owned_candidate(self._token))
        candidate, stable = self._candidate.read(), self._stable.read()
        return Traffic(candidate, stable, complete and not self._candidate.unresponsive)

    def candidate_share(self) -> float:
        """Return the candidate's share of the ready pods, at least 0.01."""
        ready = {track: len(self._model.ready_pods(track)) for track in ("candidate", "stable")}
        return max(0.01, ready["candidate"] / max(1, sum(ready.values())))

    def send(self, instance: Any) -> None:
        """Send a golden request to the Service, which selects the pod."""
        predict_one(self._service, self._model.name, instance, GOLDEN_HEADERS)


class _TrackWindow:
    """Counts the requests of a track's pods, and raises an error if a pod of the candidate cannot run."""

    def __init__(self, model: ModelPods, track: Track, version: int | None = None) -> None:
        self._model, self._track, self._version = model, track, version
        pods = model.pods(track, version)
        self._watcher = PodWatcher(model, pods)
        self._memory: dict[str, float] = {}
        self._initial_runs = set(map(_container_run_key, pods))  # their earlier requests are not counted
        self._initial_counts: dict[str, RequestCounts] = {}
        self._latest_counts: dict[str, RequestCounts] = {}
        self.unresponsive = False  # whether a ready pod did not report its metrics at the last read
        self.read()

    def read(self) -> RequestCounts:
        """Return the requests since the window was opened."""
        self.unresponsive = False
        for pod in self._model.pods(self._track, self._version):
            uid = pod["metadata"]["uid"]
            if self._track == "candidate":
                self._check(pod, self._memory.get(uid))
            if not is_ready(pod):
                continue
            try:
                page = send(self._model.pod_server(pod), "GET", "/metrics").decode()
                counts, self._memory[uid] = read_metrics(page)
            except (ServeError, LookupError, ValueError):
                self.unresponsive = True  # it terminates or is busy
                continue
            run = _container_run_key(pod)
            self._latest_counts[run] = counts
            if run in self._initial_runs:  # it may not have been ready before
                self._initial_counts.setdefault(run, counts)
        return count_since(self._initial_counts, self._latest_counts)

    def _check(self, pod: Json, memory_used: float | None) -> None:
        too_often = self._watcher.restarts(pod) > self._model.rollout.max_restarts
        if too_often and (problem := find_problem(pod, memory_used=memory_used)):
            raise DeployError(problem.message)
        self._watcher.check(pod, memory_used)


def _container_run_key(pod: Json) -> str:
    """Return a key that changes with each restart of a pod's container, which resets its metrics."""
    return f"{pod['metadata']['uid']}/{count_restarts(pod)}"


def read_metrics(page: str) -> tuple[RequestCounts, float]:
    """Return the counts of a server's /metrics, and its resident memory in bytes (0 if missing).

    Raises:
        ValueError, LookupError: the page is malformed.
    """
    numbers = {"client": 0, "golden": 0, "failed": 0}
    seconds = memory = 0.0
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == EXECUTED_METRIC:
                numbers[sample.labels["traffic"]] += int(sample.value)
            elif sample.name == FAILED_METRIC:
                numbers["failed"] += int(sample.value)
            elif sample.name == SECONDS_METRIC:
                seconds += sample.value
            elif sample.name == MEMORY_METRIC:
                memory = sample.value
    return RequestCounts(**numbers, seconds=seconds), memory


def count_since(before: Mapping[str, RequestCounts], now: Mapping[str, RequestCounts]) -> RequestCounts:
    """Return the sum of the counts minus those before; keys identify a pod and its number of restarts."""
    return sum((counts - before.get(key, RequestCounts()) for key, counts in now.items()), RequestCounts())
