"""What the server has already: looked up by name, and made once, whoever else makes it, too."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import kfp_server_api as kfp

from modelyard.components.errors import BackendError, ConflictError, NotFoundError
from modelyard.pipelines.runners.kfp.client import Backend, LostError

if TYPE_CHECKING:
    from modelyard.pipelines.runners.kfp.submission import Submission

MADE_BY = "Made by modelyard."
T = TypeVar("T")


class Found(NamedTuple):
    """What the server has of a submission: ids, and None for what is not there."""

    pipeline_id: str | None
    version_id: str | None
    experiment_id: str | None


def look(backend: Backend, submission: "Submission") -> Found:
    """Return what the server has of a submission.

    Raises:
        BackendError: a pipeline of this name was not made by modelyard.
    """
    return Found(*known(backend, submission), find_experiment(backend, submission.pipeline))


def known(backend: Backend, submission: "Submission") -> tuple[str | None, str | None]:
    """Return the ids of the pipeline and of the version, as far as the server has them.

    Raises:
        BackendError: a pipeline of this name was not made by modelyard.
    """
    try:
        found = backend.pipelines.pipeline_service_get_pipeline_by_name(
            submission.pipeline, **backend.scoped()
        )
    except NotFoundError:
        return None, None
    if not (found.description or "").startswith(MADE_BY):
        raise BackendError(
            f"There is a pipeline {submission.pipeline!r} at {backend.endpoint} already, and modelyard did "
            "not make it. Give the model another `name` in the configuration, or delete that pipeline."
        )
    versions = backend.pipelines.pipeline_service_list_pipeline_versions(
        found.pipeline_id, page_size=1, filter=equals("display_name", submission.version)
    )
    return found.pipeline_id, versions.pipeline_versions[
        0
    ].pipeline_version_id if versions.pipeline_versions else None


def experiment(backend: Backend, name: str) -> str:
    """Return the id of the experiment of a name, and make it when there is none."""
    if found := find_experiment(backend, name):
        return found
    body = kfp.V2beta1Experiment(display_name=name, description=MADE_BY, namespace=backend.scope)
    return once(
        lambda: str(backend.experiments.experiment_service_create_experiment(body).experiment_id),
        lambda: find_experiment(backend, name),
    )


def find_experiment(backend: Backend, name: str) -> str | None:
    """Return the id of the experiment of a name, or None."""
    page = backend.experiments.experiment_service_list_experiments(
        page_size=1, filter=equals("display_name", name), **backend.scoped()
    )
    return str(page.experiments[0].experiment_id) if page.experiments else None


def once(create: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Create something of a name of its own, also when the answer is lost or somebody else is quicker.

    Args:
        create: asks for it.
        find: returns it if it is there.
    """
    try:
        return create()
    except (ConflictError, LostError) as error:
        if (found := find()) is not None:
            return found
        if isinstance(error, ConflictError):
            raise
    return create()


def equals(key: str, value: str) -> str:
    """Return the filter of a list by one value."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "string_value": value}]})
