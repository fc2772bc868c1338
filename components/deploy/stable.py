"""Stable: the servers of the champion. The pointer in the store is the truth, and stable follows it.

Whatever brings it there, its pods answer the golden requests in the end, or it gets back what it had.
"""

from contextlib import suppress
from functools import partial

from modelyard.components.deploy import golden, objects
from modelyard.components.deploy.site import Place, Site
from modelyard.components.deploy.version import Served, pinned
from modelyard.components.deploy.waiting import until_complete
from modelyard.components.errors import ClusterError, DeployError, StoreError, UnreachableError
from modelyard.components.kubernetes.cluster import retry_on_conflict
from modelyard.components.kubernetes.pod_problem import Json
from modelyard.components.store.records import Champion

REVISION = "deployment.kubernetes.io/revision"  # grows with each use of a ReplicaSet
SOMEBODY_ELSE = "Somebody else brings stable to another version."


class _Outdated(Exception):  # noqa: N818
    """Stable is being brought to another version by somebody else: look at the pointer again."""


def image(place: Place, version: int | None) -> str | None:
    """Return the image with which stable served a version last, as far as Kubernetes remembers it.

    Else the one that it has now; None when there is no stable.
    """
    labels = objects.selector(place.name, "stable", version)
    sets = place.cluster.list("ReplicaSet", labels) if version else []
    last = max(sets, key=lambda one: int(objects.annotation(one, REVISION) or 0), default=None)
    found = last or place.deployment("stable")
    return objects.image(found) if found else None


def settle(site: Site) -> Champion | None:
    """Bring stable to the champion pointer, unless it is there already; return the pointer.

    Raises:
        DeployError: its pods do not run, or answer otherwise than evaluate saw; and what serves.
    """
    champion, stable = site.champion(), site.deployment("stable")
    if champion is None:
        return None
    found = stable and (objects.version(stable), objects.annotation(stable, objects.DIGEST))
    if stable and found == (champion.version, champion.digest):
        with suppress(_Outdated):
            until_complete(site, "stable", partial(_same, stable))  # with the image that it has
            return champion
    else:
        was = f"version {found[0]}" if found else "nothing"
        site.say(f"stable serves {was} and the champion is version {champion.version}: bringing it there")
    return bring(site)


def bring(site: Site) -> Champion | None:
    """Bring stable to the champion pointer, or back to what it was; return the pointer.

    Raises:
        DeployError: its pods do not run, or answer otherwise than evaluate saw; and what serves.
    """
    seen = site.deployment("stable")
    try:
        return put(site)
    except DeployError as error:
        raise DeployError(f"{error} {put_back(site, seen)}") from error


def put_back(site: Site, seen: Json | None) -> str:
    """Bring stable back to the Deployment that was seen, None for none; say in a sentence how that went."""
    now = site.deployment("stable")
    if seen is None:
        return retry_on_conflict(f"Deployment {site.name}-stable", partial(_removed, site, now))
    version = objects.version(seen)
    if now and now["spec"]["template"] == seen["spec"]["template"]:
        return f"Stable goes on with the servers of version {version} that run."
    try:
        written = site.put_stable(version, objects.annotation(seen, objects.DIGEST), like=seen)
        until_complete(site, "stable", partial(_same, written))
    except _Outdated:
        return SOMEBODY_ELSE
    except (ClusterError, DeployError) as error:
        return f"Stable could not be brought back to version {version}, and goes on with what runs: {error}"
    return f"Stable serves version {version} as before."


def _removed(site: Site, now: Json | None) -> str | None:
    """Delete stable while it serves what it serves now; None when it changed, if only its status."""
    found = site.deployment("stable")
    if found and (now is None or objects.version(found) != objects.version(now)):
        return SOMEBODY_ELSE
    gone = found is None or site.cluster.delete("Deployment", found)
    return "Stable serves nothing, as before." if gone else None


def put(site: Site) -> Champion | None:
    """Bring stable to the champion pointer, whatever it is, until the pointer stays; return the pointer.

    Raises:
        DeployError: its pods do not run, or answer otherwise than evaluate saw.
    """
    while champion := site.champion():
        number = champion.version
        try:
            served = site.patiently(partial(pinned, site.models, site.name, number))
            written = site.put_stable(number, champion.digest)
            until_complete(site, "stable", partial(_same, written))
            _verify(site, served, written)
        except _Outdated:
            continue
        except UnreachableError:
            raise
        except (DeployError, StoreError) as error:
            raise DeployError(
                f"Stable of {site.name} could not be brought to version {number}: {error}"
            ) from error
        if site.champion() == champion:
            break
    service = site.service()
    if site.deployment("candidate") is None:
        site.lead(service, canary=False)  # a rollout that begins just now does the same
    return champion


def _verify(site: Site, served: Served, written: Json) -> None:
    """Compare the answers of stable's pods with what evaluate saw.

    Once more where that goes wrong: a pod may have been taken away meanwhile, or a connection.
    """
    try:
        _replay(site, served)
    except (ClusterError, DeployError):
        _same(written, site.deployment("stable"))
        _replay(site, served)


def _replay(site: Site, served: Served) -> None:
    for pod in site.ready_pods("stable", served.version):
        golden.replay(site.peer(pod), site.name, served.version, served.golden, site.rollout.golden_tolerance)


def _same(written: Json, found: Json | None) -> Json:
    """Return stable's Deployment while it is for the version that was written."""
    if found is None or objects.version(found) != objects.version(written):
        raise _Outdated
    return found
