"""The requests of a submission, and what is uploaded only once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from modelyard.components.errors import BackendError
from modelyard.pipelines.compile.compiler import compile_package, parse_package
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.kfp import submission
from modelyard.pipelines.runners.kfp.client import Backend, connect
from modelyard.pipelines.runners.kfp.submission import Submission
from tests.integration.backend.conftest import FakeKfp
from tests.integration.backend.server import Fault


@pytest.fixture
def backend(environment: Environment) -> Backend:
    return connect(environment)


def prepare(environment: Environment, *overrides: str) -> Submission:
    config = load(overrides=overrides, environ={}, store=environment.model_store())
    return submission.prepare(config, environment)


def test_compilation_is_deterministic(environment: Environment) -> None:
    first, second = prepare(environment), prepare(environment)
    assert first == second
    other = prepare(environment, "training.epochs=1")
    assert (other.package, other.version) == (first.package, first.version)
    assert compile_package(environment) == first.package
    assert other.arguments != first.arguments


def test_submitted_run(fake_kfp: FakeKfp, backend: Backend, environment: Environment) -> None:
    prepared = prepare(environment)
    started = submission.submit(backend, prepared)
    run = fake_kfp.runs.runs[started.run_id]
    assert run.runtime_config.pipeline_root == "gs://bucket/runs"
    assert run.runtime_config.parameters == prepared.arguments
    assert run.service_account == "modelyard-run"
    (pipeline,) = fake_kfp.pipelines.pipelines.values()
    (version,) = fake_kfp.pipelines.versions.values()
    (experiment,) = fake_kfp.pipelines.experiments.values()
    assert (pipeline.name, experiment.display_name) == ("digits", "digits")
    assert fake_kfp.pipelines.specs[version.pipeline_version_id] == list(parse_package(prepared.package))
    assert run.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    assert run.experiment_id == experiment.experiment_id


def test_content_is_uploaded_once(fake_kfp: FakeKfp, backend: Backend, environment: Environment) -> None:
    first = submission.upload(backend, prepare(environment))
    assert submission.upload(backend, prepare(environment, "training.epochs=1")) == first
    larger = environment.model_copy(update={"active_deadline": 7})
    second = submission.upload(backend, prepare(larger))
    assert (second.pipeline_id, second.version_id == first.version_id) == (first.pipeline_id, False)
    assert len(fake_kfp.pipelines.pipelines) == 1
    assert len(fake_kfp.pipelines.versions) == 2


@pytest.mark.parametrize("kind", ["pipeline", "experiment"])
def test_a_name_used_by_another_tool_is_refused(
    fake_kfp: FakeKfp, backend: Backend, environment: Environment, kind: str
) -> None:
    submission.upload(backend, prepare(environment))
    (created,) = getattr(fake_kfp.pipelines, f"{kind}s").values()
    created.description = "Of another tool"
    with pytest.raises(BackendError, match=rf"The {kind} 'digits' at .* was not created by modelyard"):
        submission.upload(backend, prepare(environment, "training.epochs=1"))


@pytest.mark.parametrize("path", ["/pipelines", "upload_version", "/runs"])
@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_lost_response_creates_no_duplicate(
    fake_kfp: FakeKfp, backend: Backend, environment: Environment, path: str, cut: str
) -> None:
    fake_kfp.server.faults.append(Fault(cut=cut, path=path, method="POST"))
    submission.submit(backend, prepare(environment))
    created = (fake_kfp.pipelines.pipelines, fake_kfp.pipelines.versions, fake_kfp.runs.runs)
    assert [len(objects) for objects in created] == [1, 1, 1]


def test_two_simultaneous_submissions(fake_kfp: FakeKfp, environment: Environment) -> None:
    fake_kfp.server.faults.append(Fault(delay=0.2, path="/pipelines/names/", times=2))
    prepared = prepare(environment)
    with ThreadPoolExecutor(2) as both:
        started = list(both.map(lambda _: submission.submit(connect(environment), prepared), range(2)))
    assert len({run.run_id for run in started}) == 2
    assert [len(objects) for objects in (fake_kfp.pipelines.pipelines, fake_kfp.pipelines.versions)] == [1, 1]
    assert len(fake_kfp.pipelines.experiments) == 1
