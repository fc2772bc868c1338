"""Checkpoints of trainings that nobody started again: one that ends takes its own away."""

import re
from collections.abc import Iterator
from functools import partial

from modelyard.components.store.address import open_objects
from modelyard.pipelines.maintenance.place import Place
from modelyard.pipelines.maintenance.thing import Thing, age

NAMED = re.compile(r"checkpoints/[0-9a-f]{64}/state\.npz")


def find(place: Place) -> Iterator[Thing]:
    """Yield the checkpoints, of all models in the store; one that is written anew meanwhile stays.

    Raises:
        StoreError: the store cannot be read.
    """
    objects = open_objects(place.config.store)
    living = place.now - place.environment.active_deadline  # a run that wrote it may live as long
    for entry in objects.entries("checkpoints/"):
        if NAMED.fullmatch(entry.key):
            young = f"younger than {place.policy.younger_than}" if entry.changed > place.oldest else None
            used = "its training may still be at work" if entry.changed > living else None
            yield Thing(
                "checkpoint",
                entry.key,
                entry.size,
                f"{age(place.now - entry.changed)}, and its training was not started again",
                place.blind or young or used,
                partial(objects.delete, entry),
            )
