"""Checkpoints of trainings that nobody started again: one that ends takes its own away."""

from collections.abc import Iterator
from functools import partial

from components.store.address import open_objects
from pipelines.cleanup.place import Place
from pipelines.cleanup.thing import Thing, age

PREFIX = "checkpoints/"


def find(place: Place) -> Iterator[Thing]:
    """Yield the checkpoints, of all models in the store; one that is written anew meanwhile stays.

    Raises:
        StoreError: the store cannot be read.
    """
    objects = open_objects(place.config.store)
    for entry in objects.entries(PREFIX):
        young = f"younger than {place.policy.younger_than}" if entry.changed > place.oldest else None
        yield Thing(
            "checkpoint",
            entry.key,
            entry.size,
            f"{age(place.now - entry.changed)}, and its training was not started again",
            place.blind or young,
            partial(objects.delete, entry),
        )
