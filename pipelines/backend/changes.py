"""What a submission changes: what is new on the server, and what differs from the last run of the model."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from components.errors import NotFoundError
from pipelines.backend.client import Backend
from pipelines.backend.lookup import Found
from pipelines.backend.submission import Submission

TOLD = ("config", "target")
"""The arguments that say it all: the others are sections of them, or follow from them."""
CODE = "code_sha256"


class Change(NamedTuple):
    """A key of the configuration, an image or the like, and its values; None where there is none."""

    key: str
    before: Any
    after: Any


class Changes(NamedTuple):
    """What is new with a submission.

    `since` is the name of the model's last run, None when there was none; `differences` are against it.
    """

    new_pipeline: bool
    new_version: bool
    since: str | None
    differences: tuple[Change, ...]


def compare(backend: Backend, submission: Submission, found: Found) -> Changes:
    """Return what a submission changes; nothing is sent.

    Args:
        backend: the server.
        submission: what would be sent.
        found: what is there of it.

    Raises:
        BackendError: the server does not answer.
    """
    new = (found.pipeline_id is None, found.version_id is None)
    last = _last_run(backend, found.experiment_id) if found.experiment_id else None
    if last is None:
        return Changes(*new, None, ())
    return Changes(*new, last.display_name, against(backend, last, submission, found.version_id))


def against(
    backend: Backend, made: Any, submission: Submission, version_id: str | None
) -> tuple[Change, ...]:
    """Return how a submission differs from what was made before.

    Args:
        backend: the server.
        made: a run, or a recurring run.
        submission: what would be sent.
        version_id: that of its package, if the server has it.
    """
    parameters = (made.runtime_config.parameters if made.runtime_config else None) or {}
    before, after = dict(_leaves(parameters)), dict(_leaves(submission.arguments))
    reference = made.pipeline_version_reference
    if reference and reference.pipeline_version_id != version_id:
        before |= _images(backend, reference)
        after |= {f"image of {step}": image for step, image in submission.images.items()}
    return tuple(
        Change(key, before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    )


def _last_run(backend: Backend, experiment: str) -> Any:
    page = backend.runs.run_service_list_runs(
        experiment_id=experiment, page_size=1, sort_by="created_at desc"
    )
    return page.runs[0] if page.runs else None


def _leaves(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each value of the configuration with its key, and what stands beside it."""
    for name in TOLD:
        prefix = () if name == "config" else (name,)
        yield from _flat(json.loads(arguments.get(name) or "{}"), prefix)
    if arguments.get(CODE):
        yield "content of model.code", arguments[CODE]


def _flat(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _flat(one, (*keys, key))
    else:
        yield ".".join(keys), value


def _images(backend: Backend, reference: Any) -> dict[str, str]:
    """Return the images of a version, by what they are called here; none when it is gone."""
    try:
        version = backend.pipelines.pipeline_service_get_pipeline_version(
            reference.pipeline_id, reference.pipeline_version_id
        )
    except NotFoundError:
        return {}
    spec = version.pipeline_spec or {}
    executors = spec.get("pipeline_spec", spec).get("deploymentSpec", {}).get("executors", {})
    return {
        f"image of {name.removeprefix('exec-')}": executor["container"]["image"]
        for name, executor in executors.items()
        if "container" in executor
    }
