"""Datasets and code that were put into the store for runs, and that no version and no run names any more."""

import json
import re
from collections.abc import Collection, Iterator
from functools import partial

from modelyard.components.store.address import open_objects
from modelyard.components.store.models import ModelStore
from modelyard.components.store.objects import Entry, Objects
from modelyard.pipelines.compile.uploads import CODE, DATA
from modelyard.pipelines.maintenance.backend_runs import in_flight, parameters, recurring_runs
from modelyard.pipelines.maintenance.place import Place
from modelyard.pipelines.maintenance.thing import Thing, age

NAMED = re.compile(rf"(?:{DATA}|{CODE})/[0-9a-f]{{64}}(?:\.zip)?")


def find(place: Place, going: Collection[Thing]) -> Iterator[Thing]:
    """Yield the uploads, of all models in the store.

    Args:
        place: where to look.
        going: what goes before them.

    Raises:
        BackendError: Kubeflow Pipelines stopped to answer.
        StoreError: the store cannot be read.
    """
    objects = open_objects(place.config.store)
    entries = [*objects.entries(f"{DATA}/"), *objects.entries(f"{CODE}/")]
    named: dict[str, str] = {}
    for who, text in _texts(place, ModelStore(objects), {thing.name for thing in going}) if entries else ():
        named |= dict.fromkeys(NAMED.findall(text), who)
    for entry in entries:
        if NAMED.fullmatch(entry.key):
            why = f"younger than {place.policy.younger_than}" if entry.changed > place.oldest else None
            yield Thing(
                "upload",
                entry.key,
                entry.size,
                f"{age(place.now - entry.changed)}, and nobody names it",
                named.get(entry.key) or place.blind or why,
                partial(_remove, place, objects, entry),
            )


def _texts(place: Place, models: ModelStore, going: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield everything that may name an upload, and what it is."""
    for name in models.names():
        for version in models.versions(name):
            if f"{name}/{version}" not in going:
                manifest = models.manifest(name, version)
                yield f"{name} {version} was made of it", json.dumps(manifest.config)
    for pipeline in (place.home / "runs").glob("*/pipeline.yaml"):
        if f"{pipeline.parent.name} (this machine)" not in going:
            yield f"{pipeline.parent.name} was made of it", pipeline.read_text(encoding="utf-8")
    if place.backend:
        for run in place.server_runs:
            if run.display_name not in going:
                yield f"{run.display_name} was made of it", json.dumps(parameters(run))
        for one in recurring_runs(place.backend):
            yield f"the schedule {one.display_name} needs it", json.dumps(parameters(one))


def _remove(place: Place, objects: Objects, entry: Entry) -> bool:
    """Delete an upload, unless a run names it that was tried again since it was shown."""
    runs = in_flight(place.backend) if place.backend else ()
    return not any(entry.key in json.dumps(parameters(run)) for run in runs) and objects.delete(entry)
