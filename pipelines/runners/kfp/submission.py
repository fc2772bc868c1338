"""Submits a configuration to Kubeflow Pipelines, and compares it with the last run.

    submission = prepare(config, environment)
    existing = find_existing(backend, submission)
    compare_with_last_run(backend, submission, existing)
    run = submit(backend, submission, existing)

The pipeline and the experiment have the name of the model. A pipeline version is named after the SHA-256 of
its package: the steps with their images, resources and nodes, without arguments. So runs with different
configurations share a version.
"""

import hashlib
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import kfp_server_api as kfp

from modelyard.components.errors import BackendError, ConflictError, NotFoundError
from modelyard.components.interface import IMAGE_VARIABLE, INTERFACE_VARIABLE
from modelyard.components.kubernetes import Json
from modelyard.pipelines.compile.compiler import NO_OPTIONS, compile_package, create_arguments, parse_package
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.differences import Change, find_differences, flatten
from modelyard.pipelines.runners.kfp.client import Backend, LostResponseError, equals_filter, find_experiment
from modelyard.pipelines.runners.kfp.runs import run_parameters
from modelyard.pipelines.steps import deploy_spec

DESCRIPTION = "Made by modelyard."
# The keys of a package that set images, resources, nodes and retries.
SETTING = re.compile(r".*\.(?:executors\.exec-|pipelineConfig\.|tasks\.(?=[^.]+\.retryPolicy))(?P<key>.+)")
# Not compared: programs, and sizes as numbers, which the package also has as text.
OMITTED_SETTINGS = (".command", ".args", ".cpuRequest", ".cpuLimit", ".memoryRequest", ".memoryLimit")
T = TypeVar("T")


@dataclass(frozen=True)
class Submission:
    """The content of a submission.

    Attributes:
        package: the compiled pipeline as YAML, without arguments.
        pipeline: the name of the model, which pipeline and experiment also have.
        version: the name of the pipeline version.
    """

    package: bytes
    sha256: str
    pipeline: str
    version: str
    arguments: dict[str, str | bool | int]
    pipeline_root: str
    service_account: str

    def runtime_config(self) -> kfp.V2beta1RuntimeConfig:
        """Return the arguments and the pipeline root; Kubeflow Pipelines ignores the root in a package."""
        return kfp.V2beta1RuntimeConfig(parameters=self.arguments, pipeline_root=self.pipeline_root)


class ExistingObjects(NamedTuple):
    """The IDs of a submission's objects on the server; None for a missing object."""

    pipeline_id: str | None
    version_id: str | None
    experiment_id: str | None

    def reference(self) -> kfp.V2beta1PipelineVersionReference:
        """Return the reference to the pipeline version for a run or recurring run."""
        return kfp.V2beta1PipelineVersionReference(
            pipeline_id=self.pipeline_id, pipeline_version_id=self.version_id
        )


def prepare(
    config: Config, environment: Environment, options: Mapping[str, bool | int] = NO_OPTIONS
) -> Submission:
    """Return the submission of a configuration without local files; equal inputs give equal bytes.

    Raises:
        ConfigError: the configuration cannot run in this environment.
    """
    package = compile_package(environment)
    sha256 = hashlib.sha256(package).hexdigest()
    return Submission(
        package=package,
        sha256=sha256,
        pipeline=config.name,
        version=f"sha256-{sha256[:16]}",
        arguments={**create_arguments(config, environment), **options},
        pipeline_root=str(environment.pipeline_root),
        service_account=environment.runs.service_account,
    )


def find_existing(backend: Backend, submission: Submission) -> ExistingObjects:
    """Return the objects of a submission that the server has.

    Raises:
        BackendError: a pipeline or an experiment of this name was not created by modelyard.
    """
    name, api = submission.pipeline, backend.pipelines
    experiment_id = _find_experiment_id(backend, name)
    try:
        pipeline = api.pipeline_service_get_pipeline_by_name(name, **backend.scope_arguments())
    except NotFoundError:
        return ExistingObjects(None, None, experiment_id)
    _check_managed("pipeline", name, pipeline.description, backend)
    page = api.pipeline_service_list_pipeline_versions(
        pipeline.pipeline_id, page_size=1, filter=equals_filter("display_name", submission.version)
    )
    version_id = page.pipeline_versions[0].pipeline_version_id if page.pipeline_versions else None
    return ExistingObjects(pipeline.pipeline_id, version_id, experiment_id)


def _find_experiment_id(backend: Backend, name: str) -> str | None:
    """Return the ID of a model's experiment, if there is one."""
    if (experiment := find_experiment(backend, name)) is None:
        return None
    _check_managed("experiment", name, experiment.description, backend)
    return str(experiment.experiment_id)


def _check_managed(kind: str, name: str, description: str | None, backend: Backend) -> None:
    """Raise BackendError unless the description of a pipeline or an experiment is modelyard's."""
    if not (description or "").startswith(DESCRIPTION):
        raise BackendError(
            f"The {kind} {name!r} at {backend.endpoint} was not created by modelyard. Change `name` in the "
            f"configuration, or delete that {kind}."
        )


def submit(
    backend: Backend, submission: Submission, existing_objects: ExistingObjects | None = None
) -> kfp.V2beta1Run:
    """Create the missing objects, start a run and return it; `existing_objects` is from `find_existing`."""
    uploaded_objects = upload(backend, submission, existing_objects)
    return start_run(
        backend,
        submission.pipeline,
        uploaded_objects.experiment_id,
        pipeline_version_reference=uploaded_objects.reference(),
        runtime_config=submission.runtime_config(),
        service_account=submission.service_account,
    )


def upload(
    backend: Backend, submission: Submission, existing_objects: ExistingObjects | None = None
) -> ExistingObjects:
    """Create the missing objects of a submission."""
    existing_objects = existing_objects or find_existing(backend, submission)
    pipeline_id = existing_objects.pipeline_id or _create_pipeline(backend, submission)
    return ExistingObjects(
        pipeline_id,
        existing_objects.version_id or _upload_version(backend, submission, pipeline_id),
        existing_objects.experiment_id or _create_experiment(backend, submission.pipeline),
    )


def start_run(backend: Backend, model: str, experiment_id: str | None, **fields: Any) -> kfp.V2beta1Run:
    """Start a run once, with a unique name that sorts by time; `fields` are those of V2beta1Run."""
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}-{model}"
    body = kfp.V2beta1Run(display_name=name, experiment_id=experiment_id, **fields)

    def find_run() -> Any:
        page = backend.runs.run_service_list_runs(
            experiment_id=experiment_id, page_size=1, filter=equals_filter("display_name", name)
        )
        return page.runs[0] if page.runs else None

    return create_once(lambda: backend.runs.run_service_create_run(body), find_run)


def create_once(create: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Create an object with a unique name, or return the existing one.

    The object may exist because an earlier response was lost or another command created it.
    """
    try:
        return create()
    except (ConflictError, LostResponseError) as error:
        if (existing := find()) is not None:
            return existing
        if isinstance(error, ConflictError):
            raise
    return create()


def compare_with_last_run(
    backend: Backend, submission: Submission, existing_objects: ExistingObjects
) -> tuple[str | None, tuple[Change, ...]]:
    """Return the name of the model's last run, or None, and the differences between it and a submission."""
    if existing_objects.experiment_id is None:
        return None, ()
    page = backend.runs.run_service_list_runs(
        experiment_id=existing_objects.experiment_id, page_size=1, sort_by="created_at desc"
    )
    if not page.runs:
        return None, ()
    last_run = page.runs[0]
    return last_run.display_name, compare_with_run(backend, last_run, submission, existing_objects.version_id)


def compare_with_run(
    backend: Backend, run: Any, submission: Submission, version_id: str | None
) -> tuple[Change, ...]:
    """Return the differences between an earlier run, or a recurring run, and a submission.

    `version_id` is the ID of the pipeline version of the submission, if the server has it.
    """
    runtime, reference = run.runtime_config, run.pipeline_version_reference
    old_values = _flatten_configuration(run_parameters(run))
    old_values |= {"pipeline_root": runtime and runtime.pipeline_root, "service_account": run.service_account}
    settings = _flatten_configuration(submission.arguments)
    settings |= {"pipeline_root": submission.pipeline_root, "service_account": submission.service_account}
    if reference and reference.pipeline_version_id != version_id:
        name, package = _fetch_package(backend, reference)
        old_values, settings = old_values | {"version": name}, settings | {"version": submission.version}
        if package:
            old_values |= _extract_settings(package)
            settings |= _extract_settings(parse_package(submission.package))
    return find_differences(old_values, settings)


def _fetch_package(backend: Backend, reference: Any) -> tuple[str, list[Json]]:
    """Return the name and the documents of a pipeline version; no documents if it was deleted."""
    try:
        version = backend.pipelines.pipeline_service_get_pipeline_version(
            reference.pipeline_id, reference.pipeline_version_id
        )
    except NotFoundError:
        return "deleted", []
    spec = version.pipeline_spec or {}
    if "pipeline_spec" in spec:
        return str(version.display_name), [spec["pipeline_spec"], spec.get("platform_spec") or {}]
    return str(version.display_name), [spec]


def _create_pipeline(backend: Backend, submission: Submission) -> str:
    body = kfp.V2beta1Pipeline(
        name=submission.pipeline,
        display_name=submission.pipeline,
        description=f"{DESCRIPTION} Takes the model {submission.pipeline} from data to its server.",
        namespace=backend.scope,
    )
    return create_once(
        lambda: str(backend.pipelines.pipeline_service_create_pipeline(body).pipeline_id),
        lambda: find_existing(backend, submission).pipeline_id,
    )


def _upload_version(backend: Backend, submission: Submission, pipeline_id: str) -> str:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{submission.pipeline}.yaml"
        path.write_bytes(submission.package)

        def create() -> str:
            version = backend.uploads.upload_pipeline_version(
                str(path), name=submission.version, pipelineid=pipeline_id, description=DESCRIPTION
            )
            return str(version.pipeline_version_id)

        return create_once(create, lambda: find_existing(backend, submission).version_id)


def _create_experiment(backend: Backend, name: str) -> str:
    body = kfp.V2beta1Experiment(display_name=name, description=DESCRIPTION, namespace=backend.scope)
    return create_once(
        lambda: str(backend.experiments.experiment_service_create_experiment(body).experiment_id),
        lambda: _find_experiment_id(backend, name),
    )


def _flatten_configuration(arguments: Json) -> Json:
    """Return the configuration by dotted key, from the spec of deploy."""
    deploy = deploy_spec(arguments)
    config, target = deploy.get("config", {}), deploy.get("target", {})
    code = {"content of model.code": sha256} if (sha256 := deploy.get("code_sha256")) else {}
    return flatten(config) | flatten(target, "target.") | code


def _extract_settings(package: Iterable[Json]) -> Json:
    """Return the images, resources, nodes and retries of a package, by keys such as train.image."""
    settings: Json = {}
    for document in package:
        for path, value in flatten(document).items():
            if not (setting := SETTING.fullmatch(path)) or path.endswith(OMITTED_SETTINGS):
                continue
            key = setting["key"].replace(".container.", ".")
            if key.endswith(".env"):  # a list; the omitted variables depend only on the image
                variables = {item["name"]: item.get("value") for item in value}
                settings |= {
                    f"{key}.{name}": variables[name]
                    for name in variables.keys() - {INTERFACE_VARIABLE, IMAGE_VARIABLE}
                }
            else:
                settings[key] = value
    return settings
