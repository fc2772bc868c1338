"""Recurring runs of the model that another one took the place of."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from modelyard.pipelines.maintenance.place import Place
from modelyard.pipelines.maintenance.thing import Thing

if TYPE_CHECKING:
    from modelyard.pipelines.schedule.recurring.inventory import Ours


def find(place: Place) -> Iterator[Thing]:
    """Yield the recurring runs of modelyard that are called after the model.

    Raises:
        BackendError: the server stopped to answer.
    """
    if not place.backend:
        return
    ours = _ours(place)
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


def _ours(place: Place) -> list["Ours"]:
    """Return the model's, the one in force last."""
    from modelyard.pipelines.schedule.recurring.inventory import everything

    known = (place.config.name, place.config.store.url)
    return [one for one in everything(place.backend) if (one.mark.name, one.mark.store) == known]


def _remove(place: Place, run_id: str) -> bool:
    """Delete a recurring run, unless its own runs would go with it."""
    from rich.console import Console

    from modelyard.pipelines.schedule.recurring.retirement import retire

    old = [one for one in _ours(place)[:-1] if one.id == run_id and not one.on]
    return not retire(place.backend, old, Console(quiet=True))
