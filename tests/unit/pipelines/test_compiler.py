"""The pods of a compiled pipeline, and the arguments of its runs."""

import json
from pathlib import Path

import pytest

from modelyard.components.errors import ConfigError
from modelyard.pipelines.compile.compiler import compile_to, create_arguments, parse_package
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.steps import STEPS, deploy_spec

ENVIRONMENT = """
kind: kubernetes
store: gs://bucket/models
pipeline_root: gs://bucket/runs
storage_endpoint: http://inside:1
storage_endpoint_outside: http://outside:2
images: {fingerprint: a/f, ingest: a/i, preprocess: a/p, train: a/t, train-cuda: a/c, train-tpu: a/j,
  evaluate: a/e, deploy: a/d, serve: a/s}
active_deadline: 1234
defaults: {cpu: 1, memory: 2Gi, ephemeral_storage: 3Gi}
steps:
"""
SERVING = "{token_secret: model-token}"
GPU = (
    ENVIRONMENT + "  train: {accelerator: {type: nvidia-l4, count: 2}, spot: true, timeout: 60, retries: 2}\n"
)
TPU = ENVIRONMENT.replace("kind:", "keras_backend: jax\nkind:") + (
    "  train: {accelerator: {type: tpu-v6e-slice, count: 4, topology: 2x2}}\n"
)


def environment_of(text: str):
    Path("environment.yaml").write_text(text)
    return load_environment("./environment.yaml", environ={})


@pytest.fixture
def compile_digits(tmp_path):
    """Return a function that compiles the digits to containers and pods by step, and the pipeline."""

    def compile_for(text):
        environment = environment_of(text)
        path = tmp_path / "pipeline.yaml"
        compile_to(load(environ={}, store=environment.model_store()), path, environment)
        spec, platform = parse_package(path.read_bytes())
        executors = spec["deploymentSpec"]["executors"]
        kubernetes = platform["platforms"]["kubernetes"]
        pods = kubernetes["deploymentSpec"]["executors"]
        return (
            {step: executors[f"exec-{step}"]["container"] for step in STEPS},
            {step: pods[f"exec-{step}"] for step in STEPS},
            {"spec": spec, "pipeline": kubernetes["pipelineConfig"]},
        )

    return compile_for


def recipe(arguments):
    return deploy_spec(arguments)["recipe_sha256"]


def tasks(spec):
    """Return the tasks of all groups of a pipeline, by name."""
    dags = [spec["root"], *spec["components"].values()]
    return {name: task for dag in dags for name, task in dag.get("dag", {}).get("tasks", {}).items()}


def test_a_symbolic_link_is_written_through_to_its_file(tmp_path):
    target, link = tmp_path / "target.yaml", tmp_path / "link.yaml"
    link.symlink_to(target.name)
    compile_to(load(environ={}), link)
    assert link.is_symlink()
    assert "train-to-serve" in target.read_text()


def test_steps_have_image_resources_user_and_disk(compile_digits):
    containers, pods, pipeline = compile_digits(ENVIRONMENT + "  train: {memory: 8Gi}\n")
    images = {step: f"a/{step[0]}" for step in STEPS} | {"explain": "a/d"}
    assert {step: container["image"] for step, container in containers.items()} == images
    for step in STEPS:
        memory = "8Gi" if step == "train" else "2Gi"
        assert containers[step]["resources"]["resourceCpuRequest"] == "1"
        assert containers[step]["resources"]["resourceMemoryLimit"] == memory
        assert containers[step]["resources"]["resourceMemoryRequest"] == memory
        assert "resourceCpuLimit" not in containers[step]["resources"]
        assert pods[step]["securityContext"] == {
            "runAsUser": "65532",
            "runAsGroup": "65532",
            "runAsNonRoot": True,
        }
        assert pods[step]["emptyDirMounts"] == [
            {"volumeName": "tmp", "mountPath": "/tmp", "sizeLimit": "3Gi"}  # noqa: S108
        ]
        assert "nodeSelector" not in pods[step]
    assert pipeline["pipeline"] == {"activeDeadlineSeconds": 1234}


def test_only_explain_gets_the_webhook_from_its_secret(compile_digits):
    webhook = "webhook: {secret: chat, key: url}\n"
    _, pods, _ = compile_digits(webhook + ENVIRONMENT + "  train: {}\n")
    assert pods["explain"]["secretAsEnv"] == [
        {
            "secretName": "chat",
            "secretNameParameter": {"runtimeValue": {"constant": "chat"}},
            "keyToEnv": [{"secretKey": "url", "envVar": "MODELYARD_WEBHOOK"}],
            "optional": True,
        }
    ]
    assert not [step for step in STEPS if step != "explain" and "secretAsEnv" in pods[step]]


def test_a_gpu_and_spot_are_requested_with_resource_labels_and_tolerations(compile_digits):
    containers, pods, pipeline = compile_digits(GPU)
    accelerator = containers["train"]["resources"]["accelerator"]
    assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "2")
    assert pods["train"]["nodeSelector"]["labels"] == {
        "cloud.google.com/gke-accelerator": "nvidia-l4",
        "cloud.google.com/gke-spot": "true",
    }
    assert pods["train"]["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"},
    ]
    assert containers["train"]["image"] == "a/c"
    assert {"name": "MODELYARD_ACCELERATOR", "value": "gpu"} in containers["train"]["env"]
    assert pods["train"]["activeDeadlineSeconds"] == "60"
    assert tasks(pipeline["spec"])["train"]["retryPolicy"]["maxRetryCount"] == 2
    assert "accelerator" not in containers["evaluate"]["resources"]


def test_a_tpu_is_requested_with_resource_labels_and_tolerations(compile_digits):
    containers, pods, _ = compile_digits(TPU)
    accelerator = containers["train"]["resources"]["accelerator"]
    assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("google.com/tpu", "4")
    assert pods["train"]["nodeSelector"]["labels"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "2x2",
    }
    assert pods["train"]["tolerations"] == [
        {"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    environment = containers["train"]["env"]
    assert {"name": "KERAS_BACKEND", "value": "jax"} in environment
    assert {"name": "MODELYARD_ACCELERATOR", "value": "tpu"} in environment
    assert containers["train"]["image"] == "a/j"


def test_accelerator_optional_is_an_environment_variable(compile_digits):
    containers, _, _ = compile_digits(GPU.replace("kind:", "accelerator_optional: true\nkind:"))
    assert {"name": "MODELYARD_ACCELERATOR_OPTIONAL", "value": "1"} in containers["train"]["env"]


def test_the_launcher_of_kfp_gets_the_host_of_the_emulator(compile_digits):
    variable = {"name": "STORAGE_EMULATOR_HOST", "value": "inside:1"}
    containers, _, _ = compile_digits(ENVIRONMENT + "  train: {}\n")
    assert [step for step in STEPS if variable not in containers[step]["env"]] == []
    real = ENVIRONMENT.replace("storage_endpoint", "#").replace("#_outside", "#") + "  train: {}\n"
    containers, _, _ = compile_digits(real)
    assert "STORAGE_EMULATOR_HOST" not in str(containers)


# Arguments


def test_steps_get_the_endpoint_inside_the_cluster():
    environment = environment_of(ENVIRONMENT + "  train: {}\n")
    config = load(overrides=["store.user_project=payer"], environ={}, store=environment.model_store())
    payer = environment.model_copy(update={"user_project": "payer"}).model_store()
    assert load(environ={}, store=payer).store == config.store == payer
    assert config.store.endpoint == "http://outside:2"
    arguments = create_arguments(config, environment)
    stores = {key: json.loads(text).get("store") for key, text in arguments.items()}
    expected = {"endpoint": "http://inside:1", "url": "gs://bucket/models", "user_project": "payer"}
    assert {key for key, store in stores.items() if store == expected} >= {"train_spec", "deploy_spec"}
    assert "outside" not in str(arguments)
    assert deploy_spec(arguments)["target"]["platform"] == "deployment"


def test_options_for_the_store_override_the_environment():
    environment = environment_of(ENVIRONMENT + "  train: {}\n")
    config = load(overrides=["store.url=gs://other"], environ={}, store=environment.model_store())
    assert config.store.url == "gs://other"


def test_the_recipe_depends_on_images_of_steps_but_not_of_the_server():
    def recipe_of(text):
        environment = environment_of(text + "  train: {}\n")
        return recipe(create_arguments(load(environ={}, store=environment.model_store()), environment))

    assert recipe_of(ENVIRONMENT) != recipe_of(ENVIRONMENT.replace("train: a/t", "train: a/new"))
    assert recipe_of(ENVIRONMENT) == recipe_of(ENVIRONMENT.replace("serve: a/s", "serve: a/new"))
    assert recipe_of(ENVIRONMENT) == recipe_of(ENVIRONMENT + "  evaluate: {cpu: 3}\n")


def test_the_recipe_does_not_depend_on_checkpoint_every():
    frequent, longer = (
        create_arguments(load(overrides=[f"training.{setting}"]))
        for setting in ("checkpoint_every=1", "epochs=99")
    )
    default = create_arguments(load())
    assert recipe(frequent) == recipe(default) != recipe(longer)
    assert frequent["train_spec"] != default["train_spec"]


@pytest.mark.parametrize(
    ("key", "override"),
    [
        ("data.source", "data={kind: npz, source: /data/x.npz}"),
        ("data.source", "data={kind: npz, source: 'http://localhost:8000/x.npz'}"),
        ("data.source", "data={kind: npz, source: 'https://127.0.0.1/x.npz'}"),
        ("data.endpoint", "data={kind: npz, source: 'gs://a/x.npz', endpoint: 'http://[::1]:4443'}"),
        ("model.code", f"model={{build: 'conftest:store', code: {Path(__file__).parent}}}"),
        ("store.url", "store={url: 'file:///models'}"),
    ],
)
def test_local_paths_and_urls_are_refused_for_a_cluster(key, override):
    with pytest.raises(ConfigError, match=rf"^{key} is .*, which pods cannot reach\. \S"):
        create_arguments(
            load(overrides=[override], environ={}), environment_of(ENVIRONMENT + "  train: {}\n")
        )


def test_a_local_token_file_requires_a_secret_for_pods():
    environments = [
        environment_of(ENVIRONMENT + f"  train: {{}}\nserving: {text}\n") for text in (SERVING, "{}")
    ]
    config = load(overrides=["serving.token_file=t"], environ={}, store=environments[0].model_store())
    deploy = json.loads(create_arguments(config, environments[0])["deploy_spec"])
    assert deploy["target"].items() >= {("token_secret", "model-token")}
    with pytest.raises(ConfigError, match=r"serving\.token_file is t, .*environment\.serving\.token_secret"):
        create_arguments(config, environments[1])
    with pytest.raises(ConfigError, match=r"serving\.token_file is t, which cannot be read"):
        create_arguments(config)


def test_reachable_urls_are_accepted():
    data = "data={kind: npz, source: 'gs://a/x.npz', endpoint: 'http://inside:1'}"
    store = "store={url: 'gs://bucket/models', endpoint: 'http://127.0.0.1:1'}"
    config = load(overrides=[data, store], environ={})
    arguments = create_arguments(config, environment_of(ENVIRONMENT + "  train: {}\n"))
    assert "127.0.0.1:1" not in str(arguments)
