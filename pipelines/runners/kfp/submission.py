"""From a configuration to a run of Kubeflow Pipelines: a package, a version of a pipeline, arguments.

    submission = prepare(config, environment)
    run = submit(backend, submission)

A model's pipeline is called after it, and so is the experiment that holds its runs. A version is called after
the sha256 of its package, which holds the steps with their images, sizes and nodes, and no arguments: it is
uploaded once, and a run with another configuration is another run of the same version.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import kfp_server_api as kfp

from modelyard.pipelines.compile.compiler import NO_OPTIONS, arguments, compile_package
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.kfp.client import Backend
from modelyard.pipelines.runners.kfp.lookup import MADE_BY, Found, equals, experiment, known, look, once
from modelyard.pipelines.train_to_serve import STEPS


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


class Uploaded(NamedTuple):
    """Where a submission's package is."""

    pipeline_id: str
    version_id: str


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
    pipeline_id = pipeline_id or _create_pipeline(backend, submission)
    return Uploaded(pipeline_id, version_id or _upload_version(backend, submission, pipeline_id))


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
