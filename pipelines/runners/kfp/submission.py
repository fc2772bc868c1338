"""Submit a configuration to Kubeflow Pipelines: package, version, arguments, and the changes to the last run.

    submission = prepare(config, environment)
    found = find_existing(backend, submission)
    compare_with_last_run(backend, submission, found)  # what differs from the model's last run
    run = submit(backend, submission, found)

The pipeline and the experiment have the name of the model. A version is named after the SHA-256 of its
package, which has the steps with their images, resources and nodes, but no arguments: it is uploaded once,
and runs with other configurations use the same version.
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
from modelyard.components.interface import EXPECTED, IMAGE
from modelyard.components.kubernetes import Json
from modelyard.pipelines.compile.compiler import NO_OPTIONS, compile_package, create_arguments, parse_package
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.differences import Change, differences, flatten
from modelyard.pipelines.runners.kfp.client import Backend, LostResponseError, equals_filter, find_experiment
from modelyard.pipelines.steps import deploy_spec

MADE_BY = "Made by modelyard."
# Keys of a package for the resources, nodes and retries of steps and of the run; without programs, and
# without the sizes that the package also has as text.
SETTING = re.compile(r".*\.(?:executors\.exec-|pipelineConfig\.|tasks\.(?=[^.]+\.retryPolicy))(?P<key>.+)")
NOT_SHOWN = (".command", ".args", ".cpuRequest", ".cpuLimit", ".memoryRequest", ".memoryLimit")
T = TypeVar("T")


@dataclass(frozen=True)
class Submission:
    """What `submit` sends.

    Attributes:
        package: the compiled pipeline as YAML, without arguments.
        sha256: the SHA-256 of the package.
        pipeline: the name of the pipeline and the experiment: the model's.
        version: the name of the version, derived from the SHA-256.
        arguments: the configuration, section by section, as the pipeline's parameters.
        pipeline_root: the URL of the run's artifacts.
        service_account: the service account of its pods.
    """

    package: bytes
    sha256: str
    pipeline: str
    version: str
    arguments: dict[str, str | bool | int]
    pipeline_root: str
    service_account: str

    def runtime_config(self) -> kfp.V2beta1RuntimeConfig:
        """Return the arguments and the pipeline root in the form of a run."""
        # in each run, as Kubeflow Pipelines ignores the root in a package
        return kfp.V2beta1RuntimeConfig(parameters=self.arguments, pipeline_root=self.pipeline_root)


class ExistingObjects(NamedTuple):
    """The IDs of the objects of a submission on the server; None for each missing object."""

    pipeline_id: str | None
    version_id: str | None
    experiment_id: str | None

    def reference(self) -> kfp.V2beta1PipelineVersionReference:
        """Return the version in the form of a run or recurring run."""
        return kfp.V2beta1PipelineVersionReference(
            pipeline_id=self.pipeline_id, pipeline_version_id=self.version_id
        )


def prepare(
    config: Config, environment: Environment, options: Mapping[str, bool | int] = NO_OPTIONS
) -> Submission:
    """Return what would be submitted; the same configuration and environment give the same bytes.

    Args:
        config: the configuration, without files of this machine.
        environment: the environment of the run.
        options: arguments of the pipeline that are not in the configuration: `skip_unchanged`, `force_after`.

    Raises:
        ConfigError: it cannot run in this environment.
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
    experiment_id = _experiment_id(backend, name)
    try:
        pipeline = api.pipeline_service_get_pipeline_by_name(name, **backend.scoped())
    except NotFoundError:
        return ExistingObjects(None, None, experiment_id)
    _check_managed("pipeline", name, pipeline.description, backend)
    page = api.pipeline_service_list_pipeline_versions(
        pipeline.pipeline_id, page_size=1, filter=equals_filter("display_name", submission.version)
    )
    version_id = page.pipeline_versions[0].pipeline_version_id if page.pipeline_versions else None
    return ExistingObjects(pipeline.pipeline_id, version_id, experiment_id)


def _experiment_id(backend: Backend, name: str) -> str | None:
    """Return the id of the experiment that holds a model's runs, if there is one."""
    if (found := find_experiment(backend, name)) is None:
        return None
    _check_managed("experiment", name, found.description, backend)
    return str(found.experiment_id)


def _check_managed(what: str, name: str, description: str | None, backend: Backend) -> None:
    """Raise unless modelyard created a pipeline or an experiment, according to its description."""
    if not (description or "").startswith(MADE_BY):
        raise BackendError(
            f"The {what} {name!r} at {backend.endpoint} was not created by modelyard. Change `name` in the "
            f"configuration, or delete that {what}."
        )


def submit(backend: Backend, submission: Submission, found: ExistingObjects | None = None) -> kfp.V2beta1Run:
    """Create the missing objects, start a run and return it.

    Args:
        backend: the server.
        submission: the submission.
        found: the result of `find_existing`; None to request it.

    Raises:
        BackendError: Kubeflow Pipelines refuses it, or does not answer.
    """
    there = upload(backend, submission, found)
    body = kfp.V2beta1Run(
        display_name=new_run_name(submission.pipeline),
        experiment_id=there.experiment_id,
        pipeline_version_reference=there.reference(),
        runtime_config=submission.runtime_config(),
        service_account=submission.service_account,
    )
    return start_run(backend, body)


def upload(backend: Backend, submission: Submission, found: ExistingObjects | None = None) -> ExistingObjects:
    """Create the missing objects of a submission; the arguments are those of `submit`.

    Raises:
        BackendError: the server refuses it, or another program created a pipeline of this name.
    """
    found = found or find_existing(backend, submission)
    pipeline_id = found.pipeline_id or _create_pipeline(backend, submission)
    return ExistingObjects(
        pipeline_id,
        found.version_id or _upload_version(backend, submission, pipeline_id),
        found.experiment_id or _create_experiment(backend, submission.pipeline),
    )


def start_run(backend: Backend, body: kfp.V2beta1Run) -> kfp.V2beta1Run:
    """Start a run once, identified by its unique name, and return it."""

    def started() -> Any:
        page = backend.runs.run_service_list_runs(
            experiment_id=body.experiment_id,
            page_size=1,
            filter=equals_filter("display_name", body.display_name),
        )
        return page.runs[0] if page.runs else None

    return create_once(lambda: backend.runs.run_service_create_run(body), started)


def new_run_name(name: str) -> str:
    """Return a new name for a run of a model; names sort by time."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}-{name}"


def create_once(create: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Create an object with a unique name once, even if the response is lost or another command is faster.

    Args:
        create: sends the request.
        find: returns the object if it exists.
    """
    try:
        return create()
    except (ConflictError, LostResponseError) as error:
        if (found := find()) is not None:
            return found
        if isinstance(error, ConflictError):
            raise
    return create()


def compare_with_last_run(
    backend: Backend, submission: Submission, found: ExistingObjects
) -> tuple[str | None, tuple[Change, ...]]:
    """Return the name of the model's last run, or None, and the differences of a submission to it.

    Raises:
        BackendError: the server does not answer.
    """
    if found.experiment_id is None:
        return None, ()
    page = backend.runs.run_service_list_runs(
        experiment_id=found.experiment_id, page_size=1, sort_by="created_at desc"
    )
    if not page.runs:
        return None, ()
    last = page.runs[0]
    return last.display_name, compare_submissions(backend, last, submission, found.version_id)


def compare_submissions(
    backend: Backend, made: Any, submission: Submission, version_id: str | None
) -> tuple[Change, ...]:
    """Return the differences of a submission to an earlier one.

    Args:
        backend: the server.
        made: a run or a recurring run.
        submission: the submission.
        version_id: the ID of its version, if the server has it.
    """
    runtime, reference = made.runtime_config, made.pipeline_version_reference
    before = _configuration((runtime.parameters if runtime else None) or {})
    before |= {"pipeline_root": runtime and runtime.pipeline_root, "service_account": made.service_account}
    after = _configuration(submission.arguments)
    after |= {"pipeline_root": submission.pipeline_root, "service_account": submission.service_account}
    if reference and reference.pipeline_version_id != version_id:
        name, package = _package(backend, reference)
        before, after = before | {"version": name}, after | {"version": submission.version}
        if package:
            before |= _settings(package)
            after |= _settings(parse_package(submission.package))
    return differences(before, after)


def _package(backend: Backend, reference: Any) -> tuple[str, list[Json]]:
    """Return the name and the documents of an earlier version."""
    try:
        version = backend.pipelines.pipeline_service_get_pipeline_version(
            reference.pipeline_id, reference.pipeline_version_id
        )
    except NotFoundError:
        return "deleted", []
    spec = version.pipeline_spec or {}
    both = [spec["pipeline_spec"], spec.get("platform_spec") or {}] if "pipeline_spec" in spec else [spec]
    return str(version.display_name), both


def _create_pipeline(backend: Backend, submission: Submission) -> str:
    body = kfp.V2beta1Pipeline(
        name=submission.pipeline,
        display_name=submission.pipeline,
        description=f"{MADE_BY} Takes the model {submission.pipeline} from data to its server.",
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
            made = backend.uploads.upload_pipeline_version(
                str(path), name=submission.version, pipelineid=pipeline_id, description=MADE_BY
            )
            return str(made.pipeline_version_id)

        return create_once(create, lambda: find_existing(backend, submission).version_id)


def _create_experiment(backend: Backend, name: str) -> str:
    body = kfp.V2beta1Experiment(display_name=name, description=MADE_BY, namespace=backend.scope)
    return create_once(
        lambda: str(backend.experiments.experiment_service_create_experiment(body).experiment_id),
        lambda: _experiment_id(backend, name),
    )


def _configuration(arguments: Json) -> Json:
    """Return the values of the configuration by dotted key, from the argument of deploy."""
    deploy = deploy_spec(arguments)
    config, target = deploy.get("config", {}), deploy.get("target", {})
    code = {"content of model.code": sha256} if (sha256 := deploy.get("code_sha256")) else {}
    return flatten(config) | flatten(target, "target.") | code


def _settings(package: Iterable[Json]) -> Json:
    """Return the images, resources, nodes and retries in a package, by keys such as train.image."""
    found: Json = {}
    for document in package:
        for path, value in flatten(document).items():
            if not (setting := SETTING.fullmatch(path)) or path.endswith(NOT_SHOWN):
                continue
            key = setting["key"].replace(".container.", ".")
            if key.endswith(".env"):  # a list; the image is shown already, and its interface follows from it
                named = {one["name"]: one.get("value") for one in value}
                found |= {f"{key}.{name}": named[name] for name in named.keys() - {EXPECTED, IMAGE}}
            else:
                found[key] = value
    return found
