"""A mark in the bucket for a run that goes: since then no cache gives its artifacts to a run that starts.

    <pipeline_root>/removed/<the run's name or id>      holds whose cache it is, where several have one

Runs that began before it may have them from the cache, and those after it have not.
"""

from contextlib import suppress

from modelyard.components.errors import ConflictError, NotFoundError
from modelyard.components.store.objects import Objects
from modelyard.pipelines.runners.pods.run import REMOVED


def marked(objects: Objects, owner: str = "") -> list[str]:
    """Return the runs that go, of one owner."""
    keys = objects.keys(REMOVED)
    return [key.removeprefix(REMOVED) for key in keys if _owner(objects, key) == owner]


def mark(objects: Objects, name: str, owner: str = "") -> float:
    """Mark a run, and return since when it is marked, in epoch seconds."""
    key = f"{REMOVED}{name}"
    with suppress(ConflictError):  # by a `gc` that was killed, or had to wait
        objects.create(key, owner.encode())
    return next((entry.changed for entry in objects.entries(REMOVED) if entry.key == key), float("inf"))


def unmark(objects: Objects, name: str) -> bool:
    """Take the mark away, once nothing is left; say whether it is gone."""
    return all(objects.delete(entry) for entry in objects.entries(REMOVED) if entry.key == f"{REMOVED}{name}")


def _owner(objects: Objects, key: str) -> str | None:
    try:
        data, _ = objects.read(key)
    except NotFoundError:  # another `gc` has done its work
        return None
    return data.decode()
