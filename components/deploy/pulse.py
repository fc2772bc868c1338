"""The pulse of a rollout: a time at its candidate, which says that somebody still watches it.

A rollout that is killed leaves its candidate behind, perhaps before clients. Nobody is kept from anything by
a pulse: it only tells such a candidate from one that is being watched.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from modelyard.components.deploy import objects
from modelyard.components.deploy.site import Place
from modelyard.components.errors import ClusterError
from modelyard.components.kubernetes.pod_problem import Json

BEAT = 10.0  # seconds
SILENCE = timedelta(seconds=60)  # clocks differ, and an API server may be away for a moment
MANAGER = "modelyard-pulse"  # it owns the time alone, so that the rest of the Deployment stays deploy's


@contextmanager
def beating(place: Place, attempt: str) -> Iterator[None]:
    """Let the candidate of a rollout show during a block that it is watched."""
    end = threading.Event()
    thread = threading.Thread(target=_beat, args=(place, attempt, end), name="pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()


def last(candidate: Json) -> datetime | None:
    """Return when a candidate was watched last, else made, in UTC; None when it does not say."""
    made = str(candidate["metadata"].get("creationTimestamp", ""))
    with suppress(ValueError):
        at = datetime.fromisoformat(objects.annotation(candidate, objects.WATCHED) or made)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    return None


def stopped(candidate: Json) -> bool:
    """Say whether nobody watches a candidate any more."""
    seen = last(candidate)
    return seen is None or datetime.now(UTC) - seen > SILENCE


def beat(place: Place, attempt: str) -> None:
    """Write the time at the candidate, if it is of this rollout; a beat that fails is no trouble."""
    with suppress(ClusterError):
        found = place.deployment("candidate")
        if found and objects.annotation(found, objects.ATTEMPT) == attempt:
            place.cluster.apply(objects.watched(found), MANAGER)


def _beat(place: Place, attempt: str, end: threading.Event) -> None:
    while not end.wait(BEAT):
        beat(place, attempt)
