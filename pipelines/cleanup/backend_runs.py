"""Runs of the model on Kubeflow Pipelines: their records, and their artifacts in the bucket.

    <pipeline_root>/train-to-serve/<id of the run>/…

The record goes first, and with it what the server's cache has of the run: no run that starts after that uses
its artifacts. They go when no run is in flight that began before; else a later `gc` takes them.
"""

import re
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from components.errors import NotFoundError
from components.store.address import open_objects
from components.store.objects import Objects
from components.store.removal import clear
from pipelines.backend import records
from pipelines.backend.lookup import find_experiment
from pipelines.cleanup.mark import mark, unmark
from pipelines.cleanup.place import PAGE, Place, runs
from pipelines.cleanup.thing import Thing, age
from pipelines.train_to_serve import NAME

FEW = 10
SKEW = 60.0  # seconds by which clocks may differ
ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def find(place: Place) -> Iterator[Thing]:
    """Yield the model's runs, and artifacts whose run is gone.

    Raises:
        BackendError: the server stopped to answer.
        StoreError: the bucket cannot be read.
    """
    if not place.backend:
        return
    everything = {run.run_id for run in place.server_runs}
    mine = _of_model(place)
    kept = _why_kept(place, mine)
    objects = open_objects(place.environment.artifacts())
    with_artifacts = objects.folders(f"{NAME}/")
    for run in mine:
        yield Thing(
            "run",
            run.display_name,
            _size(objects, run.run_id) if run.run_id in with_artifacts else 0,
            age(place.now - run.created_at.timestamp()),
            kept.get(run.run_id),
            partial(_remove, place, objects, run.run_id),
        )
    for run_id in with_artifacts:
        if ID.fullmatch(run_id) and run_id not in everything:
            entries = objects.entries(f"{NAME}/{run_id}/")
            changed = max((entry.changed for entry in entries), default=0.0)
            yield Thing(
                "artifacts",
                f"{NAME}/{run_id}",
                sum(entry.size for entry in entries),
                "its run is gone",
                f"younger than {place.policy.younger_than}" if changed > place.oldest else None,
                partial(_remove, place, objects, run_id),
            )


def recurring_runs(backend: Any) -> Iterator[Any]:
    """Yield the recurring runs on the server, whoever made them."""
    token = ""
    while True:
        page = backend.recurring_runs.recurring_run_service_list_recurring_runs(
            page_size=PAGE, page_token=token, **backend.scoped()
        )
        yield from page.recurring_runs or ()
        if not (token := page.next_page_token or ""):
            return


def in_flight(run: Any) -> bool:
    """Say whether a run has not ended."""
    return records.state(run) not in records.ENDED


def _of_model(place: Place) -> list[Any]:
    """Return the runs of the model, the latest first."""
    experiment = find_experiment(place.backend, place.config.name)
    return [run for run in place.server_runs if experiment and run.experiment_id == experiment]


def _why_kept(place: Place, mine: list[Any]) -> dict[str, str]:
    kept: dict[str, str] = {}
    for number, run in enumerate(mine):
        if in_flight(run):
            kept[run.run_id] = "it runs"
        elif number < place.policy.runs:
            kept[run.run_id] = f"one of the last {place.policy.runs}"
        elif run.created_at.timestamp() > place.oldest:
            kept[run.run_id] = f"younger than {place.policy.younger_than}"
    names = {run.run_id: run.display_name for run in mine}
    for run_id in list(kept):
        for used in _uses(place, run_id) - kept.keys():
            kept[used] = f"{names[run_id]} uses it"
    return kept


def _uses(place: Place, run_id: str) -> set[str]:
    """Return the runs whose artifacts a run took from the cache, as far as its record tells."""
    try:
        text = place.backend.text(f"/apis/v1beta1/runs/{run_id}")  # with the Workflow, which names artifacts
    except NotFoundError:
        return set()
    return set(re.findall(rf"/{NAME}/({ID.pattern})/", text))


def _remove(place: Place, objects: Objects, run_id: str) -> bool:
    try:
        run = place.backend.runs.run_service_get_run(run_id)
        if in_flight(run):  # somebody tries it again
            return False
        place.backend.runs.run_service_delete_run(run_id)
    except NotFoundError:
        pass  # a `gc` before was killed, or somebody else was faster
    if _in_flight_since_before(place, mark(objects, run_id)):
        return False
    return clear(objects, objects.entries(f"{NAME}/{run_id}/")) and unmark(objects, run_id)


def _in_flight_since_before(place: Place, moment: float) -> bool:
    """Say whether a run is in flight that began before a moment; none lasts longer than its deadline."""
    for run in runs(place.backend, size=FEW):
        began = run.created_at.timestamp()
        if began < time.time() - 2 * place.environment.active_deadline:
            return False
        if in_flight(run) and began < moment + SKEW:
            return True
    return False


def _size(objects: Objects, run_id: str) -> int:
    return sum(entry.size for entry in objects.entries(f"{NAME}/{run_id}/"))
