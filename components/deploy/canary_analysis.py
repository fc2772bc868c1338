"""Canary analysis: the candidate receives a share of the traffic, and is compared with stable.

Only executed requests count: those of clients, and golden requests where clients send too few. Requests that
the server refuses, because they are invalid or the server is busy, do not count.
"""

import itertools
import math
from collections.abc import Callable

from modelyard.components.deploy.platforms.base import RequestCounts, TrafficWindow
from modelyard.components.deploy.settings import Rollout
from modelyard.components.deploy.verification import PinnedVersion
from modelyard.components.errors import DeployError, ServeError, pluralize

POLL_SECONDS = 0.5
GRACE_SECONDS = 60.0  # after the bake time, to send missing requests or wait for an unready candidate
BURST_SECONDS = 1.0  # of golden requests between two reads of the metrics
REMEDY = "Raise rollout.bake_seconds, or lower rollout.min_requests."  # for too few requests
ERROR_PAUSE_SECONDS = 0.05  # after a golden request that failed


def failure_reason(candidate: RequestCounts, stable: RequestCounts, rollout: Rollout) -> str | None:
    """Return why the candidate fails the analysis, or None.

    It fails if its failed requests exceed the allowed share of its requests, counted as at least
    `rollout.min_requests`. Latency is compared after `rollout.min_requests`, if stable received requests too.
    """
    request_count = max(candidate.requests, rollout.min_requests)
    if candidate.failed > rollout.max_error_rate * request_count:
        return (
            f"{candidate.failed:,} of {pluralize(candidate.requests, 'request')} failed, more than "
            f"{rollout.max_error_rate:.2%} (rollout.max_error_rate)"
        )
    if candidate.requests < rollout.min_requests or not stable.requests:
        return None
    slower = candidate.latency - stable.latency
    if slower > rollout.latency_margin and candidate.latency > rollout.max_latency_ratio * stable.latency:
        return (
            f"its mean latency is {candidate.latency * 1000:.1f} ms and that of stable "
            f"{stable.latency * 1000:.1f} ms; the ratio, {candidate.latency / stable.latency:.1f}, is more "
            f"than {rollout.max_latency_ratio:g} (rollout.max_latency_ratio)"
        )
    return None


def summary(candidate: RequestCounts, stable: RequestCounts) -> str:
    """Return the result of the analysis in a line."""
    clients = pluralize(candidate.client, "client request")
    golden = pluralize(candidate.golden, "golden request")
    requests = f"{clients} and {golden}, {candidate.failed:,} failed"
    if not stable.requests:
        return f"{requests}; latency is not compared, because stable received no requests"
    latency = f"{candidate.latency * 1000:.1f} ms (stable: {stable.latency * 1000:.1f} ms)"
    return f"{requests}; mean latency {latency}"


def analyze(
    name: str,
    pin: PinnedVersion,
    window: TrafficWindow,
    rollout: Rollout,
    now: Callable[[], float],
    sleep: Callable[[float], None],
) -> str:
    """Analyze the candidate for `rollout.bake_seconds` and return the summary.

    The window was opened before clients reached the candidate.

    Raises:
        DeployError: the candidate fails, is slow, restarts or received too few requests.
        Superseded: another rollout took the candidate over.
    """
    instances, last_error = itertools.cycle(pin.golden.instances), ""
    start, prefix = now(), f"Version {pin.version} of {name} failed its canary analysis:"
    while True:
        traffic = window.read()
        if reason := failure_reason(traffic.candidate, traffic.stable, rollout):
            raise DeployError(f"{prefix} {reason}.")
        elapsed = now() - start
        missing = _count_due(elapsed, rollout) - traffic.candidate.requests
        # a candidate that hangs counts no failures
        if traffic.candidate_responding and missing <= 0 and elapsed >= rollout.bake_seconds:
            return summary(traffic.candidate, traffic.stable)
        if elapsed > rollout.bake_seconds + GRACE_SECONDS:
            if not traffic.candidate_responding:
                raise DeployError(
                    f"{prefix} it does not respond or is not ready. Run `modelyard serve {name} --version "
                    f"{pin.version}`, and look for a request that never completes."
                )
            raise DeployError(
                f"{prefix} it received {traffic.candidate.requests} of {rollout.min_requests} requests "
                f"(rollout.min_requests). {last_error or REMEDY}"
            )
        if missing <= 0:
            sleep(POLL_SECONDS)
            continue
        # the Service sends only a share of the requests to the candidate
        requests, end = math.ceil(missing / window.candidate_share()), now() + BURST_SECONDS
        for instance in itertools.islice(instances, requests):
            try:
                window.send(instance)
            except ServeError as error:  # the metrics count the server's failures
                last_error = f"The last error: {error}"
                sleep(ERROR_PAUSE_SECONDS)
            if now() > end:
                break


def _count_due(elapsed: float, rollout: Rollout) -> int:
    """Return how many requests the candidate must have received; 0 in the first half of the bake time."""
    seconds = rollout.bake_seconds
    share = min(1.0, max(0.0, 2 * elapsed / seconds - 1)) if seconds else 1.0
    return math.ceil(rollout.min_requests * share)
