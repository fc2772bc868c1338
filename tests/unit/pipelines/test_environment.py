import json

import pytest

from modelyard.components.errors import ConfigError
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.environments.load import load_environment

GKE = "store: gs://bucket/models\npipeline_root: gs://bucket/runs\n"
TPU = "environment.steps.train.accelerator={type: tpu-v6e-slice, count: 4, topology: 2x2}"


@pytest.fixture(autouse=True)
def _own_gke(tmp_path, monkeypatch):
    """Work in a folder whose environments/gke.yaml says what depends on a project."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments/gke.yaml").write_text(GKE)


def load(name, *overrides, **environ) -> Environment:
    return load_environment(name, overrides, environ)


def refused(name, *overrides) -> str:
    with pytest.raises(ConfigError) as caught:
        load(name, *overrides)
    return str(caught.value)


def test_the_three_that_are_shipped_are_whole():
    assert load("local").kind == "local"
    assert load("kind").store == "gs://modelyard/models"
    assert load("gke").resources("train").accelerator.type == "nvidia-l4"


def test_ones_own_file_is_laid_over_the_shipped_one_key_by_key(tmp_path):
    (tmp_path / "environments/gke.yaml").write_text(GKE + "steps: {train: {spot: false}}\n")
    train = load("gke").resources("train")
    assert (train.spot, train.memory) == (False, "14Gi")


def test_an_option_wins_over_a_variable_over_the_file_over_the_default():
    variables = {"MODELYARD_ENVIRONMENT__SERVING__CPU": "3", "MODELYARD_ENVIRONMENT__SERVING__REPLICAS": "3"}
    serving = load("kind", "environment.serving.cpu=4", **variables).serving
    assert (serving.cpu, serving.replicas, serving.memory) == ("4", 3, "256Mi")
    assert serving.service_account == "modelyard-serve"


def test_overrides_of_the_configuration_are_left_to_it():
    assert load("kind", "training.epochs=3") == load("kind")


def test_a_path_stands_for_itself(tmp_path):
    (tmp_path / "mine.yaml").write_text("kind: local\n")
    assert load("mine.yaml").kind == "local"


def test_a_step_asks_for_what_it_says_over_the_defaults():
    environment = load(
        "kind",
        "environment.defaults={cpu: 1, memory: 1Gi, retries: 2}",
        "environment.steps={train: {cpu: 2, retries: 0}}",
    )
    train, evaluate = environment.resources("train"), environment.resources("evaluate")
    assert (train.cpu, train.memory, train.retries) == ("2", "1Gi", 0)
    assert (evaluate.cpu, evaluate.memory, evaluate.retries) == ("1", "1Gi", 2)


def test_deploy_is_tried_again_only_when_it_says_so_itself():
    defaults = "environment.defaults={cpu: 3, retries: 2}"
    deploy = load("kind", defaults).resources("deploy")
    assert (deploy.cpu, deploy.retries) == ("3", 0)
    assert load("kind", defaults, "environment.steps.deploy.retries=1").resources("deploy").retries == 1
    assert load("gke").resources("deploy").retries == 0


# Problems


def test_a_problem_names_the_file_the_line_and_the_remedy(tmp_path):
    own = tmp_path / "environments/gke.yaml"
    own.write_text(GKE + "steps:\n  train: {memroy: 3Gi}\n")
    expected = "environments/gke.yaml, line 4: environment.steps.train.memroy is not a key; did you mean"
    assert refused("gke").startswith(expected)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "environment.steps.train.memory=3 GB",
            'steps.train.memory is "3 GB", which is not valid. Expected: Mem',
        ),
        ("environment.steps.train.cpu=-1", "which is not valid"),
        ("environment.images={trian: x}", "environment.images.trian is not a key; the keys are"),
        ("environment.steps.train.accelerator.type=nvidia-l5", "did you mean nvidia-l4"),
        ("environment.steps.train.accelerator.count=3", "a node has 1, 2, 4, 8 nvidia-l4"),
        ("environment.steps.train.accelerator.topology=2x2", "remove it"),
        ("environment.store=/models", "gs://bucket/prefix"),
        ("environment.pipeline_root=https://host/runs", "https://host/runs"),
        ("environment.pipeline_root=s3://bucket/runs", "environment.pipeline_root is 's3://bucket/runs'"),
        ("environment.storage_endpoint=localhost:4443", "is not valid"),
    ],
)
def test_what_would_fail_late_is_refused_with_its_value(override, said):
    assert said in refused("gke", override)


def test_a_tpu_with_tensorflow_is_refused_with_reason_and_remedy():
    message = refused("gke", TPU)
    assert "TensorFlow 2.21 has no TPU build" in message
    assert "environment.keras_backend: jax" in message
    assert load("gke", TPU, "environment.keras_backend=jax").resources("train").accelerator.kind == "tpu"


@pytest.mark.parametrize("slice_", ["{count: 4}", "{count: 2, topology: 2x2}", "{count: 16, topology: 4x4}"])
def test_a_tpu_slice_is_one_host_with_all_its_chips(slice_):
    wrong = f"environment.steps.train.accelerator={slice_.replace('{', '{type: tpu-v6e-slice, ')}"
    assert "2x2 with 4" in refused("gke", wrong, "environment.keras_backend=jax")


def test_an_unknown_environment_names_those_that_there_are():
    assert "did you mean kind?" in refused("knd")
    assert "choose from gke, kind, local" in refused("production")


# Images


def test_an_image_comes_from_the_environment_else_from_what_was_built(tmp_path):
    (tmp_path / "build").mkdir()
    built = {"train": "modelyard/train@sha256:1", "serve": "modelyard/serve@sha256:2"}
    (tmp_path / "build/images.json").write_text(json.dumps(built))
    environment = load(
        "kind", "environment.images={serve: other/serve:3}", "environment.registry=example.dev/p"
    )
    assert environment.image("train") == "example.dev/p/modelyard/train@sha256:1"
    assert environment.image("serve") == "example.dev/p/other/serve:3"


def test_train_on_an_accelerator_takes_the_image_that_has_its_libraries():
    images = "environment.images={train: a/t:1, train-cuda: a/c:1, train-tpu: a/j:1}"
    assert load("kind", images).image("train") == "a/t:1"
    assert load("gke", images).image("train") == "a/c:1"
    assert load("gke", images, TPU, "environment.keras_backend=jax").image("train") == "a/j:1"


def test_a_missing_image_says_how_to_get_it():
    with pytest.raises(ConfigError, match="`make images-accelerators` builds it"):
        load("gke").image("train")


def test_a_store_in_an_emulator_is_reached_by_another_address_from_outside():
    environment = load("kind")
    assert environment.artifact_store().endpoint == "http://127.0.0.1:30443"
    assert environment.for_pods(environment.artifact_store()).endpoint == "http://gcs.modelyard-storage:4443"
    assert load("gke").model_store().endpoint is None
    assert load("local").model_store() is None


# The server


def test_deploy_is_told_where_to_put_the_server():
    target = load("kind", "environment.images={serve: a/s:1}", "environment.start_timeout=7").target()
    assert (target.platform, target.namespace, target.image) == ("deployment", "modelyard-serving", "a/s:1")
    assert (target.resources.memory, target.start_timeout) == ("256Mi", 7)
    assert load("local").target().platform == "local"


def test_a_variable_of_an_unknown_section_is_refused() -> None:
    with pytest.raises(ConfigError, match="MODELYARD_ROLOUT__WATCH_SECONDS: rolout is not a section"):
        load_environment("kind", environ={"MODELYARD_ROLOUT__WATCH_SECONDS": "5"})


def test_an_environment_without_a_pipeline_root_has_no_place_for_artifacts() -> None:
    with pytest.raises(ConfigError, match="pipeline_root"):
        Environment(kind="local").artifact_store()
