"""A version is put before clients, in an order that may be killed anywhere and started again.

1. settle    stable is brought to the champion pointer
2. claim     the candidate becomes this rollout's; the Service leads to stable alone
3. verify, watch   (stages.py)
4. promote   the pointer by compare-and-swap, then stable, then the candidate goes

Whoever moves the pointer brings stable to it, and looks at the pointer again. Of two rollouts at once, the
later one takes the candidate over, and the earlier one ends when it sees that.
"""

from contextlib import suppress
from uuid import uuid4

from components.artifacts import Outcome
from components.deploy import candidate, objects, stable, stages
from components.deploy.candidate import Superseded
from components.deploy.outcomes import overtaken
from components.deploy.site import Place, Site
from components.deploy.version import Served, pinned
from components.errors import ClusterError, ConflictError, DeployError, NotFoundError, StoreError
from components.kubernetes.trouble import Json
from components.store.records import Champion


def roll_out(site: Site, served: Served, expected: int | None, reason: str, by: str) -> Outcome:
    """Put a version before clients, or say why not.

    Args:
        site: the model's place.
        served: the version.
        expected: the champion that it was compared with, 0 for none; None for whichever it is now.
        reason: why it is promoted.
        by: who wants it, for the history.

    Raises:
        DeployError: it was rolled back, with the reason in a sentence; stable was not touched.
        ClusterError: the cluster refuses it, or does not answer.
        StoreError: the store does not answer, or is not what it should be.
    """
    champion = stable.settle(site)
    if champion and champion.version == served.version:
        stable.put(site)
        candidate.clear(site, served.version)
        return Outcome(version=served.version, decision="promote", reason=champion.reason)
    current = champion.version if champion else 0
    if expected not in (None, current):
        return overtaken(served.version, expected, f"it is version {current or 'none'} now")
    attempt = uuid4().hex
    try:
        candidate.claim(site, served, attempt)
        judged = _try(site, served, attempt)
        candidate.owner(site, attempt)(site.deployment("candidate"))
        _move(site, served, current, f"{reason}; watched: {judged}", by)
    except ConflictError as error:
        candidate.withdraw(site, attempt)
        return overtaken(served.version, expected, str(error))
    except DeployError as error:
        if by_hand := _champion_already(site, served.version):
            return by_hand
        if isinstance(error, Superseded):
            return Outcome(version=served.version, decision="hold", reason=str(error))
        _give_up(site, served, attempt, error, by)
        kept = f"stable serves version {current} as before" if current else "there is no stable yet"
        raise DeployError(f"{error} Version {served.version} was not promoted, and {kept}.") from error
    except (ClusterError, StoreError, KeyboardInterrupt) as error:
        _give_up(site, served, attempt, error, by)
        raise
    _finish(site, served, current, attempt, by)
    return Outcome(version=served.version, decision="promote", reason=reason)


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
    stages.verify(site, version, candidate.owner(site, attempt))
    _move(site, version, current, reason, by)
    _finish(site, version, current, attempt, by)
    return Outcome(version=version.version, decision="promote", reason=reason)


def abort(site: Place, reason: str, by: str) -> int | None:
    """Take the candidate from clients, whoever's it is; return its version, None when there is none."""
    version = candidate.withdraw(site)
    if version:
        site.models.record_attempt(site.name, version, reason=f"not promoted: {reason}", by=by)
    return version


def rollback(site: Site, to: int | None, reason: str, by: str) -> Champion:
    """Make an earlier version the champion again and bring stable to it; a candidate is taken from clients.

    Raises:
        NotFoundError: there is none, or no version `to`.
        ConflictError: somebody else moved the pointer at the same moment.
        DeployError: its servers do not run.
    """
    champion = site.patiently(lambda: site.models.rollback(site.name, to, reason=reason, by=by))
    site.say(f"rolled back: version {champion.version} is the champion of {site.name}")
    candidate.withdraw(site)
    stable.put(site)
    site.say(f"stable serves version {champion.version}")
    return champion


def _try(site: Site, served: Served, attempt: str) -> str:
    """Take the candidate through its stages; return what it was judged by."""
    mine = candidate.owner(site, attempt)
    stages.verify(site, served, mine)
    judged = stages.watch(site, served, mine)
    site.say(f"watched: {judged}")
    return judged


def _move(site: Site, served: Served, current: int, reason: str, by: str) -> None:
    """Make the version the champion, if the champion is still `current`."""
    site.patiently(
        lambda: site.models.promote(site.name, served.version, reason=reason, by=by, expected=current)
    )
    site.say(f"promoted: version {served.version} is the champion of {site.name}")


def _finish(site: Site, served: Served, previous: int, attempt: str, by: str) -> None:
    """Bring stable to the pointer and let the candidate go; go back if stable cannot be brought there."""
    try:
        stable.put(site)
    except DeployError as error:
        if previous:
            why = f"stable could not be brought to version {served.version}: {error}"
            with suppress(ConflictError, NotFoundError):  # somebody else moved the pointer: it is right
                site.patiently(
                    lambda: site.models.promote(
                        site.name,
                        previous,
                        reason=why,
                        by=by,
                        action="rollback",
                        expected=served.version,
                    )
                )
            stable.put(site)
            candidate.withdraw(site, attempt)
        raise DeployError(
            f"Version {served.version} of {site.name} was promoted, but stable could not be brought to it"
            f"{f' and was brought back to version {previous}' if previous else ''}: {error}"
        ) from error
    candidate.withdraw(site, attempt)
    site.say(f"stable serves version {served.version}; the candidate is gone")


def _give_up(site: Site, served: Served, attempt: str, error: BaseException, by: str) -> None:
    """Withdraw the candidate and leave the reason in the history, as far as that is still possible."""
    why = str(error) or "it was interrupted"
    site.say(f"rolling back: {why}")
    with suppress(ClusterError):
        candidate.withdraw(site, attempt)
    with suppress(StoreError):
        site.models.record_attempt(site.name, served.version, reason=f"not promoted: {why}", by=by)


def _champion_already(site: Site, version: int) -> Outcome | None:
    """Return the outcome of a version that somebody promoted while it was watched."""
    with suppress(StoreError):
        champion = site.models.champion(site.name)
        if champion and champion.version == version:
            return Outcome(version=version, decision="promote", reason=champion.reason)
    return None
