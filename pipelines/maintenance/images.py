"""Tags of images in this machine's Docker that `make images` made, and that nothing names any more.

A registry's own tags are left alone: clusters pull from it by digest, nobody here sees all of them, and each
registry has a policy of its own for that.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

from modelyard.components.deploy import objects
from modelyard.pipelines.environments.environment import BUILT
from modelyard.pipelines.maintenance.place import MANAGED, Place
from modelyard.pipelines.maintenance.thing import Thing, age

OURS = re.compile(r"(.+/)?modelyard/[a-z-]+:[0-9a-f]{16}")


def find(place: Place) -> Iterator[Thing]:
    """Yield the tags; none where there is no Docker, or where nobody ran `make images`.

    Raises:
        ClusterError: it cannot be seen what the servers use.
    """
    if not Path(BUILT).is_file():  # then it is not known which of them are needed
        return
    lines = _docker("image", "ls", "--format", "{{json .}}")
    images = {f"{one['Repository']}:{one['Tag']}": one for one in map(json.loads, lines)}
    ours = sorted(name for name in images if OURS.fullmatch(name))
    used, tagged = _used(place), _tagged(ours, place.now)
    for reference in ours:
        names = (reference, f"{images[reference]['Repository']}@{images[reference]['Digest']}")
        young = f"younger than {place.policy.younger_than}" if tagged[reference] > place.oldest else None
        yield Thing(
            "image",
            reference,
            None,
            f"{age(place.now - tagged[reference])}, and nothing here names it",
            next((used[name] for name in names if name in used), young),
            partial(_remove, reference),
        )


def _tagged(references: list[str], now: float) -> dict[str, float]:
    """Return when images were made here, in epoch seconds; `now` where it is not known."""
    times = dict.fromkeys(references, now)
    found = json.loads("\n".join(_docker("image", "inspect", *references)) or "[]") if references else []
    for image in found:
        # what is built the same way has the same date of creation, wherever and whenever
        moments = (image["Created"], image.get("Metadata", {}).get("LastTagTime") or image["Created"])
        latest = max(datetime.fromisoformat(moment).timestamp() for moment in moments)
        times |= dict.fromkeys(image["RepoTags"], latest)
    return times


def _used(place: Place) -> dict[str, str]:
    """Return why an image is in use, by its reference."""
    used = dict.fromkeys(json.loads(Path(BUILT).read_text(encoding="utf-8")).values(), f"{BUILT} names it")
    used |= dict.fromkeys(place.environment.images.values(), "the environment names it")
    if place.remote:
        for one in place.cluster(place.environment.serving.namespace).list("Deployment", MANAGED):
            used[objects.image(one)] = f"{one['metadata']['name']} runs it"
    return used


def _remove(reference: str) -> bool:
    _docker("image", "rm", "--no-prune", reference)  # refused while a container runs it
    return reference not in _docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")


def _docker(*arguments: str) -> list[str]:
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []
    return done.stdout.splitlines()
