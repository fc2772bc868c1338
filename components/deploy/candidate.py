"""The candidate: the servers of the version that is being rolled out, and whose rollout they belong to.

A candidate carries the token of its rollout. A later rollout takes it over, and the earlier one ends when it
sees that; so no lock is ever left behind.
"""

import time
from dataclasses import replace

from modelyard.components.deploy import objects, pulse
from modelyard.components.deploy.site import Place, Site
from modelyard.components.deploy.stages import Mine
from modelyard.components.deploy.version import Served
from modelyard.components.deploy.waiting import POLL
from modelyard.components.errors import ClusterError, DeployError
from modelyard.components.kubernetes.cluster import retry_on_conflict
from modelyard.components.kubernetes.deployments import refused
from modelyard.components.kubernetes.pod_problem import Json

ENDING = 60.0  # seconds; a server has fewer to end in, unless its node is gone or its drain_timeout is long


class Superseded(DeployError):  # noqa: N818 - an end, not a failure
    """The candidate was taken over by another rollout, or withdrawn by hand."""


def claim(site: Site, served: Served, attempt: str) -> None:
    """Make the candidate this rollout's, and lead clients to stable alone.

    Raises:
        Superseded: another rollout took it just now.
        DeployError: an old candidate does not end.
        ClusterError: the cluster refuses it, or does not answer.
    """
    what = f"Deployment {site.name}-candidate"
    retry_on_conflict(what, lambda: _take(site, served, attempt))
    pulse.beat(site, attempt)
    if _crowded_out(site, served, attempt):
        _until_gone(site)
        retry_on_conflict(what, lambda: _take(site, served, attempt))
    mine = owner(site, attempt)

    def lead() -> bool | None:
        mine(site.deployment("candidate"))
        return _lead(site, served, attempt) or None

    retry_on_conflict(f"Service {site.name}", lead)  # the earlier rollout may have joined it just now
    site.say(f"candidate: version {served.version} of {site.name}")


def owner(site: Site, attempt: str) -> Mine:
    """Return what gives the candidate's Deployment, and raises Superseded when it is not this rollout's."""

    def check(found: Json | None) -> Json:
        if found is None or _ending(found):
            raise Superseded(f"the candidate of {site.name} was withdrawn by somebody else; deploy it again")
        if objects.annotation(found, objects.ATTEMPT) != attempt:
            other = objects.version(found)
            raise Superseded(f"another rollout, of version {other}, took the candidate's place")
        return found

    return check


def find(place: Place) -> Json:
    """Return the Deployment of the candidate that is there.

    Raises:
        DeployError: there is none.
    """
    found = place.deployment("candidate")
    if found is None or _ending(found):
        raise DeployError(
            f"{place.name} has no candidate to promote. `modelyard deploy {place.name} VERSION -e ENV` "
            "makes one."
        )
    return found


def taken_over(site: Site, found: Json) -> Site:
    """Return the site with a candidate's image and section `serving`: stable gets what was verified."""
    version, section = objects.version(found), objects.serving(found)
    return replace(
        site,
        serving=lambda wanted: section if wanted == version else site.serving(wanted),
        target=site.target.model_copy(update={"image": objects.image(found)}),
    )


def withdraw(site: Place, attempt: str | None = None) -> int | None:
    """Take the candidate from the Service and delete it; return its version, or None when there was none.

    Args:
        site: the model's place.
        attempt: only if it belongs to this rollout; whoever's when None.
    """

    def write() -> int | None:
        service, seen = site.service(), site.deployment("candidate")
        if seen is None or (attempt and objects.annotation(seen, objects.ATTEMPT) != attempt):
            return 0
        try:
            if not site.lead(service, canary=False):
                return None
        except ClusterError:
            site.cluster.delete("Deployment", seen)
            raise
        gone = _ending(seen) or site.cluster.delete("Deployment", seen)
        return objects.version(seen) if gone else None

    return retry_on_conflict(f"The candidate of {site.name}", write) or None


def clear(site: Site, version: int | None = None) -> None:
    """Delete the candidate if it is of `version`, which stable serves, or if nobody watches it any more.

    It stays where stable answers nobody: it may be all that clients have.
    """
    found = site.deployment("candidate")
    if found is None or not site.ready_pods("stable"):
        return
    if objects.version(found) == version or pulse.stopped(found):
        site.say(
            f"taking away the candidate of version {objects.version(found)}, which nobody needs any more"
        )
        withdraw(site, objects.annotation(found, objects.ATTEMPT))


def _take(site: Site, served: Served, attempt: str) -> Json | None:
    """Write the candidate over the one that is there; None when that one is to go first, or changed."""
    if not _lead(site, served, attempt):  # nobody joins from here on
        return None
    seen = site.deployment("candidate")
    if seen and _ending(seen):
        _until_gone(site)
        return None
    if seen and not _same(seen, served):
        site.say(f"taking the place of the candidate of version {objects.version(seen)}")
        site.cluster.delete("Deployment", seen)
        return None
    return site.put_candidate(*served.identity, attempt, seen)


def _lead(site: Site, served: Served, attempt: str) -> bool:
    """Mark the Service and lead clients to stable alone; False when somebody changed it meanwhile.

    Where no stable answers, a candidate of the same version that a killed rollout left is all that clients
    have: it stays.
    """
    service, seen = site.service(), site.deployment("candidate")
    if service and seen and _same(seen, served) and objects.TRACK not in service["spec"]["selector"]:
        return site.lead(service, canary=not site.ready_pods("stable"), attempt=attempt)
    return site.lead(service, canary=False, attempt=attempt)


def _same(seen: Json, served: Served) -> bool:
    """Say whether a candidate serves the version and stays."""
    found = objects.version(seen), objects.annotation(seen, objects.DIGEST)
    return found == served.identity and not _ending(seen)


def _crowded_out(site: Site, served: Served, attempt: str) -> bool:
    """Say whether a quota has no room for the candidate beside the servers of an earlier one, which end.

    The candidate is deleted then: made anew when they have ended, it is tried at once, and not ever later.
    """
    deadline, labels = time.monotonic() + ENDING, objects.selector(site.name, "candidate")
    while time.monotonic() < deadline and any(
        _ending(pod) or objects.version(pod) != served.version for pod in site.cluster.list("Pod", labels)
    ):
        found = site.deployment("candidate")
        if found is None or objects.annotation(found, objects.ATTEMPT) != attempt:
            return False
        if refused(found):
            if site.cluster.delete("Deployment", found):
                return True
        elif site.pods("candidate", served.version):
            return False
        time.sleep(POLL)
    return False


def _until_gone(site: Site) -> None:
    """Wait for an earlier candidate and its servers to end.

    Raises:
        DeployError: its Deployment does not.
    """
    deadline, labels = time.monotonic() + ENDING, objects.selector(site.name, "candidate")
    site.say("waiting for the servers of the candidate before to end")
    while time.monotonic() < deadline:
        seen = site.deployment("candidate")
        if (seen and not _ending(seen)) or not (seen or site.cluster.list("Pod", labels)):
            return
        time.sleep(POLL)
    if site.deployment("candidate"):
        raise DeployError(f"The old candidate of {site.name} does not end. Delete it by hand.")


def _ending(found: Json) -> bool:
    return "deletionTimestamp" in found["metadata"]
