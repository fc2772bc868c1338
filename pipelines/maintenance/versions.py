"""Versions of the model that nothing needs any more, and what killed runs left of others."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial

from modelyard.components.deploy import objects
from modelyard.components.store.models import GRACE, ModelStore, VersionFiles, open_store
from modelyard.pipelines.maintenance.place import MANAGED, SKEW, ZONES, Place, began
from modelyard.pipelines.maintenance.thing import Thing, age
from modelyard.pipelines.runners.kfp import records


def find(place: Place) -> Iterator[Thing]:
    """Yield the versions of the model.

    Raises:
        ClusterError: it cannot be seen what the servers use.
        StoreError: the store cannot be read.
    """
    models, name = open_store(place.config.store), place.config.name
    held = models.stored_files(name)
    used = _used(place, models) if held else {}
    last = [one.version for one in held if one.whole][::-1][: place.policy.versions]
    for one in held:
        why = used.get(one.version) or (
            f"one of the last {place.policy.versions}" if one.version in last else None
        )
        yield Thing(
            "version",
            f"{name}/{one.version}",
            one.size,
            age(place.now - one.changed) if one.whole else "left behind by a run that was killed",
            why or _young(place, one) or (None if place.remote else place.blind or None),
            partial(_remove, place, models, one.version),
        )


def _young(place: Place, one: VersionFiles) -> str | None:
    if one.changed > place.oldest or (not one.whole and one.changed > place.now - GRACE):
        return f"younger than {place.policy.younger_than}" if one.whole else "perhaps still written"
    return None


def _used(place: Place, models: ModelStore) -> dict[int, str]:
    """Return why a version is in use."""
    name = place.config.name
    used: dict[int, str] = {}
    since = _oldest_run(place)
    for entry in models.history(name):
        # a run that began before may still compare with it
        if datetime.fromisoformat(entry.at).timestamp() > since:
            champions = [version for version in (entry.version, entry.previous) if version]
            used |= dict.fromkeys(champions, "champion since a run began that may compare with it")
    if champion := models.champion(name):
        compared = models.manifest(name, champion.version).decision.champion
        used |= {compared: "what the champion was compared with"} if compared else {}
        used |= {champion.previous: "the champion before"} if champion.previous else {}
        used[champion.version] = "the champion"
    return used | _served(place)


def _oldest_run(place: Place) -> float:
    """Return when the oldest run began that may be in flight, in epoch seconds.

    One that is tried again keeps the time at which it began, and the champion that it found then.
    """
    if place.blind:
        return 0.0
    times = [place.now - place.environment.active_deadline]
    times += [run.created_at.timestamp() - SKEW for run in place.server_runs if records.goes_on(run)]
    return min([*times, *(began(name) - ZONES for name in place.alive())])


def _served(place: Place) -> dict[int, str]:
    """Return what serves a version on the cluster."""
    if not place.remote:
        return {}
    cluster = place.cluster(place.environment.serving.namespace)
    found = cluster.list("Deployment", f"{MANAGED},{objects.NAME}={place.config.name}")
    return {objects.version(one): f"served by {one['metadata']['name']}" for one in found}


def _remove(place: Place, models: ModelStore, version: int) -> bool:
    """Remove a version, unless somebody put it before clients since it was shown."""
    return version not in _served(place) and models.remove(place.config.name, version)
