"""A mark in the bucket for a run that goes: since then no cache gives its artifacts to a run that starts.

    <pipeline_root>/removed/<the run's name or id>

Runs that began before it may have them from the cache, and those after it have not.
"""

from contextlib import suppress

from components.errors import ConflictError
from components.store.objects import Objects
from pipelines.pods.run import REMOVED


def marked(objects: Objects) -> list[str]:
    """Return the runs that go."""
    return [key.removeprefix(REMOVED) for key in objects.keys(REMOVED)]


def mark(objects: Objects, name: str) -> float:
    """Mark a run, and return since when it is marked, in epoch seconds."""
    key = f"{REMOVED}{name}"
    with suppress(ConflictError):  # by a `gc` that was killed, or had to wait
        objects.create(key, b"")
    return next((entry.changed for entry in objects.entries(REMOVED) if entry.key == key), float("inf"))


def unmark(objects: Objects, name: str) -> bool:
    """Take the mark away, once nothing is left; say whether it is gone."""
    return all(objects.delete(entry) for entry in objects.entries(REMOVED) if entry.key == f"{REMOVED}{name}")
