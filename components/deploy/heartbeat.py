"""The heartbeat of a rollout, an annotation of its candidate: without it, the rollout was killed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from modelyard.components.deploy import objects
from modelyard.components.deploy.serving_platform import ModelDeployment
from modelyard.components.errors import ClusterError
from modelyard.components.kubernetes import Json

HEARTBEAT_SECONDS = 10.0
HEARTBEAT_LOST = timedelta(seconds=60)  # clocks differ, and an API server may be unavailable for a moment
HEARTBEAT_MANAGER = "modelyard-heartbeat"  # owns that annotation alone; the rest stays deploy's


@contextmanager
def heartbeat(model: ModelDeployment, token: str) -> Iterator[None]:
    """Write heartbeats at the candidate of a rollout during a block.

    A rollout that is killed leaves its candidate behind, perhaps among clients. The heartbeat tells such a
    candidate from one whose rollout runs; it is no lock.
    """
    end = threading.Event()

    def run() -> None:
        while not end.wait(HEARTBEAT_SECONDS):
            beat(model, token)

    threading.Thread(target=run, name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        end.set()


def last_heartbeat(candidate: Json) -> datetime | None:
    """Return the time of a candidate's last heartbeat, else of its creation, in UTC; None if unknown."""
    created = str(candidate["metadata"].get("creationTimestamp", ""))
    with suppress(ValueError):
        at = datetime.fromisoformat(objects.annotation(candidate, objects.HEARTBEAT) or created)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    return None


def is_abandoned(candidate: Json) -> bool:
    """Return whether a candidate's rollout runs no more."""
    at = last_heartbeat(candidate)
    return at is None or datetime.now(UTC) - at > HEARTBEAT_LOST


def beat(model: ModelDeployment, token: str) -> None:
    """Write a heartbeat at the candidate, if it is of this rollout; one that fails does not matter."""
    with suppress(ClusterError):
        found = model.deployment("candidate")
        if found and objects.annotation(found, objects.TOKEN) == token:
            model.cluster.apply(objects.heartbeat(found), HEARTBEAT_MANAGER)
