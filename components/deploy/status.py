"""What `modelyard rollout status` shows: the pointer, what serves, and what is wrong."""

from modelyard.components.artifacts import Record
from modelyard.components.deploy.platforms.base import Servers, ServingPlatform
from modelyard.components.errors import DamagedError, NotFoundError
from modelyard.components.store.models import ModelStore


class RolloutStatus(Record):
    """A model on its platform.

    `canary` is whether clients reach the candidate too, `abandoned` whether the candidate's rollout was
    killed, `last` the last entry of the history: a promotion, a rollback, or a version not promoted.
    """

    model: str
    location: str
    champion: int | None
    stable: Servers | None
    candidate: Servers | None
    canary: bool
    abandoned: bool
    problems: tuple[str, ...]
    last: str | None


def rollout_status(platform: ServingPlatform, models: ModelStore) -> RolloutStatus:
    """Look at a model once.

    Raises:
        ClusterError: the cluster does not answer, or does not allow it.
        StoreError: the store does not answer.
    """
    name, found = platform.name, platform.status(problems=True)
    champion, history = models.champion(name), models.history(name)
    last, serves = history[-1] if history else None, found.stable
    problems = list(found.problems)
    if champion and (serves is None or serves.version != champion.version):
        what = f"version {serves.version}" if serves else "nothing"
        remedy = f"`modelyard deploy {name} {champion.version} -e ENV` brings it there, as every deploy does."
        damage = _damage(models, name, champion.version)
        if not platform.follows_pointer:
            behind = f"The champion is version {champion.version} and stable serves {what}."
            problems.append(f"{behind} {damage or remedy}")
        elif damage and serves is None:  # else the server says so
            problems.append(damage)
    if champion is None and serves and not platform.follows_pointer:
        problems.append(
            f"Stable serves version {serves.version}, and {name} has no champion in {models.url}. "
            f"`modelyard deploy {name} {serves.version} -e ENV` makes it that, if this is its store."
        )
    if found.candidate and found.abandoned:
        since = f", since {found.heartbeat:%Y-%m-%d %H:%M} UTC" if found.heartbeat else ""
        problems.append(
            f"The candidate, version {found.candidate.version}, is abandoned{since}: its deploy was "
            f"killed. The next deploy takes its place; `modelyard rollout abort {name} -e ENV` takes it away."
        )
    return RolloutStatus(
        model=name,
        location=platform.location,
        champion=champion.version if champion else None,
        stable=serves,
        candidate=found.candidate,
        canary=found.canary,
        abandoned=found.abandoned,
        problems=tuple(problems),
        last=f"{last.at}, version {last.version}, by {last.by}: {last.reason}" if last else None,
    )


def _damage(models: ModelStore, name: str, version: int) -> str:
    """Return what of a version is missing or damaged; empty when nothing is."""
    try:
        models.verify(name, version)
    except (DamagedError, NotFoundError) as error:
        return str(error)
    return ""
