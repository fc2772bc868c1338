"""The two tracks of a model on a cluster: the candidate of a rollout, and stable, which serves the champion.

A candidate carries the token of its rollout. A later rollout takes it over, and the earlier one ends when it
sees that; so no lock is ever left behind.

Stable follows the pointer in the store. Its pods answer the golden requests, or it gets back the pods that it
had.
"""

from contextlib import suppress
from dataclasses import replace
from functools import partial

from modelyard.components.deploy import objects
from modelyard.components.deploy.heartbeat import beat, is_abandoned
from modelyard.components.deploy.objects import Track
from modelyard.components.deploy.readiness import POLL, pods_refused, wait_until_complete
from modelyard.components.deploy.serving_platform import ModelDeployment, ServingPlatform
from modelyard.components.deploy.verification import PinnedVersion, pin_version, replay
from modelyard.components.errors import ClusterError, DeployError, StoreError, UnreachableError
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.cluster import retry_on_conflict
from modelyard.components.store.records import Champion

ENDING = 60.0  # seconds; a server needs fewer to end, unless its node is lost or its drain_timeout is long
REVISION = "deployment.kubernetes.io/revision"  # grows with each use of a ReplicaSet
OTHER_ROLLOUT = "Another rollout brings stable to another version."


class Superseded(DeployError):  # noqa: N818 - an end, not a failure
    """The candidate was taken over by another rollout, or withdrawn by hand."""


class _Outdated(Exception):  # noqa: N818
    """Another rollout brings stable to another version: look at the pointer again."""


def claim(platform: ServingPlatform, pinned: PinnedVersion, token: str) -> None:
    """Make the candidate this rollout's, and lead clients to stable alone.

    Raises:
        Superseded: another rollout took it just now.
        DeployError: an old candidate does not end.
        ClusterError: the cluster refuses it, or does not answer.
    """
    name = f"Deployment {platform.name}-candidate"
    replace_candidate = partial(_replace_candidate, platform, pinned, token)
    retry_on_conflict(name, replace_candidate)
    beat(platform, token)
    if _is_crowded_out(platform, pinned, token):
        _wait_until_gone(platform)
        retry_on_conflict(name, replace_candidate)

    def route() -> bool | None:
        owned_candidate(platform, token)
        return _route_to_stable(platform, pinned, token) or None

    retry_on_conflict(f"Service {platform.name}", route)  # the earlier rollout may have joined it just now
    platform.log(f"candidate: version {pinned.version} of {platform.name}")


def owned_candidate(platform: ModelDeployment, token: str) -> Json:
    """Return the candidate's Deployment.

    Raises:
        Superseded: it is not this rollout's any more.
    """
    found = platform.deployment("candidate")
    if found is None or _is_ending(found):
        raise Superseded(
            f"the candidate of {platform.name} was withdrawn by another command; deploy it again"
        )
    if objects.annotation(found, objects.TOKEN) != token:
        version = objects.version(found)
        raise Superseded(f"another rollout, of version {version}, took the candidate's place")
    return found


def find_candidate(model: ModelDeployment) -> Json:
    """Return the Deployment of the present candidate.

    Raises:
        DeployError: there is none.
    """
    found = model.deployment("candidate")
    if found is None or _is_ending(found):
        raise DeployError(
            f"{model.name} has no candidate to promote. `modelyard deploy {model.name} VERSION -e ENV` "
            "makes one."
        )
    return found


def like_candidate(platform: ServingPlatform, candidate: Json) -> ServingPlatform:
    """Return the platform with a candidate's image and section `serving`: stable gets what was verified."""
    version, section = objects.version(candidate), objects.serving(candidate)
    return replace(
        platform,
        serving=lambda number: section if number == version else platform.serving(number),
        target=platform.target.model_copy(update={"image": objects.image(candidate)}),
    )


def withdraw(model: ModelDeployment, token: str | None = None) -> int | None:
    """Take the candidate from the Service and delete it; return its version, or None when there was none.

    With a token, only if it is of that rollout.
    """

    def write() -> int | None:
        service, observed = model.service(), model.deployment("candidate")
        if observed is None or (token and objects.annotation(observed, objects.TOKEN) != token):
            return 0
        try:
            if not model.route(service, canary=False):
                return None
        except ClusterError:
            model.cluster.delete("Deployment", observed)
            raise
        gone = _is_ending(observed) or model.cluster.delete("Deployment", observed)
        return objects.version(observed) if gone else None

    return retry_on_conflict(f"The candidate of {model.name}", write) or None


def clear(platform: ServingPlatform, version: int | None = None) -> None:
    """Delete the candidate if it is of `version`, which stable serves, or abandoned.

    It stays where stable answers no one: it may be all that clients have.
    """
    found = platform.deployment("candidate")
    if found is None or not platform.ready_pods("stable"):
        return
    if objects.version(found) == version or is_abandoned(found):
        platform.log(
            f"deleting the candidate of version {objects.version(found)}, which is not needed any more"
        )
        withdraw(platform, objects.annotation(found, objects.TOKEN))


def _replace_candidate(platform: ServingPlatform, pinned: PinnedVersion, token: str) -> Json | None:
    """Write the candidate over the present one; None when that one has to go first, or changed."""
    if not _route_to_stable(platform, pinned, token):  # no rollout joins from here on
        return None
    observed = platform.deployment("candidate")
    if observed and _is_ending(observed):
        _wait_until_gone(platform)
        return None
    if observed and not _is_same(observed, pinned):
        platform.log(f"replacing the candidate of version {objects.version(observed)}")
        platform.cluster.delete("Deployment", observed)
        return None
    return platform.apply_candidate(pinned.version, pinned.digest, token, observed)


def _route_to_stable(platform: ServingPlatform, pinned: PinnedVersion, token: str) -> bool:
    """Mark the Service and lead clients to stable alone; False when it was changed meanwhile.

    Where no stable answers, a candidate of the same version that a killed rollout left is all that clients
    have: it stays.
    """
    service, observed = platform.service(), platform.deployment("candidate")
    joined = service and observed and objects.TRACK not in service["spec"]["selector"]
    keep = bool(joined and observed and _is_same(observed, pinned) and not platform.ready_pods("stable"))
    return platform.route(service, canary=keep, token=token)


def _is_same(observed: Json, pinned: PinnedVersion) -> bool:
    """Return whether a candidate serves the version and stays."""
    return _serves(observed, pinned) and not _is_ending(observed)


def _is_crowded_out(platform: ServingPlatform, pinned: PinnedVersion, token: str) -> bool:
    """Return whether a quota has no room for the candidate beside the servers of an earlier one, which end.

    The candidate is deleted then: created again when they have ended, Kubernetes tries it at once.
    """
    deadline, labels = platform.now() + ENDING, objects.selector(platform.name, "candidate")
    while platform.now() < deadline and any(
        _is_ending(pod) or objects.version(pod) != pinned.version
        for pod in platform.cluster.list_objects("Pod", labels)
    ):
        found = platform.deployment("candidate")
        if found is None or objects.annotation(found, objects.TOKEN) != token:
            return False
        if pods_refused(found):
            if platform.cluster.delete("Deployment", found):
                return True
        elif platform.pods("candidate", pinned.version):
            return False
        platform.sleep(POLL)
    return False


def _wait_until_gone(platform: ServingPlatform) -> None:
    """Wait for an earlier candidate and its servers to end."""
    deadline, labels = platform.now() + ENDING, objects.selector(platform.name, "candidate")
    platform.log("waiting for the servers of the previous candidate to end")
    while platform.now() < deadline:
        found = platform.deployment("candidate")
        if (found and not _is_ending(found)) or not (found or platform.cluster.list_objects("Pod", labels)):
            return
        platform.sleep(POLL)
    if platform.deployment("candidate"):
        raise DeployError(f"The old candidate of {platform.name} does not end. Delete it by hand.")


def _is_ending(found: Json) -> bool:
    return "deletionTimestamp" in found["metadata"]


def stable_image(model: ModelDeployment, version: int | None) -> str | None:
    """Return the image with which stable served a version last, as far as Kubernetes remembers it.

    Else the one that it has now; None when there is no stable.
    """
    labels = objects.selector(model.name, "stable", version)
    sets = model.cluster.list_objects("ReplicaSet", labels) if version else []
    last = max(sets, key=lambda one: int(objects.annotation(one, REVISION) or 0), default=None)
    found = last or model.deployment("stable")
    return objects.image(found) if found else None


def settle(platform: ServingPlatform) -> Champion | None:
    """Bring stable to the champion pointer, unless it is there already; return the pointer.

    Raises:
        DeployError: its pods do not run, or answer otherwise than evaluate saw; and what serves.
    """
    champion, stable = platform.champion(), platform.deployment("stable")
    if champion is None:
        return None
    if stable and _serves(stable, champion):
        with suppress(_Outdated):
            wait_until_complete(
                platform, "stable", partial(_current_stable, platform, stable)
            )  # with the image that it has
            return champion
    else:
        serves = f"version {objects.version(stable)}" if stable else "nothing"
        platform.log(
            f"stable serves {serves} and the champion is version {champion.version}: bringing it there"
        )
    return reconcile_or_restore(platform)


def reconcile_or_restore(platform: ServingPlatform) -> Champion | None:
    """Bring stable to the champion pointer, or back to what it was; return the pointer.

    Raises:
        DeployError: its pods do not run, or answer otherwise than evaluate saw; and what serves.
    """
    observed = platform.deployment("stable")
    try:
        return reconcile(platform)
    except DeployError as error:
        raise DeployError(f"{error} {restore(platform, observed)}") from error


def reconcile(platform: ServingPlatform) -> Champion | None:
    """Bring stable to the champion pointer, until the pointer does not move any more; return the pointer.

    Raises:
        DeployError: its pods do not run, or answer otherwise than evaluate saw.
    """
    while champion := platform.champion():
        number = champion.version
        try:
            pinned = platform.retry_store(partial(pin_version, platform.models, platform.name, number))
            written = platform.apply_stable(number, champion.digest)
            wait_until_complete(platform, "stable", partial(_current_stable, platform, written))
            _verify_stable(platform, pinned, written)
        except _Outdated:
            continue
        except UnreachableError:
            raise
        except (DeployError, StoreError) as error:
            raise DeployError(
                f"Stable of {platform.name} could not be brought to version {number}: {error}"
            ) from error
        if platform.champion() == champion:
            break
    service = platform.service()
    if platform.deployment("candidate") is None:
        platform.route(service, canary=False)  # a rollout that begins just now does the same
    return champion


def restore(platform: ServingPlatform, observed: Json | None) -> str:
    """Bring stable back to the Deployment that was observed, None for none; return how that went."""
    now = platform.deployment("stable")
    if observed is None:
        return retry_on_conflict(f"Deployment {platform.name}-stable", partial(_remove, platform, now))
    version = objects.version(observed)
    if now and now["spec"]["template"] == observed["spec"]["template"]:
        return f"Stable goes on with the servers of version {version} that run."
    try:
        written = platform.apply_stable(version, objects.annotation(observed, objects.DIGEST), like=observed)
        wait_until_complete(platform, "stable", partial(_current_stable, platform, written))
    except _Outdated:
        return OTHER_ROLLOUT
    except (ClusterError, DeployError) as error:
        return f"Stable could not be brought back to version {version}, and goes on with what runs: {error}"
    return f"Stable serves version {version} as before."


def verify_pods(platform: ServingPlatform, track: Track, pinned: PinnedVersion) -> int:
    """Compare the answers of a track's pods with what evaluate saw; return how many pods there are.

    Raises:
        DeployError: one answers otherwise.
    """
    pods = platform.ready_pods(track, pinned.version)
    for pod in pods:
        replay(platform.pod_target(pod), platform.name, pinned, platform.rollout.golden_tolerance)
    return len(pods)


def _verify_stable(platform: ServingPlatform, pinned: PinnedVersion, written: Json) -> None:
    """Verify stable's pods, twice where that fails: a pod may be gone meanwhile, or a connection lost."""
    try:
        verify_pods(platform, "stable", pinned)
    except (ClusterError, DeployError):
        _current_stable(platform, written)
        verify_pods(platform, "stable", pinned)


def _remove(platform: ServingPlatform, now: Json | None) -> str | None:
    """Delete stable while it serves what it serves now; None when it changed, if only its status."""
    found = platform.deployment("stable")
    if found and (now is None or objects.version(found) != objects.version(now)):
        return OTHER_ROLLOUT
    gone = found is None or platform.cluster.delete("Deployment", found)
    return "Stable serves nothing, as before." if gone else None


def _serves(deployment: Json, of: Champion | PinnedVersion) -> bool:
    found = objects.version(deployment), objects.annotation(deployment, objects.DIGEST)
    return found == (of.version, of.digest)


def _current_stable(platform: ServingPlatform, written: Json) -> Json:
    """Return stable's Deployment while it is for the version that was written."""
    found = platform.deployment("stable")
    if found is None or objects.version(found) != objects.version(written):
        raise _Outdated
    return found
