"""Verify a version in a real server on this machine, and make it the champion."""

from modelyard.components.artifacts import Golden, Outcome
from modelyard.components.deploy import golden, server
from modelyard.components.deploy.outcomes import overtaken
from modelyard.components.deploy.peer import Direct
from modelyard.components.errors import ConflictError, DeployError
from modelyard.components.store.models import ModelStore


def promote(
    models: ModelStore,
    name: str,
    version: int,
    expected: int,
    requests: Golden,
    reason: str,
    store: str,
    serving: str,
    tolerance: float,
) -> Outcome:
    """Make a version the champion, if it answers as evaluate saw.

    Args:
        models: the store.
        name: the model's name.
        version: a whole version.
        expected: the champion that it was compared with, 0 for none.
        requests: golden requests.
        reason: why it is promoted.
        store: `store` section as JSON.
        serving: `serving` section as JSON.
        tolerance: by how much a probability may differ from what evaluate saw.

    Raises:
        DeployError: the server does not start, or does not answer as evaluate saw.
    """
    try:
        with server.running(name, store, serving, version) as url:
            golden.replay(Direct(url), name, version, requests, tolerance)
    except DeployError as error:
        raise DeployError(f"{error} Version {version} was not promoted.") from error
    try:
        models.promote(name, version, reason=reason, by="pipeline", expected=expected)
    except ConflictError as error:
        return overtaken(version, expected, str(error))
    return Outcome(version=version, decision="promote", reason=reason)
