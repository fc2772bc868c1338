"""Recurring runs of the model that another one took the place of."""

from collections.abc import Iterator
from functools import partial

from pipelines.cleanup.place import Place
from pipelines.cleanup.thing import Thing


def find(place: Place) -> Iterator[Thing]:
    """Yield the recurring runs of modelyard that are called after the model.

    Raises:
        BackendError: the server stopped to answer.
        ConflictError: one of that name is not modelyard's.
    """
    if not place.backend:
        return
    from pipelines.schedule.recurring.inventory import named

    ours = named(place.backend, place.config.name)
    for one in ours:
        generation = f"generation {one.mark.generation}"
        kept = "it is in force" if one is ours[-1] else "it fires" if one.on else None
        yield Thing(
            "schedule",
            f"{one.mark.name}, {generation}",
            None,
            "replaced, and switched off",
            kept,
            partial(_remove, place, one.id),
        )


def _remove(place: Place, run_id: str) -> bool:
    """Delete a recurring run, unless its own runs would go with it."""
    from rich.console import Console

    from pipelines.schedule.recurring.inventory import named
    from pipelines.schedule.recurring.retirement import retire

    old = [one for one in named(place.backend, place.config.name)[:-1] if one.id == run_id and not one.on]
    return not retire(place.backend, old, Console(quiet=True))
