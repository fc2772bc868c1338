"""The recurring runs that are there, and which of them are modelyard's."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from modelyard.components.errors import ConflictError
from modelyard.pipelines.runners.kfp.client import Backend
from modelyard.pipelines.runners.kfp.lookup import equals
from modelyard.pipelines.runners.kfp.pages import pages
from modelyard.pipelines.schedule.mark import Mark
from modelyard.pipelines.schedule.recurring import stamp

ON, OFF = "ENABLE", "DISABLE"


@dataclass(frozen=True)
class Ours:
    """A recurring run that modelyard made."""

    mark: Mark
    run: Any

    @property
    def id(self) -> str:
        """Return what Kubeflow Pipelines calls it."""
        return str(self.run.recurring_run_id)

    @property
    def edition(self) -> tuple[int, str]:
        """Return which of its name it is, and of what."""
        return self.mark.generation, self.mark.sha256

    @property
    def on(self) -> bool:
        """Say whether it fires."""
        return bool(self.run.mode == ON)


def everything(backend: Backend) -> list[Ours]:
    """Return modelyard's recurring runs, of each name the one that stays last."""
    return _ranked(one for run in _listed(backend) if (one := _ours(run)))


def named(backend: Backend, name: str) -> list[Ours]:
    """Return the recurring runs of a name, the one that stays last.

    Raises:
        ConflictError: one of them is not modelyard's.
    """
    found = list(_listed(backend, filter=equals("display_name", name)))
    ours = [one for run in found if (one := _ours(run))]
    if len(ours) < len(found):
        raise ConflictError(
            f"There is a recurring run {name} at {backend.endpoint}, and modelyard did not make it, so it is "
            "left alone. Remove it, or give the model another name."
        )
    return _ranked(ours)


def switch(backend: Backend, one: Ours, *, on: bool) -> None:
    """Let a recurring run fire, or not."""
    api = backend.recurring_runs
    way = (
        api.recurring_run_service_enable_recurring_run
        if on
        else api.recurring_run_service_disable_recurring_run
    )
    way(one.id)


def _ranked(ours: Any) -> list[Ours]:
    # whoever looks sees the same order, so that two commands at once leave the same one
    return sorted(ours, key=lambda one: (one.mark.name, one.mark.generation, one.id))


def _ours(run: Any) -> Ours | None:
    mark = stamp.read(run)
    return Ours(mark, run) if mark else None


def _listed(backend: Backend, **wanted: str) -> Iterator[Any]:
    ask = backend.recurring_runs.recurring_run_service_list_recurring_runs
    return pages(ask, "recurring_runs", **wanted, **backend.scoped())
