"""The rollout of a version on a cluster: an order of steps that may be killed anywhere and started again.

1. settle     stable is brought to the champion pointer, if that version can run
2. claim      the candidate becomes this rollout's; the Service leads to stable alone
3. verify     the candidate, outside the Service, answers the golden requests as evaluate saw
4. analyze    the Service leads to the candidate as well, and its answers are judged
5. promote    the pointer moves by compare-and-swap, then stable follows, then the candidate goes

Who moves the pointer brings stable to it, and looks at the pointer again; where stable cannot follow, both go
back. Of two rollouts at once, the later one takes the candidate over, and the earlier one ends when it sees
that. tracks.py does what each step needs on the cluster.
"""

from contextlib import suppress
from functools import partial
from uuid import uuid4

from modelyard.components.artifacts import Outcome
from modelyard.components.deploy import objects, tracks
from modelyard.components.deploy.canary_analysis import analyze
from modelyard.components.deploy.heartbeat import heartbeat
from modelyard.components.deploy.readiness import wait_until_complete
from modelyard.components.deploy.serving_platform import ModelDeployment, ServingPlatform
from modelyard.components.deploy.signals import ignore_sigterm, raise_on_sigterm
from modelyard.components.deploy.tracks import Superseded
from modelyard.components.deploy.verification import PinnedVersion, overtaken, pin_version
from modelyard.components.errors import (
    CancelledError,
    ClusterError,
    ConflictError,
    DeployError,
    ModelyardError,
    StoreError,
)
from modelyard.components.kubernetes import Json
from modelyard.components.store.records import Action, Champion

PAST: dict[Action, str] = {"promote": "promoted", "rollback": "rolled back"}


def roll_out(
    platform: ServingPlatform, pinned: PinnedVersion, expected: int | None, reason: str, by: str
) -> Outcome:
    """Roll out a version: make it the champion, or say why not.

    Args:
        platform: what serves the model.
        pinned: the version.
        expected: the champion that it was compared with, 0 for none; None for the present one.
        reason: why it is promoted.
        by: who asks, for the history.

    Raises:
        DeployError: it was rolled back; the reason, and what serves now, in a sentence or two.
        CancelledError: the process got SIGTERM, and took the candidate from clients.
        ClusterError: the cluster refuses it, or does not answer.
        StoreError: the store does not answer, or is not what it should be.
    """
    token = uuid4().hex
    with raise_on_sigterm(), heartbeat(platform, token):
        champion = platform.champion()
        if champion and champion.version == pinned.version:
            return _redeploy(platform, champion, by)
        try:
            champion = _settle(platform)
            current = champion.version if champion else 0
            if expected not in (None, current):
                tracks.clear(platform)
                return overtaken(pinned.version, expected, f"it is version {current or 'none'} now")
            tracks.claim(platform, pinned, token)
            _verify(platform, pinned, token)
            summary = analyze(platform, pinned, token)
            platform.log(f"canary analysis: {summary}")
            tracks.owned_candidate(platform, token)
            _move_pointer(platform, pinned.version, current, f"{reason}; canary analysis: {summary}", by)
        except (ModelyardError, KeyboardInterrupt) as error:
            with ignore_sigterm():
                return _handle_failure(platform, pinned, expected, token, error, by)
        _finish(platform, pinned.version, current, token, by)
        return Outcome(version=pinned.version, decision="promote", reason=reason)


def promote_candidate(platform: ServingPlatform, candidate: Json, reason: str, by: str) -> Outcome:
    """Promote a candidate without further analysis; it answers the golden requests first.

    Stable gets the image and the section `serving` of its Deployment.

    Raises:
        DeployError: it is gone, it does not run, or it answers otherwise than evaluate saw.
    """
    pinned = pin_version(platform.models, platform.name, objects.version(candidate))
    platform = tracks.like_candidate(platform, candidate)
    champion = platform.champion()
    current = champion.version if champion else 0
    token = objects.annotation(
        candidate, objects.TOKEN
    )  # its own rollout sees in the end that it is promoted
    with raise_on_sigterm(), heartbeat(platform, token):
        _verify(platform, pinned, token)
        tracks.owned_candidate(platform, token)  # its own rollout may have rejected it meanwhile
        _move_pointer(platform, pinned.version, current, reason, by)
        _finish(platform, pinned.version, current, token, by)
    return Outcome(version=pinned.version, decision="promote", reason=reason)


def abort(model: ModelDeployment, reason: str, by: str) -> int | None:
    """Take the candidate from clients, whoever's it is; return its version, None when there is none."""
    version = tracks.withdraw(model)
    if version and not _promoted_meanwhile(model, version):
        model.models.record_attempt(model.name, version, reason=f"not promoted: {reason}", by=by)
    return version


def rollback(platform: ServingPlatform, to: int | None, reason: str, by: str) -> Champion:
    """Make an earlier version the champion again and bring stable to it; a candidate is taken from clients.

    Raises:
        NotFoundError: there is none, or no version `to`.
        ConflictError: the pointer was moved by another command at the same moment.
        DeployError: its servers do not run, or answer wrongly; pointer and stable are back where they were.
        CancelledError: the process got SIGTERM.
    """
    before = platform.champion()
    with raise_on_sigterm():
        champion = platform.retry_store(
            lambda: platform.models.rollback(platform.name, to, reason=reason, by=by)
        )
        platform.log(f"rolled back: version {champion.version} is the champion of {platform.name}")
        _finish(platform, champion.version, before.version if before else 0, None, by)
    return champion


def _redeploy(platform: ServingPlatform, champion: Champion, by: str) -> Outcome:
    """Bring stable to the champion, whose servers may be gone or of other settings."""
    version = champion.version
    try:
        tracks.reconcile_or_restore(platform)
    except (ClusterError, DeployError) as error:
        with suppress(StoreError):
            platform.models.record_attempt(platform.name, version, reason=f"not deployed: {error}", by=by)
        raise
    tracks.clear(platform, version)
    return Outcome(version=version, decision="promote", reason=champion.reason)


def _settle(platform: ServingPlatform) -> Champion | None:
    """Bring stable to the champion; one that cannot run keeps no other version from clients."""
    try:
        return tracks.settle(platform)
    except DeployError as error:
        platform.log(f"{error} Going on: a version that runs takes its place.")
        return platform.champion()


def _verify(platform: ServingPlatform, pinned: PinnedVersion, token: str) -> None:
    """Wait for the candidate's pods and compare their answers with what evaluate saw."""
    wait_until_complete(platform, "candidate", partial(tracks.owned_candidate, platform, token))
    pods = tracks.verify_pods(platform, "candidate", pinned)
    if not pods:
        raise DeployError("The candidate's pods were gone before they could be verified. Deploy again.")
    platform.log(f"verified: {len(pinned.golden.instances)} golden requests, {pods} candidate(s)")


def _move_pointer(
    platform: ServingPlatform, version: int, current: int, reason: str, by: str, action: Action = "promote"
) -> None:
    """Make the version the champion; a ConflictError says that `current` is not the champion any more."""
    models, name = platform.models, platform.name
    platform.retry_store(
        lambda: models.promote(name, version, reason=reason, by=by, action=action, expected=current)
    )
    platform.log(f"{PAST[action]}: version {version} is the champion of {name}")


def _finish(platform: ServingPlatform, version: int, before: int, token: str | None, by: str) -> None:
    """Bring stable to the pointer and delete the candidate, which also goes where stable cannot follow."""
    try:
        _follow_pointer(platform, version, before, by)
        with ignore_sigterm():
            tracks.withdraw(platform, token)
    except (ModelyardError, KeyboardInterrupt) as error:
        _withdraw_if_stable_serves(platform, token)
        if isinstance(error, (CancelledError, ClusterError, StoreError)):
            raise type(error)(f"{error} {_unfinished(version)}") from error
        raise
    platform.log(f"stable serves version {version}; the candidate is gone")


def _follow_pointer(platform: ServingPlatform, version: int, before: int, by: str) -> None:
    """Bring stable to the pointer, which was moved to `version` from `before` (0: none), or go back."""
    observed = platform.deployment("stable")
    try:
        tracks.reconcile(platform)
    except (ClusterError, DeployError) as error:
        if not before:
            raise DeployError(
                f"{error} It is the first champion, so there is none to go back to: its candidate goes on "
                "answering clients. Deploy it again when that is mended."
            ) from error
        raise DeployError(
            f"{error} {_go_back(platform, observed, version, before, str(error), by)}"
        ) from error


def _go_back(
    platform: ServingPlatform, observed: Json | None, version: int, before: int, why: str, by: str
) -> str:
    """Make `before` the champion again and stable what it was when observed; return how that went."""
    if before == version:
        return tracks.restore(platform, observed)
    try:
        _move_pointer(platform, before, version, why, by, "rollback")
    except ConflictError:
        return _follow_another(platform)
    except StoreError as error:
        pointer = (
            f"The pointer could not be moved back and still names version {version} ({error}); "
            f"`modelyard models promote {platform.name} {before} -e ENV` moves it."
        )
    else:
        pointer = f"Version {before} is the champion again."
    return f"{pointer} {tracks.restore(platform, observed)}"


def _follow_another(platform: ServingPlatform) -> str:
    """Bring stable to what another command made the champion meanwhile; return how that went."""
    moved = "Another command moved the pointer meanwhile."
    try:
        champion = tracks.reconcile(platform)
    except (ClusterError, DeployError) as error:
        return f"{moved} {error}"
    return f"{moved} Stable serves version {champion.version}." if champion else moved


def _handle_failure(
    platform: ServingPlatform,
    pinned: PinnedVersion,
    expected: int | None,
    token: str,
    error: BaseException,
    by: str,
) -> Outcome:
    """Take the candidate from clients, and return how a failed rollout ended, or raise it."""
    # first: the store may not answer for longer than this process has
    _withdraw_if_stable_serves(platform, token)
    if isinstance(error, ConflictError):
        tracks.withdraw(platform, token)
        return overtaken(pinned.version, expected, str(error))
    # It may be promoted: by hand, or the process got SIGTERM just after the pointer had moved.
    promoted = _promoted_meanwhile(platform, pinned.version)
    if promoted and isinstance(error, DeployError):
        return promoted
    if isinstance(error, Superseded):
        return Outcome(version=pinned.version, decision="hold", reason=str(error))
    state = (
        _unfinished(pinned.version) if promoted else _withdraw_and_record(platform, pinned, token, error, by)
    )
    if isinstance(error, ModelyardError):
        raise type(error)(f"{error} {state}") from error
    raise error


def _withdraw_if_stable_serves(platform: ServingPlatform, token: str | None) -> None:
    """Withdraw the candidate, unless it is all that clients have."""
    with ignore_sigterm(), suppress(ClusterError):
        if platform.ready_pods("stable"):
            tracks.withdraw(platform, token)


def _withdraw_and_record(
    platform: ServingPlatform, pinned: PinnedVersion, token: str, error: BaseException, by: str
) -> str:
    """Withdraw the candidate and record the reason, as far as that is possible; return what serves now."""
    why = str(error) or "it was interrupted"
    platform.log(f"rolling back: {why}")
    stable = "stable was not touched"
    with ignore_sigterm():
        with suppress(ClusterError):
            tracks.withdraw(platform, token)
            found = platform.deployment("stable")
            serves = f"stable serves version {objects.version(found)} as before" if found else None
            stable = serves or "there is no stable"
        with suppress(StoreError):
            platform.models.record_attempt(
                platform.name, pinned.version, reason=f"not promoted: {why}", by=by
            )
    return f"Version {pinned.version} was not promoted, and {stable}."


def _unfinished(version: int) -> str:
    return f"Version {version} is the champion; deploy it again to see stable brought to it."


def _promoted_meanwhile(model: ModelDeployment, version: int) -> Outcome | None:
    """Return the outcome of a version that was promoted by hand during its rollout."""
    with suppress(StoreError):
        champion = model.models.champion(model.name)
        if champion and champion.version == version:
            return Outcome(version=version, decision="promote", reason=champion.reason)
    return None
