"""Runs whose steps were pods of `modelyard run`: their artifacts in the bucket, their pods; and probes' pods.

<pipeline_root>/20261124-091502-3f9a/…            the artifacts
<pipeline_root>/removed/20261124-091502-3f9a      it goes: no cache believes in it any more
"""

from collections.abc import Iterator
from datetime import datetime
from functools import partial

from modelyard.components.store.address import open_objects
from modelyard.components.store.objects import Objects, delete_all
from modelyard.pipelines.maintenance.local_runs import forget, why_kept
from modelyard.pipelines.maintenance.mark import mark, marked, unmark
from modelyard.pipelines.maintenance.place import OVER, Json, Place, began
from modelyard.pipelines.maintenance.thing import Thing, age
from modelyard.pipelines.runners.pods import pod as pods
from modelyard.pipelines.runners.runs import NAME


def find(place: Place) -> Iterator[Thing]:
    """Yield the pods and the artifacts."""
    if not place.remote:
        return
    yield from _pods(place)
    yield from _probes(place)
    objects = open_objects(place.environment.artifacts())
    going = [name for name in marked(objects) if NAME.fullmatch(name)]
    names = [name for name in objects.folders("") if NAME.fullmatch(name)]
    kept = why_kept(place, names)
    for name in sorted({*names, *going}):
        entries = objects.entries(f"{name}/")
        yield Thing(
            "artifacts",
            name,
            sum(entry.size for entry in entries),
            age(place.now - began(name)),
            None if name in going else kept.get(name),
            partial(_remove, place, objects, name),
        )


def _pods(place: Place) -> Iterator[Thing]:
    for pod in place.pods():
        run = pod["metadata"]["labels"]["modelyard.dev/run"]
        over, dead = pod["status"].get("phase") in OVER, place.dead(run)
        seconds = _age(place, pod)
        followed = seconds < place.environment.active_deadline  # by somebody who wants to know how it ended
        yield Thing(
            "pod",
            pod["metadata"]["name"],
            None,
            "its run is dead" if dead else f"it ended, {age(seconds)}",
            None if dead or (over and not followed) else "its run may live",
            partial(_remove_pod, place, pod),
        )


def _probes(place: Place) -> Iterator[Thing]:
    for pod in place.probes():
        seconds, longest = _age(place, pod), pod["spec"]["activeDeadlineSeconds"]
        over = seconds > longest + place.environment.start_timeout  # no plan follows it any more
        yield Thing(
            "pod",
            pod["metadata"]["name"],
            None,
            f"a probe, {age(seconds)}",
            None if over else "its plan may live",
            partial(_remove_pod, place, pod),
        )


def _age(place: Place, pod: Json) -> float:
    return place.now - datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp()


def _remove_pod(place: Place, pod: Json) -> bool:
    pods.remove_pod(place.cluster(place.environment.runs.namespace), pod["metadata"]["name"])
    return True


def _remove(place: Place, objects: Objects, name: str) -> bool:
    since = mark(objects, name)
    forget(place.home, name)
    if place.alive_since_before(since):
        return False
    return delete_all(objects, objects.entries(f"{name}/")) and unmark(objects, name)
