import json

import pytest

from modelyard.components.errors import ConfigError
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.environments.load import load_environment

GKE = "store: gs://bucket/models\npipeline_root: gs://bucket/runs\n"
TPU = "environment.steps.train.accelerator={type: tpu-v6e-slice, count: 4, topology: 2x2}"


@pytest.fixture(autouse=True)
def _user_gke(tmp_path, monkeypatch):
    """Work in a folder whose environments/gke.yaml has the keys of a project."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments/gke.yaml").write_text(GKE)


def load(name, *overrides, **environ) -> Environment:
    return load_environment(name, overrides, environ)


def error_text(name, *overrides) -> str:
    with pytest.raises(ConfigError) as error:
        load(name, *overrides)
    return str(error.value)


def test_the_shipped_environments_are_valid():
    assert load("local").kind == "local"
    assert load("kind").store == "gs://modelyard/models"
    assert load("gke").resources("train").accelerator.type == "nvidia-l4"


def test_the_file_of_the_user_is_merged_into_the_shipped_file(tmp_path):
    (tmp_path / "environments/gke.yaml").write_text(GKE + "steps: {train: {spot: false}}\n")
    train = load("gke").resources("train")
    assert (train.spot, train.memory) == (False, "14Gi")


def test_options_override_variables_and_variables_override_the_file():
    variables = {"MODELYARD_ENVIRONMENT__SERVING__CPU": "3", "MODELYARD_ENVIRONMENT__SERVING__REPLICAS": "3"}
    serving = load("kind", "environment.serving.cpu=4", **variables).serving
    assert (serving.cpu, serving.replicas, serving.memory) == ("4", 3, "256Mi")
    assert serving.service_account == "modelyard-serve"


def test_overrides_of_the_configuration_are_ignored():
    assert load("kind", "training.epochs=3") == load("kind")


def test_an_environment_can_be_a_path(tmp_path):
    (tmp_path / "custom.yaml").write_text("kind: local\n")
    assert load("custom.yaml").kind == "local"


def test_resources_of_a_step_override_the_defaults():
    environment = load(
        "kind",
        "environment.defaults={cpu: 1, memory: 1Gi, retries: 2}",
        "environment.steps={train: {cpu: 2, retries: 0}}",
    )
    train, evaluate = environment.resources("train"), environment.resources("evaluate")
    assert (train.cpu, train.memory, train.retries) == ("2", "1Gi", 0)
    assert (evaluate.cpu, evaluate.memory, evaluate.retries) == ("1", "1Gi", 2)


def test_default_retries_do_not_apply_to_deploy():
    defaults = "environment.defaults={cpu: 3, retries: 2}"
    deploy = load("kind", defaults).resources("deploy")
    assert (deploy.cpu, deploy.retries) == ("3", 0)
    assert load("kind", defaults, "environment.steps.deploy.retries=1").resources("deploy").retries == 1
    assert load("gke").resources("deploy").retries == 0


# Problems


def test_an_error_names_the_file_and_the_line(tmp_path):
    file = tmp_path / "environments/gke.yaml"
    file.write_text(GKE + "steps:\n  train: {memroy: 3Gi}\n")
    expected = "environments/gke.yaml, line 4: environment.steps.train.memroy is not a key; did you mean"
    assert error_text("gke").startswith(expected)


@pytest.mark.parametrize(
    ("override", "expected"),
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
        ("environment.store=null", "environment.store is not set"),
        ("environment.pipeline_root=https://host/runs", "https://host/runs"),
        ("environment.pipeline_root=s3://bucket/runs", "environment.pipeline_root is 's3://bucket/runs'"),
        ("environment.storage_endpoint=localhost:4443", "is not valid"),
    ],
)
def test_invalid_values_are_errors(override, expected):
    assert expected in error_text("gke", override)


def test_a_tpu_with_tensorflow_is_an_error():
    message = error_text("gke", TPU)
    assert "TensorFlow 2.21 has no TPU build" in message
    assert "environment.keras_backend: jax" in message
    assert load("gke", TPU, "environment.keras_backend=jax").resources("train").accelerator.kind == "tpu"


@pytest.mark.parametrize("slice_", ["{count: 4}", "{count: 2, topology: 2x2}", "{count: 16, topology: 4x4}"])
def test_a_tpu_slice_has_a_single_host(slice_):
    override = f"environment.steps.train.accelerator={slice_.replace('{', '{type: tpu-v6e-slice, ')}"
    assert "2x2 with 4" in error_text("gke", override, "environment.keras_backend=jax")


def test_an_unknown_environment_lists_the_known_ones():
    assert "did you mean kind?" in error_text("knd")
    assert "choose from gke, kind, local" in error_text("production")


# Images


def test_an_image_comes_from_the_environment_or_images_json(tmp_path):
    (tmp_path / "build").mkdir()
    built = {"train": "modelyard/train@sha256:1", "serve": "modelyard/serve@sha256:2"}
    (tmp_path / "build/images.json").write_text(json.dumps(built))
    environment = load(
        "kind", "environment.images={serve: other/serve:3}", "environment.registry=example.dev/p"
    )
    assert environment.image("train") == "example.dev/p/modelyard/train@sha256:1"
    assert environment.image("serve") == "example.dev/p/other/serve:3"


def test_train_on_an_accelerator_uses_its_image():
    images = "environment.images={train: a/t:1, train-cuda: a/c:1, train-tpu: a/j:1}"
    assert load("kind", images).image("train") == "a/t:1"
    assert load("gke", images).image("train") == "a/c:1"
    assert load("gke", images, TPU, "environment.keras_backend=jax").image("train") == "a/j:1"


def test_the_error_of_a_missing_image_names_the_make_target():
    with pytest.raises(ConfigError, match="`make images-accelerators`"):
        load("gke").image("train")


def test_the_emulator_has_an_endpoint_for_pods_and_one_for_this_machine():
    environment = load("kind")
    assert environment.artifact_store().endpoint == "http://127.0.0.1:30443"
    assert environment.for_pods(environment.artifact_store()).endpoint == "http://gcs.modelyard-storage:4443"
    assert load("gke").model_store().endpoint is None
    assert load("local").model_store() is None


# The server


def test_the_target_of_deploy_comes_from_the_environment():
    target = load("kind", "environment.images={serve: a/s:1}", "environment.start_timeout=7").target()
    assert (target.platform, target.namespace, target.image) == ("deployment", "modelyard-serving", "a/s:1")
    assert (target.resources.memory, target.start_timeout) == ("256Mi", 7)
    assert load("local").target().platform == "local"


def test_a_variable_of_an_unknown_section_is_an_error() -> None:
    with pytest.raises(ConfigError, match="MODELYARD_ROLOUT__WATCH_SECONDS: rolout is not a section"):
        load_environment("kind", environ={"MODELYARD_ROLOUT__WATCH_SECONDS": "5"})


def test_an_environment_without_a_pipeline_root_has_no_artifact_store() -> None:
    with pytest.raises(ConfigError, match="pipeline_root"):
        Environment(kind="local").artifact_store()


@pytest.mark.parametrize("text", ["", '{"serve": "model', "[1]"])
def test_a_damaged_record_of_built_images_is_a_configuration_error(tmp_path, text):
    (tmp_path / "build").mkdir()
    (tmp_path / "build/images.json").write_text(text)
    assert "build/images.json" in error_text("kind")
