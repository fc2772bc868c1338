"""From a configuration to a run of Kubeflow Pipelines: a package, a version of a pipeline, arguments.

    submission = prepare(config, environment)
    run = submit(backend, submission)

A model's pipeline is called after it, and so is the experiment that holds its runs. A version is called after
the sha256 of its package, which holds the steps with their images, sizes and nodes, and no arguments: it is
uploaded once, and a run with another configuration is another run of the same version.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import kfp_server_api as kfp

from components.errors import BackendError, ConflictError, NotFoundError
from pipelines.backend.client import Backend, LostError
from pipelines.compiler import arguments, compile_package
from pipelines.config import Config
from pipelines.environment_settings import Environment
from pipelines.train_to_serve import STEPS

MADE_BY = "Made by modelyard."
NO_OPTIONS: Mapping[str, bool | int] = {}
T = TypeVar("T")


@dataclass(frozen=True)
class Submission:
    """What is sent.

    Attributes:
        package: the compiled pipeline, as YAML; it holds no arguments.
        sha256: of the package.
        pipeline: its name, which is the model's, and that of the experiment.
        version: its name, made of the sha256.
        arguments: the configuration, section by section, as the pipeline's parameters.
        images: each step's image, by the step's name.
        pipeline_root: where the run's artifacts go.
        service_account: the account of its pods.
    """

    package: bytes
    sha256: str
    pipeline: str
    version: str
    arguments: dict[str, str | bool | int]
    images: dict[str, str]
    pipeline_root: str
    service_account: str

    def runtime_config(self) -> kfp.V2beta1RuntimeConfig:
        """Return the arguments and the pipeline root as a run takes them."""
        # the root goes with each run: Kubeflow Pipelines ignores the one that a package names
        return kfp.V2beta1RuntimeConfig(parameters=self.arguments, pipeline_root=self.pipeline_root)


class Found(NamedTuple):
    """What the server has of a submission: ids, and None for what is not there."""

    pipeline_id: str | None
    version_id: str | None
    experiment_id: str | None


@dataclass(frozen=True)
class Uploaded:
    """Where a submission's package is; `new` names what was not there before."""

    pipeline_id: str
    version_id: str
    new: tuple[str, ...] = field(default=())


def prepare(
    config: Config, environment: Environment, options: Mapping[str, bool | int] = NO_OPTIONS
) -> Submission:
    """Return what would be sent; the same configuration and environment give the same bytes.

    Args:
        config: the configuration, which names no files of this machine.
        environment: where it runs.
        options: arguments of the pipeline that no configuration has: `skip_unchanged`, `force_after`.

    Raises:
        ConfigError: it cannot run there.
    """
    package = compile_package(environment)
    sha256 = hashlib.sha256(package).hexdigest()
    return Submission(
        package=package,
        sha256=sha256,
        pipeline=config.name,
        version=f"sha256-{sha256[:16]}",
        arguments={**arguments(config, environment), **options},
        images={step: environment.image(step) for step in STEPS},
        pipeline_root=str(environment.pipeline_root),
        service_account=environment.runs.service_account,
    )


def submit(backend: Backend, submission: Submission, found: Found | None = None) -> kfp.V2beta1Run:
    """Upload what is not there yet, and start a run; return it.

    Args:
        backend: the server.
        submission: what is sent.
        found: what was there a moment ago, to spare the same questions.

    Raises:
        BackendError: Kubeflow Pipelines refuses it, or does not answer.
    """
    found = found or look(backend, submission)
    uploaded = upload(backend, submission, found)
    body = kfp.V2beta1Run(
        display_name=run_name(submission.pipeline),
        experiment_id=found.experiment_id or experiment(backend, submission.pipeline),
        pipeline_version_reference=kfp.V2beta1PipelineVersionReference(
            pipeline_id=uploaded.pipeline_id, pipeline_version_id=uploaded.version_id
        ),
        runtime_config=submission.runtime_config(),
        service_account=submission.service_account,
    )
    return start(backend, body)


def start(backend: Backend, body: kfp.V2beta1Run) -> kfp.V2beta1Run:
    """Start a run with a name of its own, once, and return it."""
    return once(lambda: backend.runs.run_service_create_run(body), lambda: _started(backend, body))


def run_name(name: str) -> str:
    """Return a name of its own for a run of a model; it begins as runs of this machine do, and sorts."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}-{name}"


def upload(backend: Backend, submission: Submission, found: Found | None = None) -> Uploaded:
    """Bring the pipeline and its version to the server, unless they are there; the arguments are `submit`'s.

    Raises:
        BackendError: the server refuses it, or the pipeline's name is taken by something else.
    """
    pipeline_id, version_id = found[:2] if found else known(backend, submission)
    new: list[str] = []
    if pipeline_id is None:
        pipeline_id = _create_pipeline(backend, submission)
        new.append("pipeline")
    if version_id is None:
        version_id = _upload_version(backend, submission, pipeline_id)
        new.append("version")
    return Uploaded(pipeline_id, version_id, tuple(new))


def look(backend: Backend, submission: Submission) -> Found:
    """Return what the server has of a submission.

    Raises:
        BackendError: a pipeline of this name was not made by modelyard.
    """
    return Found(*known(backend, submission), find_experiment(backend, submission.pipeline))


def known(backend: Backend, submission: Submission) -> tuple[str | None, str | None]:
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


def _create_pipeline(backend: Backend, submission: Submission) -> str:
    body = kfp.V2beta1Pipeline(
        name=submission.pipeline,
        display_name=submission.pipeline,
        description=f"{MADE_BY} Takes the model {submission.pipeline} from data to its server.",
        namespace=backend.scope,
    )
    return once(
        lambda: str(backend.pipelines.pipeline_service_create_pipeline(body).pipeline_id),
        lambda: known(backend, submission)[0],
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

        return once(create, lambda: known(backend, submission)[1])


def _started(backend: Backend, body: kfp.V2beta1Run) -> kfp.V2beta1Run | None:
    page = backend.runs.run_service_list_runs(
        experiment_id=body.experiment_id, page_size=1, filter=equals("display_name", body.display_name)
    )
    return page.runs[0] if page.runs else None
