"""Canary analysis: clients reach the candidate too, and its answers are compared with stable's.

It is judged by the requests of clients that were executed, and by golden ones where clients send too few.
What a client did wrong, or what a busy server refused, says nothing about a version.
"""

import itertools
import math
from collections.abc import Callable

from modelyard.components.deploy.platforms.base import RequestCounts, TrafficWindow
from modelyard.components.deploy.settings import Rollout
from modelyard.components.deploy.verification import PinnedVersion
from modelyard.components.errors import DeployError, ServeError

POLL_SECONDS = 0.5
GRACE_SECONDS = (
    60.0  # seconds after the analysis for missing golden requests, or a candidate that is not ready
)
BURST_SECONDS = 1.0  # seconds of golden requests between two looks


def failure_reason(candidate: RequestCounts, stable: RequestCounts, rollout: Rollout) -> str | None:
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


def summary(candidate: RequestCounts, stable: RequestCounts) -> str:
    """Return what the candidate was judged by."""
    seen = f"{candidate.client} client requests and {candidate.golden} golden ones, {candidate.failed} failed"
    if not stable.requests:
        return f"{seen}; there was no stable to compare the time of an answer with"
    return (
        f"{seen}, {candidate.latency * 1000:.1f} ms an answer beside stable's {stable.latency * 1000:.1f} ms"
    )


def analyze(
    name: str,
    pinned: PinnedVersion,
    window: TrafficWindow,
    rollout: Rollout,
    now: Callable[[], float],
    sleep: Callable[[float], None],
) -> str:
    """Judge the candidate among clients for `rollout.bake_seconds`; return what it was judged by.

    Args:
        name: the model's.
        pinned: the candidate's version.
        window: what is answered, from before clients reached the candidate.
        rollout: the thresholds.
        now: the monotonic clock.
        sleep: waits so many seconds of it.

    Raises:
        DeployError: it fails, is slow, restarts or cannot be judged.
        Superseded: it is another rollout's by now.
    """
    instances, problem = itertools.cycle(pinned.golden.instances), ""
    begin, failed = now(), f"Version {pinned.version} of {name} failed its canary analysis:"
    while True:
        seen = window.read()
        if why := failure_reason(seen.candidate, seen.stable, rollout):
            raise DeployError(f"{failed} {why}.")
        elapsed = now() - begin
        due = math.ceil(rollout.min_requests * _share_due(elapsed, rollout.bake_seconds))
        missing = due - seen.candidate.requests
        # a candidate that hangs has no failures to show
        if seen.candidate_responding and missing <= 0 and elapsed >= rollout.bake_seconds:
            return summary(seen.candidate, seen.stable)
        if elapsed > rollout.bake_seconds + GRACE_SECONDS:
            if not seen.candidate_responding:
                raise DeployError(
                    f"{failed} it does not answer, or is not ready any more. Look for a request that it "
                    "never ends; `modelyard serve` with --version shows how it answers one."
                )
            raise DeployError(
                f"Only {seen.candidate.requests} of {rollout.min_requests} requests (rollout.min_requests) "
                f"reached the candidate, so it could not be judged. {problem}".strip()
            )
        if missing <= 0:
            sleep(POLL_SECONDS)
            continue
        end = now() + BURST_SECONDS
        for _ in range(
            math.ceil(missing / window.candidate_share())
        ):  # as many as bring the missing ones to it
            if now() > end:
                break
            try:
                window.send(next(instances))
            except ServeError as error:  # the server's failures are in its metrics
                problem = f"The last failure: {error}"
                sleep(0.05)


def _share_due(elapsed: float, seconds: float) -> float:
    """Return the share of the requests that is due; clients have the first half of the time for them."""
    return min(1.0, max(0.0, 2 * elapsed / seconds - 1)) if seconds else 1.0
