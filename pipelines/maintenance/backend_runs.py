"""Runs of the model on Kubeflow Pipelines: their records, and their artifacts in the bucket.

    <pipeline_root>/train-to-serve/<id of the run>/…
    <pipeline_root>/removed/<id of the run>     it goes; artifacts without this may be another server's

The record goes first, and with it what the server's cache has of the run: no run that starts after that uses
its artifacts. They go when no run is in flight that began before; else a later `gc` takes them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from pydantic import ValidationError

from modelyard.components.errors import NotFoundError
from modelyard.components.store.address import open_objects
from modelyard.components.store.objects import Objects, delete_all
from modelyard.components.store.settings import Store
from modelyard.pipelines.maintenance.mark import mark, marked, unmark
from modelyard.pipelines.maintenance.place import SKEW, Place
from modelyard.pipelines.maintenance.thing import Thing, age
from modelyard.pipelines.runners.kfp import records
from modelyard.pipelines.runners.kfp.lookup import find_experiment
from modelyard.pipelines.runners.kfp.pages import pages
from modelyard.pipelines.runners.kfp.records import ID
from modelyard.pipelines.train_to_serve import NAME

IN_FLIGHT = json.dumps(
    {
        "predicates": [
            {"operation": "NOT_EQUALS", "key": "state", "string_value": state}
            for state, word in records.STATES.items()
            if word in records.ENDED
        ]
    }
)


def find(place: Place) -> Iterator[Thing]:
    """Yield the model's runs, and artifacts whose run is gone.

    Raises:
        BackendError: the server stopped to answer.
        StoreError: the bucket cannot be read.
    """
    if not place.backend:
        return
    experiment = find_experiment(place.backend, place.config.name)
    if experiment is None:
        return
    objects = open_objects(place.environment.artifacts())
    with_artifacts = objects.folders(f"{NAME}/")
    mine = _of_model(place, experiment)
    kept = _why_kept(place, mine)
    for run in mine:
        yield Thing(
            "run",
            run.display_name,
            _size(objects, run.run_id) if run.run_id in with_artifacts else 0,
            age(place.now - run.created_at.timestamp()),
            kept.get(run.run_id),
            partial(_remove, place, objects, run.run_id, experiment),
        )
    there = {run.run_id for run in place.server_runs}
    for run_id in marked(objects, experiment):
        if run_id not in there:
            yield Thing(
                "artifacts",
                f"{NAME}/{run_id}",
                _size(objects, run_id),
                "its run is gone",
                None,
                partial(_remove, place, objects, run_id, experiment),
            )


def recurring_runs(backend: Any) -> Iterator[Any]:
    """Yield the recurring runs on the server, whoever made them."""
    ask = backend.recurring_runs.recurring_run_service_list_recurring_runs
    return pages(ask, "recurring_runs", **backend.scoped())


def in_flight(backend: Any) -> Iterator[Any]:
    """Yield the runs on the server that have not ended, whoever made them."""
    return records.runs(backend, filter=IN_FLIGHT, **backend.scoped())


def parameters(run: Any) -> Mapping[str, Any]:
    """Return the arguments of a run or a recurring run, whoever made it."""
    return (run.runtime_config.parameters if run.runtime_config else None) or {}


def _of_model(place: Place, experiment: str) -> list[Any]:
    """Return the runs of the model, the latest first; another store's model may have the same name."""
    ours = (experiment, place.config.store.url)
    return [run for run in place.server_runs if (run.experiment_id, _store(run)) == ours]


def _store(run: Any) -> str | None:
    """Return the store of a run of modelyard; None for a run of others."""
    given = parameters(run)
    try:
        return Store.model_validate_json(str(given.get("store"))).url if "recipe" in given else None
    except ValidationError:
        return None


def _why_kept(place: Place, mine: list[Any]) -> dict[str, str]:
    kept: dict[str, str] = {}
    for number, run in enumerate(mine):
        if records.goes_on(run):
            kept[run.run_id] = "it runs"
        elif number < place.policy.runs:
            kept[run.run_id] = f"one of the last {place.policy.runs}"
        elif run.created_at.timestamp() > place.oldest:
            kept[run.run_id] = f"younger than {place.policy.younger_than}"
    ids = {run.run_id for run in mine}
    if kept.keys() == ids:
        return kept
    for run in place.server_runs:  # the cache is one for all models
        if run.run_id in kept or (run.run_id not in ids and _store(run)):
            for used in _uses(place, run.run_id) - kept.keys():
                kept[used] = f"{run.display_name} uses it"
    return kept


def _uses(place: Place, run_id: str) -> set[str]:
    """Return the runs whose artifacts a run took from the cache, as far as its record tells."""
    try:
        text = place.backend.text(f"/apis/v1beta1/runs/{run_id}")  # with the Workflow, which names artifacts
    except NotFoundError:
        return set()
    return set(re.findall(rf"/{NAME}/({ID.pattern})/", text))


def _remove(place: Place, objects: Objects, run_id: str, experiment: str) -> bool:
    try:
        if records.goes_on(place.backend.runs.run_service_get_run(run_id)):  # somebody tries it again
            return False
        unmark(objects, run_id)  # of a `gc` that was killed: what counts is when the record goes
        mark(objects, run_id, experiment)
        place.backend.runs.run_service_delete_run(run_id)
    except NotFoundError:
        pass  # a `gc` before was killed, or somebody else was faster
    since = mark(objects, run_id, experiment) + SKEW
    if any(run.created_at.timestamp() < since for run in in_flight(place.backend)):
        return False
    return delete_all(objects, objects.entries(f"{NAME}/{run_id}/")) and unmark(objects, run_id)


def _size(objects: Objects, run_id: str) -> int:
    return sum(entry.size for entry in objects.entries(f"{NAME}/{run_id}/"))
