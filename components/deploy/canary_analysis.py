"""Canary analysis: the Service leads to the candidate as well, and its answers are compared with stable's.

It is judged by clients' requests, and by golden ones where clients send too few. What a client got wrong
(4xx) says nothing about a version.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from operator import add, sub

from prometheus_client.parser import text_string_to_metric_families

from modelyard.components.deploy import objects
from modelyard.components.deploy.objects import Track
from modelyard.components.deploy.readiness import POLL, PodWatcher, is_complete
from modelyard.components.deploy.serving_platform import ServingPlatform
from modelyard.components.deploy.settings import Rollout
from modelyard.components.deploy.tracks import owned_candidate
from modelyard.components.deploy.verification import PinnedVersion
from modelyard.components.errors import DeployError
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.cluster import retry_on_conflict
from modelyard.components.kubernetes.pod_problem import count_restarts, find_problem, is_ready

REQUESTS = "modelyard_requests_total"
ANSWERS, SECONDS = "modelyard_request_seconds_count", "modelyard_request_seconds_sum"
MEMORY = "process_resident_memory_bytes"
CLIENT_ERRORS = range(400, 500)
EXTRA = 60.0  # seconds after the analysis for missing golden requests, or a candidate that is not ready
BURST = 1.0  # seconds of golden requests between two looks
CLAIMING = 5.0  # seconds after which a rollout that marked the Service without a candidate counts as killed


@dataclass(frozen=True)
class Counts:
    """What was answered: requests by their sender, how many failed (5xx), and the seconds of all answers.

    `answers` also counts those to requests that the client got wrong.
    """

    client: int = 0
    golden: int = 0
    failed: int = 0
    answers: int = 0
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        """All requests that say something about the version."""
        return self.client + self.golden

    @property
    def latency(self) -> float:
        """Mean seconds of an answer."""
        return self.seconds / self.answers if self.answers else 0.0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*map(add, astuple(self), astuple(other)))

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(*map(sub, astuple(self), astuple(other)))


def failure_reason(candidate: Counts, stable: Counts, rollout: Rollout) -> str | None:
    """Return what speaks against the candidate, or None when nothing does so far.

    Failures count as soon as there are more than the required requests may have. The time of an answer counts
    once there are enough requests, and beside a stable that answered the same clients meanwhile.
    """
    required = max(candidate.requests, rollout.min_requests)
    if candidate.failed > rollout.max_error_rate * required:
        return (
            f"{candidate.failed} of {candidate.requests} requests failed, and at most "
            f"{rollout.max_error_rate:.2%} may (rollout.max_error_rate)"
        )
    if candidate.requests < rollout.min_requests or not stable.requests:
        return None
    slower = candidate.latency - stable.latency
    if slower > rollout.latency_margin and candidate.latency > rollout.max_latency_ratio * stable.latency:
        return (
            f"an answer takes {candidate.latency * 1000:.1f} ms, {candidate.latency / stable.latency:.1f} "
            f"times stable's {stable.latency * 1000:.1f} ms, and at most {rollout.max_latency_ratio:g} times "
            "is allowed (rollout.max_latency_ratio)"
        )
    return None


def summary(candidate: Counts, stable: Counts) -> str:
    """Return what the candidate was judged by."""
    seen = f"{candidate.client} client requests and {candidate.golden} golden ones, {candidate.failed} failed"
    if not stable.requests:
        return f"{seen}; there was no stable to compare the time of an answer with"
    return (
        f"{seen}, {candidate.latency * 1000:.1f} ms an answer beside stable's {stable.latency * 1000:.1f} ms"
    )


def read_metrics(page: str) -> tuple[Counts, float]:
    """Return what a server's /metrics counts, and its bytes of memory, 0 when it does not say.

    Raises:
        ValueError: it is not such a page.
    """
    numbers = {"client": 0, "golden": 0, "failed": 0, "answers": 0}
    seconds = memory = 0.0
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == REQUESTS and (code := int(sample.labels["code"])) not in CLIENT_ERRORS:
                numbers[sample.labels["traffic"]] += int(sample.value)
                numbers["failed"] += int(sample.value) if code >= CLIENT_ERRORS.stop else 0
            elif sample.name == ANSWERS:
                numbers["answers"] += int(sample.value)
            elif sample.name == SECONDS:
                seconds += sample.value
            elif sample.name == MEMORY:
                memory = sample.value
    return Counts(**numbers, seconds=seconds), memory


def answered_since(before: Mapping[str, Counts], now: Mapping[str, Counts]) -> Counts:
    """Return what pods answered in total; one that came later counts from its start.

    A key stands for one run of one pod's container, whose counters only grow.
    """
    return sum((counts - before.get(key, Counts()) for key, counts in now.items()), Counts())


def analyze(platform: ServingPlatform, pinned: PinnedVersion, token: str) -> str:
    """Judge the candidate among clients for `rollout.watch_seconds`; return what it was judged by.

    Raises:
        DeployError: it fails, is slow, restarts or cannot be judged.
    """
    rollout = platform.rollout
    candidate, stable = (
        _TrackMetrics(platform, "candidate", pinned.version),
        _TrackMetrics(platform, "stable"),
    )
    sender = _GoldenSender(platform, pinned)
    join_service(platform, token)
    begin, failed = platform.now(), f"Version {pinned.version} of {platform.name} failed its canary analysis:"
    while True:
        complete = is_complete(owned_candidate(platform, token))
        seen, beside = candidate.read(), stable.read()
        if why := failure_reason(seen, beside, rollout):
            raise DeployError(f"{failed} {why}.")
        elapsed = platform.now() - begin
        missing = math.ceil(rollout.min_requests * _share_due(elapsed, rollout.watch_seconds)) - seen.requests
        answers = complete and not candidate.silent  # one that hangs has no failures to show
        if answers and missing <= 0 and elapsed >= rollout.watch_seconds:
            return summary(seen, beside)
        if elapsed > rollout.watch_seconds + EXTRA:
            if not answers:
                raise DeployError(
                    f"{failed} it does not answer, or is not ready any more. Look for a request that it "
                    "never ends; `modelyard serve` with --version shows how it answers one."
                )
            raise DeployError(
                f"Only {seen.requests} of {rollout.min_requests} requests (rollout.min_requests) reached the "
                f"candidate, so it could not be judged. {sender.problem}".strip()
            )
        if missing > 0:
            sender.send(missing)
        else:
            platform.sleep(POLL)


def join_service(platform: ServingPlatform, token: str) -> None:
    """Let the Service lead to the candidate as well.

    A rollout that takes the candidate over marks the Service first. So where its mark is seen, or the Service
    changes after it was observed, the candidate may not be this rollout's any more.
    """
    deadline = platform.now() + CLAIMING

    def write() -> bool | None:
        service = platform.service()
        owned_candidate(platform, token)
        marked = service is not None and objects.annotation(service, objects.TOKEN) not in ("", token)
        if marked and platform.now() < deadline:
            return None
        return platform.route(service, canary=True, token=token) or None

    retry_on_conflict(f"Service {platform.name}", write)
    seconds = platform.rollout.watch_seconds
    platform.log(f"canary: {platform.name} leads to the candidate too; analysis for {seconds:g} s")


def _share_due(elapsed: float, seconds: float) -> float:
    """Return the share of the requests that is due; clients have the first half of the time for them."""
    return min(1.0, max(0.0, 2 * elapsed / seconds - 1)) if seconds else 1.0


class _TrackMetrics:
    """The metrics of a track's pods during the analysis; only a candidate's problems count.

    `silent` is whether a pod that is ready did not answer the last time.
    """

    def __init__(self, platform: ServingPlatform, track: Track, version: int | None = None) -> None:
        self._platform, self._track, self._version = platform, track, version
        self._watcher = PodWatcher(platform, platform.pods(track, version))
        self._memory: dict[str, float] = {}
        self._before: dict[str, Counts] = {}
        self._latest: dict[str, Counts] = {}
        self.silent = False
        self.read()
        self._before = dict(self._latest)

    def read(self) -> Counts:
        """Return what the pods answered since the analysis began."""
        self.silent = False
        for pod in self._platform.pods(self._track, self._version):
            uid = pod["metadata"]["uid"]
            if self._track == "candidate":
                self._check(pod, self._memory.get(uid))
            if not is_ready(pod):
                continue
            try:
                page = self._platform.pod_target(pod).send("GET", "/metrics").decode()
                counts, self._memory[uid] = read_metrics(page)
            except (DeployError, ValueError):
                self.silent = True  # it ends, or is busy; the reason is seen at its pod
                continue
            self._latest[f"{uid}/{count_restarts(pod)}"] = counts
        return answered_since(self._before, self._latest)

    def _check(self, pod: Json, used: float | None) -> None:
        too_often = self._watcher.restarts(pod) > self._platform.rollout.max_restarts
        if too_often and (problem := find_problem(pod, used=used)):
            raise DeployError(problem.message)
        self._watcher.check(pod, used)


class _GoldenSender:
    """Sends golden requests through the Service, which chooses who answers each."""

    def __init__(self, platform: ServingPlatform, pinned: PinnedVersion) -> None:
        self._platform, self._service = platform, platform.service_target()
        self._instances = itertools.cycle(pinned.golden.instances)
        self.problem = ""

    def send(self, missing: int) -> None:
        """Send as many as bring `missing` to the candidate, or what fits between two looks."""
        candidates, stable = (len(self._platform.ready_pods(track)) for track in ("candidate", "stable"))
        share = candidates / max(1, candidates + stable)
        end = self._platform.now() + BURST
        for _ in range(math.ceil(missing / max(share, 0.01))):
            if self._platform.now() > end:
                return
            path = f"/v1/models/{self._platform.name}:predict"
            try:
                self._service.send("POST", path, {"instances": [next(self._instances)]})
            except DeployError as error:  # the server's failures are in its metrics
                self.problem = f"The last failure: {error}"
                self._platform.sleep(0.05)
