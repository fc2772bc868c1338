"""What a submission changes: what is new on the server, and what differs from the last run of the model."""

import json
from typing import Any, NamedTuple

import yaml

from modelyard.components.errors import NotFoundError
from modelyard.pipelines.compile.preflight import LOADER
from modelyard.pipelines.runners.differences import Change, differences, flat
from modelyard.pipelines.runners.kfp.client import Backend
from modelyard.pipelines.runners.kfp.lookup import Found
from modelyard.pipelines.runners.kfp.package import parts
from modelyard.pipelines.runners.kfp.submission import Submission

Json = dict[str, Any]
CODE = "code_sha256"


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
    runtime, reference = made.runtime_config, made.pipeline_version_reference
    before = _arguments((runtime.parameters if runtime else None) or {}) | {
        "pipeline_root": runtime and runtime.pipeline_root,
        "service_account": made.service_account,
    }
    after = _arguments(submission.arguments) | {
        "pipeline_root": submission.pipeline_root,
        "service_account": submission.service_account,
    }
    changed = differences(before, after)
    if reference and reference.pipeline_version_id != version_id:
        changed += _versions(backend, reference, submission)
    return changed


def _last_run(backend: Backend, experiment: str) -> Any:
    page = backend.runs.run_service_list_runs(
        experiment_id=experiment, page_size=1, sort_by="created_at desc"
    )
    return page.runs[0] if page.runs else None


def _arguments(arguments: Json) -> Json:
    """Return each value of the configuration with its key, and what stands beside it.

    Two of the arguments say it all: the others are sections of them, or follow from them.
    """
    config, target = (json.loads(arguments.get(name) or "{}") for name in ("config", "target"))
    code = {"content of model.code": arguments[CODE]} if arguments.get(CODE) else {}
    return flat(config) | flat(target, "target.") | code


def _versions(backend: Backend, reference: Any, submission: Submission) -> tuple[Change, ...]:
    """Return how the package differs from that of another version."""
    try:
        other = backend.pipelines.pipeline_service_get_pipeline_version(
            reference.pipeline_id, reference.pipeline_version_id
        )
    except NotFoundError:
        return (Change(key="version", before="one that is gone", after=submission.version),)
    spec, *platform = yaml.load_all(submission.package, LOADER)
    there = other.pipeline_spec or {}
    before = parts(there.get("pipeline_spec", there), there.get("platform_spec") or {})
    changed = differences(before, parts(spec, platform[0] if platform else {}))
    return changed or (Change(key="version", before=other.display_name, after=submission.version),)
