"""Whether a candidate may stay: pure functions of what it and stable answered, and of what is asked for."""

from modelyard.components.deploy.settings import Rollout
from modelyard.components.deploy.traffic import Counts


def objection(candidate: Counts, stable: Counts, rollout: Rollout) -> str | None:
    """Return what speaks against the candidate, or None when nothing does so far.

    Failures count as soon as there are more than the judged requests may have. The time of an answer counts
    once there are enough requests, and beside a stable that answered the same clients meanwhile.
    """
    judged = max(candidate.requests, rollout.min_requests)
    if candidate.failed > rollout.max_error_rate * judged:
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


def judged(candidate: Counts, stable: Counts) -> str:
    """Return what was judged, in a few words."""
    words = (
        f"{candidate.client} client requests and {candidate.golden} golden ones, {candidate.failed} failed"
    )
    if not stable.requests:
        return f"{words}; there was no stable to compare the time of an answer with"
    return (
        f"{words}, {candidate.latency * 1000:.1f} ms an answer beside stable's {stable.latency * 1000:.1f} ms"
    )
