"""The output of `modelyard rollout status`."""

from contextlib import suppress

from modelyard.components.artifacts import Record
from modelyard.components.deploy.platforms.base import Servers, ServingPlatform
from modelyard.components.errors import DamagedError, NotFoundError
from modelyard.components.store.models import ModelStore


class RolloutStatus(Record):
    """A model on its platform.

    `canary` tells whether clients reach the candidate too, `abandoned` whether the candidate's rollout was
    killed. `last` is the last entry of the history: a promotion, a rollback, or a failed attempt.
    """

    model: str
    location: str
    champion: int | None
    stable: Servers | None
    candidate: Servers | None
    canary: bool
    abandoned: bool
    errors: tuple[str, ...]
    last: str | None


def rollout_status(platform: ServingPlatform, models: ModelStore) -> RolloutStatus:
    """Return the status of a model's rollout.

    Raises:
        ClusterError: the cluster refuses a request or does not respond.
        StoreError: the store does not respond.
    """
    name, status = platform.name, platform.status(errors=True)
    history, damages = models.readable_history(name)
    last, stable = history[-1] if history else None, status.stable
    errors = [*damages, *status.errors]
    champion = None
    with suppress(DamagedError):  # one of `damages`
        champion = models.champion(name)
    if champion and (stable is None or stable.version != champion.version):
        served = f"version {stable.version}" if stable else "nothing"
        remedy = f"`modelyard deploy {name} {champion.version} -e ENV` updates stable."
        damage = _find_damage(models, name, champion.version)
        if not platform.follows_pointer:
            difference = f"The champion is version {champion.version} and stable serves {served}."
            errors.append(f"{difference} {damage or remedy}")
        elif damage and stable is None:  # else the server reports it
            errors.append(damage)
    if champion is None and not damages and stable and not platform.follows_pointer:
        errors.append(
            f"Stable serves version {stable.version}, and {name} has no champion in {models.url}. If this is "
            f"the right store, `modelyard deploy {name} {stable.version} -e ENV` makes the version champion."
        )
    if status.candidate and status.abandoned:
        since = f" since {status.heartbeat:%Y-%m-%d %H:%M} UTC" if status.heartbeat else ""
        errors.append(
            f"The candidate, version {status.candidate.version}, is abandoned{since}: its rollout was "
            f"killed. The next deploy replaces it; `modelyard rollout abort {name} -e ENV` deletes it."
        )
    return RolloutStatus(
        model=name,
        location=platform.location,
        champion=champion.version if champion else None,
        stable=stable,
        candidate=status.candidate,
        canary=status.canary,
        abandoned=status.abandoned,
        errors=tuple(errors),
        last=f"{last.at}, version {last.version}, by {last.by}: {last.reason}" if last else None,
    )


def _find_damage(models: ModelStore, name: str, version: int) -> str:
    """Return which file of a version is missing or damaged; empty when none is."""
    try:
        models.verify(name, version)
    except (DamagedError, NotFoundError) as error:
        return str(error)
    return ""
