"""The champion pointer moves and stable follows it; where stable cannot follow, both go back."""

from modelyard.components.deploy import stable
from modelyard.components.deploy.site import Site
from modelyard.components.errors import ClusterError, ConflictError, DeployError, StoreError
from modelyard.components.kubernetes.pod_problem import Json


def move(site: Site, version: int, current: int, reason: str, by: str) -> None:
    """Make the version the champion.

    Raises:
        ConflictError: the champion is not `current` any more.
        StoreError: the store does not answer, or is not what it should be.
    """
    site.patiently(lambda: site.models.promote(site.name, version, reason=reason, by=by, expected=current))
    site.say(f"promoted: version {version} is the champion of {site.name}")


def follow(site: Site, version: int, before: int, by: str) -> None:
    """Bring stable to the pointer, or go back.

    Args:
        site: the model's place.
        version: where the pointer was moved to.
        before: the champion until then, 0 for none.
        by: who did that, for the history.

    Raises:
        DeployError: stable's pods do not run; why, and what is the champion and serves now.
    """
    seen = site.deployment("stable")
    try:
        stable.put(site)
    except (ClusterError, DeployError) as error:
        if not before:
            raise DeployError(
                f"{error} It is the first champion, so there is none to go back to: its candidate goes on "
                "answering clients. Deploy it again when that is mended."
            ) from error
        raise DeployError(f"{error} {_go_back(site, seen, version, before, str(error), by)}") from error


def _go_back(site: Site, seen: Json | None, version: int, before: int, why: str, by: str) -> str:
    """Make `before` the champion again and stable what it was when it was seen; return how that went."""
    if before == version:
        return stable.put_back(site, seen)
    try:
        site.patiently(
            lambda: site.models.promote(
                site.name, before, reason=why, by=by, action="rollback", expected=version
            )
        )
    except ConflictError:
        return _go_along(site)
    except StoreError as error:
        said = (
            f"The pointer could not be moved back and still names version {version} ({error}); "
            f"`modelyard models promote {site.name} {before} -e ENV` moves it."
        )
    else:
        said = f"Version {before} is the champion again."
    return f"{said} {stable.put_back(site, seen)}"


def _go_along(site: Site) -> str:
    """Bring stable to what somebody else made the champion meanwhile; return how that went."""
    said = "Somebody else moved the pointer meanwhile."
    try:
        champion = stable.put(site)
    except (ClusterError, DeployError) as error:
        return f"{said} {error}"
    return f"{said} Stable serves version {champion.version}." if champion else said
