"""A version is put before clients, in an order that may be killed anywhere and started again.

1. settle    stable is brought to the champion pointer, if that version can run
2. claim     the candidate becomes this rollout's; the Service leads to stable alone
3. verify, watch   (stages.py)
4. promote   the pointer by compare-and-swap, then stable, then the candidate goes

Whoever moves the pointer brings stable to it, and looks at the pointer again. Of two rollouts at once, the
later one takes the candidate over, and the earlier one ends when it sees that.
"""

from contextlib import suppress
from uuid import uuid4

from modelyard.components.artifacts import Outcome
from modelyard.components.deploy import candidate, interruption, objects, promotion, pulse, stable, stages
from modelyard.components.deploy.candidate import Superseded
from modelyard.components.deploy.outcomes import overtaken
from modelyard.components.deploy.site import Place, Site
from modelyard.components.deploy.version import Served, pinned
from modelyard.components.errors import (
    CancelledError,
    ClusterError,
    ConflictError,
    DeployError,
    ModelyardError,
    StoreError,
)
from modelyard.components.kubernetes.pod_problem import Json
from modelyard.components.store.records import Champion


def roll_out(site: Site, served: Served, expected: int | None, reason: str, by: str) -> Outcome:
    """Put a version before clients, or say why not.

    Args:
        site: the model's place.
        served: the version.
        expected: the champion that it was compared with, 0 for none; None for whichever it is now.
        reason: why it is promoted.
        by: who wants it, for the history.

    Raises:
        DeployError: it was rolled back; the reason, and what serves now, in a sentence or two.
        CancelledError: the process was told to end (SIGTERM), and took the candidate from clients.
        ClusterError: the cluster refuses it, or does not answer.
        StoreError: the store does not answer, or is not what it should be.
    """
    attempt = uuid4().hex
    with interruption.heeded(), pulse.beating(site, attempt):
        champion = site.champion()
        if champion and champion.version == served.version:
            return _again(site, champion, by)
        return _put_before_clients(site, served, attempt, expected, reason, by)


def promote_candidate(site: Site, found: Json, reason: str, by: str) -> Outcome:
    """Promote a candidate without watching it further; it answers the golden requests first.

    Args:
        site: the model's place.
        found: the candidate's Deployment; stable gets its image and its section `serving`.
        reason: why it is promoted.
        by: who wants it, for the history.

    Raises:
        DeployError: it is gone, it does not run, or it answers otherwise than evaluate saw.
    """
    version = pinned(site.models, site.name, objects.version(found))
    site = candidate.taken_over(site, found)
    champion = site.champion()
    current = champion.version if champion else 0
    attempt = objects.annotation(found, objects.ATTEMPT)  # whose rollout sees in the end that it is promoted
    with interruption.heeded(), pulse.beating(site, attempt):
        mine = candidate.owner(site, attempt)
        stages.verify(site, version, mine)
        mine(site.deployment("candidate"))  # who watches it may have rejected it meanwhile
        promotion.move(site, version.version, current, reason, by)
        _finish(site, version.version, current, attempt, by)
    return Outcome(version=version.version, decision="promote", reason=reason)


def abort(site: Place, reason: str, by: str) -> int | None:
    """Take the candidate from clients, whoever's it is; return its version, None when there is none."""
    version = candidate.withdraw(site)
    if version and not _champion_already(site, version):
        site.models.record_attempt(site.name, version, reason=f"not promoted: {reason}", by=by)
    return version


def rollback(site: Site, to: int | None, reason: str, by: str) -> Champion:
    """Make an earlier version the champion again and bring stable to it; a candidate is taken from clients.

    Raises:
        NotFoundError: there is none, or no version `to`.
        ConflictError: somebody else moved the pointer at the same moment.
        DeployError: its servers do not run, or answer wrongly; pointer and stable are back where they were.
        CancelledError: the process was told to end (SIGTERM).
    """
    before = site.champion()
    with interruption.heeded():
        champion = site.patiently(lambda: site.models.rollback(site.name, to, reason=reason, by=by))
        site.say(f"rolled back: version {champion.version} is the champion of {site.name}")
        _finish(site, champion.version, before.version if before else 0, None, by)
    return champion


def _again(site: Site, champion: Champion, by: str) -> Outcome:
    """Bring stable to the champion, whose servers may be gone or of other settings."""
    version = champion.version
    try:
        stable.bring(site)
    except (ClusterError, DeployError) as error:
        with suppress(StoreError):
            site.models.record_attempt(site.name, version, reason=f"not deployed: {error}", by=by)
        raise
    candidate.clear(site, version)
    return Outcome(version=version, decision="promote", reason=champion.reason)


def _put_before_clients(
    site: Site, served: Served, attempt: str, expected: int | None, reason: str, by: str
) -> Outcome:
    """Take a version that is not the champion through all of it."""
    try:
        champion = _settle(site)
        current = champion.version if champion else 0
        if expected not in (None, current):
            candidate.clear(site)
            return overtaken(served.version, expected, f"it is version {current or 'none'} now")
        candidate.claim(site, served, attempt)
        judged = _try(site, served, attempt)
        candidate.owner(site, attempt)(site.deployment("candidate"))
        promotion.move(site, served.version, current, f"{reason}; watched: {judged}", by)
    except (ModelyardError, KeyboardInterrupt) as error:
        with interruption.deferred():
            return _ended(site, served, expected, attempt, error, by)
    _finish(site, served.version, current, attempt, by)
    return Outcome(version=served.version, decision="promote", reason=reason)


def _ended(
    site: Site, served: Served, expected: int | None, attempt: str, error: BaseException, by: str
) -> Outcome:
    """Take the candidate from clients, and say how a rollout that broke off stands."""
    _let_go(site, attempt)  # first: the store may be silent for longer than this process has
    if isinstance(error, ConflictError):
        candidate.withdraw(site, attempt)
        return overtaken(served.version, expected, str(error))
    # It may be promoted: by hand, or the process was told to end just after the pointer had moved.
    champion = _champion_already(site, served.version)
    if champion and isinstance(error, DeployError):
        return champion
    if isinstance(error, Superseded):
        return Outcome(version=served.version, decision="hold", reason=str(error))
    said = _unfinished(served.version) if champion else _give_up(site, served, attempt, error, by)
    if isinstance(error, ModelyardError):
        raise type(error)(f"{error} {said}") from error
    raise error


def _settle(site: Site) -> Champion | None:
    """Bring stable to the champion; one that cannot run keeps no other version from clients."""
    try:
        return stable.settle(site)
    except DeployError as error:
        site.say(f"{error} Going on: a version that runs takes its place.")
        return site.champion()


def _try(site: Site, served: Served, attempt: str) -> str:
    """Take the candidate through its stages; return what it was judged by."""
    mine = candidate.owner(site, attempt)
    stages.verify(site, served, mine)
    judged = stages.watch(site, served, mine)
    site.say(f"watched: {judged}")
    return judged


def _finish(site: Site, version: int, before: int, attempt: str | None, by: str) -> None:
    """Bring stable to the pointer and let the candidate go, which also goes where stable cannot follow."""
    try:
        promotion.follow(site, version, before, by)
        with interruption.deferred():
            candidate.withdraw(site, attempt)
    except (ModelyardError, KeyboardInterrupt) as error:
        _let_go(site, attempt)
        if isinstance(error, (CancelledError, ClusterError, StoreError)):
            raise type(error)(f"{error} {_unfinished(version)}") from error
        raise
    site.say(f"stable serves version {version}; the candidate is gone")


def _let_go(site: Site, attempt: str | None) -> None:
    """Withdraw the candidate, unless it is all that clients have."""
    with interruption.deferred(), suppress(ClusterError):
        if site.ready_pods("stable"):
            candidate.withdraw(site, attempt)


def _unfinished(version: int) -> str:
    return f"Version {version} is the champion; deploy it again to see stable brought to it."


def _give_up(site: Site, served: Served, attempt: str, error: BaseException, by: str) -> str:
    """Withdraw the candidate and leave the reason in the history, as far as that is still possible.

    Returns:
        How it is now, in a sentence.
    """
    why = str(error) or "it was interrupted"
    site.say(f"rolling back: {why}")
    kept = "stable was not touched"
    with interruption.deferred():
        with suppress(ClusterError):
            candidate.withdraw(site, attempt)
            found = site.deployment("stable")
            kept = (
                f"stable serves version {objects.version(found)} as before" if found else "there is no stable"
            )
        with suppress(StoreError):
            site.models.record_attempt(site.name, served.version, reason=f"not promoted: {why}", by=by)
    return f"Version {served.version} was not promoted, and {kept}."


def _champion_already(site: Place, version: int) -> Outcome | None:
    """Return the outcome of a version that somebody promoted while it was watched."""
    with suppress(StoreError):
        champion = site.models.champion(site.name)
        if champion and champion.version == version:
            return Outcome(version=version, decision="promote", reason=champion.reason)
    return None
