"""The candidate: the servers of the version that is being rolled out, and whose rollout they belong to.

A candidate carries the token of its rollout. A later rollout takes it over, and the earlier one ends when it
sees that; so no lock is ever left behind.
"""

import time
from dataclasses import replace

from components.deploy import objects
from components.deploy.site import Place, Site
from components.deploy.stages import Mine
from components.deploy.version import Served
from components.deploy.waiting import POLL
from components.errors import DeployError
from components.kubernetes.trouble import Json


class Superseded(DeployError):  # noqa: N818 - an end, not a failure
    """The candidate was taken over by another rollout, or withdrawn by hand."""


def claim(site: Site, served: Served, attempt: str) -> None:
    """Make the candidate this rollout's, and lead clients to stable alone."""
    deadline = time.monotonic() + site.target.start_timeout
    while True:
        seen = site.deployment("candidate")
        same = seen and (objects.version(seen), objects.annotation(seen, objects.DIGEST)) == served.identity
        if seen and not same and "deletionTimestamp" not in seen["metadata"]:
            site.say(f"taking the place of the candidate of version {objects.version(seen)}")
            site.lead(canary=False)
            site.cluster.delete("Deployment", seen)
        elif seen and "deletionTimestamp" in seen["metadata"]:
            if time.monotonic() > deadline:
                raise DeployError(f"The old candidate of {site.name} does not end. Delete its pods by hand.")
            time.sleep(POLL)
        elif site.put_candidate(*served.identity, attempt, seen):
            break
    site.lead(canary=False)
    site.say(f"candidate: version {served.version} of {site.name}")


def owner(site: Site, attempt: str) -> Mine:
    """Return what gives the candidate's Deployment, and raises Superseded when it is not this rollout's."""

    def check(found: Json | None) -> Json:
        if found is None or "deletionTimestamp" in found["metadata"]:
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
    if found is None or "deletionTimestamp" in found["metadata"]:
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
    while seen := site.deployment("candidate"):
        if attempt and objects.annotation(seen, objects.ATTEMPT) != attempt:
            return None
        try:
            site.lead(canary=False)
        finally:
            gone = "deletionTimestamp" in seen["metadata"] or site.cluster.delete("Deployment", seen)
        if gone:
            return objects.version(seen)
    return None


def clear(site: Site, version: int) -> None:
    """Delete the candidate that a killed rollout of `version` left behind."""
    found = site.deployment("candidate")
    if found and objects.version(found) == version:
        withdraw(site, objects.annotation(found, objects.ATTEMPT))
