"""Stable: the servers of the champion. The pointer in the store is the truth, and stable follows it."""

from functools import partial

from components.deploy import objects
from components.deploy.site import Place, Site
from components.deploy.waiting import until_complete
from components.kubernetes.trouble import Json
from components.store.records import Champion

REVISION = "deployment.kubernetes.io/revision"  # grows with each use of a ReplicaSet


class _Outdated(Exception):  # noqa: N818
    """Stable is being brought to another version by somebody else: look at the pointer again."""


def image(place: Place, version: int | None) -> str | None:
    """Return the image with which stable served a version last, as far as Kubernetes remembers it.

    Else the one that it has now; None when there is no stable.
    """
    labels = objects.selector(place.name, "stable", version)
    sets = place.cluster.find("ReplicaSet", labels) if version else []
    last = max(sets, key=lambda one: int(objects.annotation(one, REVISION) or 0), default=None)
    found = last or place.deployment("stable")
    return objects.image(found) if found else None


def settle(site: Site) -> Champion | None:
    """Bring stable to the champion pointer, unless it is there already; return the pointer.

    Raises:
        DeployError: its pods do not run.
    """
    champion, stable = site.champion(), site.deployment("stable")
    if champion is None:
        return None
    found = stable and (objects.version(stable), objects.annotation(stable, objects.DIGEST))
    if found == (champion.version, champion.digest):
        return champion
    was = f"version {found[0]}" if found else "nothing"
    site.say(f"stable serves {was} and the champion is version {champion.version}: bringing it there")
    return put(site)


def put(site: Site) -> Champion | None:
    """Bring stable to the champion pointer, whatever it is, until the pointer stays; return the pointer.

    Raises:
        DeployError: its pods do not run.
    """
    while champion := site.champion():
        written = site.put_stable(champion.version, champion.digest)
        try:
            until_complete(site, "stable", partial(_same, written))
        except _Outdated:
            continue
        if site.champion() == champion:
            break
    if site.deployment("candidate") is None:
        site.lead(canary=False)
    return champion


def _same(written: Json, found: Json | None) -> Json:
    """Return stable's Deployment while it is for the version that was written."""
    if found is None or objects.version(found) != objects.version(written):
        raise _Outdated
    return found
