"""The stages of a rollout, each with its verdict: a stage that fails raises, and nothing is promoted.

verify   the candidate, outside the Service, answers golden.json as evaluate saw
watch    the Service leads to it as well; it is judged by clients' requests, and by golden ones where clients
         send too few
"""

import itertools
import math
import time
from collections.abc import Callable

from modelyard.components.deploy import golden, objects, traffic, verdict
from modelyard.components.deploy.objects import Track
from modelyard.components.deploy.site import Site
from modelyard.components.deploy.traffic import Counts, Tally
from modelyard.components.deploy.version import Served
from modelyard.components.deploy.waiting import POLL, Watchman, until_complete
from modelyard.components.errors import DeployError
from modelyard.components.kubernetes import pod_problem
from modelyard.components.kubernetes.cluster import retry_on_conflict
from modelyard.components.kubernetes.deployments import complete
from modelyard.components.kubernetes.pod_problem import Json

EXTRA = 60.0  # seconds after the watch for golden requests that are missing, or a candidate that is not ready
TRACKS: tuple[Track, Track] = ("candidate", "stable")
BURST = 1.0  # seconds of golden requests between two looks
TAKING = 5.0  # seconds after which a rollout that marked the Service and took no candidate counts as killed

Mine = Callable[[Json | None], Json]
"""Returns the candidate's Deployment, or raises when it belongs to another rollout or is gone."""


def verify(site: Site, served: Served, mine: Mine) -> None:
    """Wait for the candidates and compare their answers with what evaluate saw.

    Raises:
        DeployError: one does not run, or answers otherwise.
    """
    until_complete(site, "candidate", mine)
    candidates = site.ready_pods("candidate", served.version)
    for pod in candidates:
        golden.replay(site.peer(pod), site.name, served.version, served.golden, site.rollout.golden_tolerance)
    if not candidates:
        raise DeployError("The candidate's pods went before they could be asked. Deploy again.")
    site.say(f"verified: {len(served.golden.instances)} golden requests, {len(candidates)} candidate(s)")


def watch(site: Site, served: Served, mine: Mine) -> str:
    """Judge the candidate among clients for as long as `rollout.watch_seconds` says; return what was judged.

    Raises:
        DeployError: it fails, is slow, restarts or cannot be judged.
    """
    rollout = site.rollout
    candidate, stable = _Watched(site, "candidate", served.version), _Watched(site, "stable")
    sender = _Sender(site, served)
    _join(site, mine)
    begin = time.monotonic()
    while True:
        whole = complete(mine(site.deployment("candidate")))
        seen, beside = candidate.look(), stable.look()
        if why := verdict.objection(seen, beside, rollout):
            raise DeployError(f"Version {served.version} of {site.name} did not pass its watch: {why}.")
        elapsed = time.monotonic() - begin
        missing = math.ceil(rollout.min_requests * _due(elapsed, rollout.watch_seconds)) - seen.requests
        answers = whole and not candidate.silent  # one that hangs has no failures to show
        if answers and missing <= 0 and elapsed >= rollout.watch_seconds:
            return verdict.judged(seen, beside)
        if elapsed > rollout.watch_seconds + EXTRA:
            if not answers:
                raise DeployError(
                    f"Version {served.version} of {site.name} did not pass its watch: it does not answer, "
                    "or is not ready any more. Look for a request that it never ends; `modelyard serve` with "
                    "--version shows how it answers one."
                )
            raise DeployError(
                f"Only {seen.requests} of {rollout.min_requests} requests (rollout.min_requests) reached the "
                f"candidate, so it could not be judged. {sender.trouble}".strip()
            )
        if missing > 0:
            sender.send(missing)
        else:
            time.sleep(POLL)


def _join(site: Site, mine: Mine) -> None:
    """Let the Service lead to the candidate as well.

    A rollout that takes the candidate over marks the Service first. So where its mark is seen, or the Service
    changes after it was looked at, the candidate may not be this rollout's any more.
    """
    deadline = time.monotonic() + TAKING

    def write() -> bool | None:
        service = site.service()
        attempt = objects.annotation(mine(site.deployment("candidate")), objects.ATTEMPT)
        marked = service is not None and objects.annotation(service, objects.ATTEMPT) not in ("", attempt)
        if marked and time.monotonic() < deadline:
            return None
        return site.lead(service, canary=True, attempt=attempt) or None

    retry_on_conflict(f"Service {site.name}", write)
    site.say(f"canary: {site.name} leads to the candidate too; watching for {site.rollout.watch_seconds:g} s")


def _due(elapsed: float, whole: float) -> float:
    """Return the share of the requests that is due; clients have the first half of the watch to send them."""
    return min(1.0, max(0.0, 2 * elapsed / whole - 1)) if whole else 1.0


class _Watched:
    """The pods of a track while they are watched; only a candidate's troubles count.

    `silent` says whether a pod that is ready did not answer when it was looked at last.
    """

    def __init__(self, site: Site, track: Track, version: int | None = None) -> None:
        self._site, self._track, self._version = site, track, version
        self._watchman = Watchman(site, site.pods(track, version))
        self._memory: dict[str, float] = {}
        self._tally, self.silent = Tally({}), False
        self.look()
        self._tally = Tally(dict(self._tally.latest))

    def look(self) -> Counts:
        """Return what the pods answered since the watch began."""
        self.silent = False
        for pod in self._site.pods(self._track, self._version):
            uid = pod["metadata"]["uid"]
            if self._track == "candidate":
                self._judge(pod, self._memory.get(uid))
            if not pod_problem.is_ready(pod):
                continue
            try:
                reading = traffic.read(self._site.peer(pod).get("/metrics").decode())
            except (DeployError, ValueError):
                self.silent = True  # it ends, or is busy; what keeps it is seen at its pod
                continue
            self._memory[uid] = reading.memory
            self._tally.note(f"{uid}/{pod_problem.count_restarts(pod)}", reading.counts)
        return self._tally.total()

    def _judge(self, pod: Json, used: float | None) -> None:
        restarts = self._watchman.restarts(pod)
        if restarts > self._site.rollout.max_restarts and (
            trouble := pod_problem.find_problem(pod, used=used)
        ):
            raise DeployError(trouble.message)
        self._watchman.judge(pod, used)


class _Sender:
    """Sends golden requests through the Service, which chooses who answers each."""

    def __init__(self, site: Site, served: Served) -> None:
        self._site, self._front = site, site.front()
        self._instances = itertools.cycle(served.golden.instances)
        self.trouble = ""

    def send(self, missing: int) -> None:
        """Send as many as bring `missing` to the candidate, or what fits between two looks."""
        candidates, stable = (len(self._site.ready_pods(track)) for track in TRACKS)
        share = candidates / max(1, candidates + stable)
        end = time.monotonic() + BURST
        for _ in range(math.ceil(missing / max(share, 0.01))):
            if time.monotonic() > end:
                return
            try:
                self._front.post(
                    f"/v1/models/{self._site.name}:predict", {"instances": [next(self._instances)]}
                )
            except DeployError as error:  # the server's failures are in its metrics
                self.trouble = f"The last that went wrong: {error}"
                time.sleep(0.05)
