"""The output of `modelyard rollout status`."""

from contextlib import suppress

from modelyard.components.artifacts import Record
from modelyard.components.deploy.platforms.base import Servers, ServingPlatform
from modelyard.components.errors import DamagedError, NotFoundError
from modelyard.components.store.models import ModelStore
from modelyard.components.store.records import HistoryEntry


class RolloutStatus(Record):
    """A model on its platform.

    `canary` tells whether clients reach the candidate too, `abandoned` whether the candidate's rollout was
    killed. `last_entry` is the last entry of the history: a promotion, a rollback, or a failed attempt.
    """

    model: str
    location: str
    champion: int | None
    stable: Servers | None
    candidate: Servers | None
    canary: bool
    abandoned: bool
    errors: tuple[str, ...]
    last_entry: HistoryEntry | None


def rollout_status(platform: ServingPlatform, models: ModelStore) -> RolloutStatus:
    """Return the status of a model's rollout.

    Raises:
        ClusterError: the cluster refuses a request or does not respond.
        StoreError: the store does not respond.
    """
    name, status = platform.name, platform.status(errors=True)
    history, store_errors = models.readable_history(name)
    champion = None
    with suppress(DamagedError):  # one of `store_errors`
        champion = models.champion(name)
    errors = [*store_errors, *status.errors]
    if champion:
        errors += _find_difference(platform, models, champion.version, status.stable)
    elif status.stable and not store_errors and not platform.follows_pointer:
        version = status.stable.version
        errors.append(
            f"Stable serves version {version}, and {name} has no champion in {models.url}. If this is "
            f"the right store, `modelyard deploy {name} {version} -e ENV` makes it the champion."
        )
    if status.candidate and status.abandoned:
        since = f" since {status.heartbeat:%Y-%m-%d %H:%M} UTC" if status.heartbeat else ""
        errors.append(
            f"The candidate, version {status.candidate.version}, is abandoned{since}: its rollout was "
            f"killed. The next deploy replaces it; `modelyard rollout abort {name} -e ENV` deletes it."
        )
    last = history[-1] if history else None
    return RolloutStatus(
        model=name,
        location=platform.location,
        champion=champion.version if champion else None,
        stable=status.stable,
        candidate=status.candidate,
        canary=status.canary,
        abandoned=status.abandoned,
        errors=tuple(errors),
        last_entry=last,
    )


def _find_difference(
    platform: ServingPlatform, models: ModelStore, champion: int, stable: Servers | None
) -> list[str]:
    """Return why stable does not serve the champion, or what updates it; empty if it serves the champion."""
    if stable and stable.version == champion:
        return []
    damage = _find_damage(models, platform.name, champion)
    if platform.follows_pointer:
        return [damage] if damage and stable is None else []  # a running server reports the damage
    version = f"version {stable.version}" if stable else "nothing"
    remedy = f"`modelyard deploy {platform.name} {champion} -e ENV` updates stable."
    return [f"The champion is version {champion} and stable serves {version}. {damage or remedy}"]


def _find_damage(models: ModelStore, name: str, version: int) -> str:
    """Return which file of a version is missing or damaged; empty when none is."""
    try:
        models.verify(name, version)
    except (DamagedError, NotFoundError) as error:
        return str(error)
    return ""
