"""Compiles a configuration and an environment to the arguments, pods and YAML of the pipeline."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import yaml
from kfp import dsl

from modelyard.components.artifacts import write_text
from modelyard.components.deploy.settings import check_server_access
from modelyard.components.errors import ConfigError
from modelyard.components.interface import build_container_variables
from modelyard.components.kubernetes import Json
from modelyard.components.records import RUN_ID
from modelyard.components.settings import Spec
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import find_storage
from modelyard.pipelines.compile.code import REPORT, code_sha256
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment, StepResources
from modelyard.pipelines.steps import STEPS
from modelyard.pipelines.train_to_serve import build_pipeline

USER = 65532
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
RETRY_AFTER = "30s"

LOCAL = Environment(kind="local")
NO_SPECS: Mapping[str, Spec] = {}
NO_OPTIONS: Mapping[str, bool | int] = {}  # arguments besides the specs: `skip_unchanged`, `force_after`
UPLOAD_HINT = "`modelyard run` and `modelyard submit` upload it; a compiled pipeline needs"
UNREACHABLE_REMEDIES = {
    "model.code": f"{UPLOAD_HINT} the gs:// URL that they show.",
    "data.source": f"{UPLOAD_HINT} a gs:// or https:// URL.",
    "data.endpoint": "Set the URL of the emulator inside the cluster, or remove the key.",
    "store.url": "Set gs://bucket/prefix, or remove the key to use the store of the environment.",
}

_cached_code_sha256 = cache(code_sha256)


def create_arguments(config: Config, environment: Environment = LOCAL) -> dict[str, str]:
    """Return the arguments of the pipeline: the spec of each step as JSON. See `create_specs`."""
    return _to_arguments(create_specs(config, environment))


def create_specs(config: Config, environment: Environment = LOCAL) -> dict[str, Spec]:
    """Return the spec of each step: the values for the fields of its spec class.

    Of the environment, only the images of the steps are part of the identity of the run.

    Raises:
        ConfigError: the configuration names local files and the environment is a cluster, or the server
            cannot use its token or certificate.
    """
    if environment.on_cluster:
        config = _config_for_pods(config, environment)
    elif config.serving.token_file or config.serving.tls_cert:
        from modelyard.components.serve.access import Access

        Access(config.serving)  # fails now instead of after the training
    values = {
        **{key: getattr(config, key) for key in Config.model_fields},
        "source": config.source(),
        "preparation": config.preparation(),
        "named_slices": config.gate.named_slices() if config.gate else (),
        "weighted_slices": config.training.weighted_slices(),
        "fail_on_champion_leakage": "champion_leakage" in config.data.fail_on,
        "code": config.code(),
        "code_sha256": config.code_sha256(),
        "serving": config.serving.model_dump(mode="json"),
        "config": config.model_dump(mode="json", exclude={"schedule"}),
        "target": environment.target(),
        "root": environment.pipeline_root or "",
        "recipe_sha256": "",
    }
    step_specs = {step: _build_spec(step, values) for step in STEPS}
    values["recipe_sha256"] = _recipe_sha256(config, step_specs, environment)
    return {step: _build_spec(step, values) for step in STEPS}


def local_images(step_specs: Mapping[str, Spec]) -> dict[str, str]:
    """Return an image reference for each step; the tag of a cached step is the fingerprint of its code.

    The cache key covers the reference, but not imported code.
    """
    images = {}
    for name, step in STEPS.items():
        modules = step_specs[name].modules() if name in step_specs else ()
        tag = _cached_code_sha256(name, modules)[:16] if step.cached else "latest"
        images[name] = f"modelyard/python-{name}:{tag}"
    return images


def create_pipeline(
    environment: Environment, step_specs: Mapping[str, Spec] = NO_SPECS
) -> Callable[..., dsl.PipelineTask]:
    """Return the pipeline for an environment; `step_specs` affect the cache keys of local runs."""
    if environment.on_cluster:
        settings = dsl.PipelineConfig(active_deadline_seconds=environment.active_deadline)
        return build_pipeline(lambda step, task: configure_pod(step, task, environment), settings)
    images = local_images(step_specs)
    return build_pipeline(lambda step, task: task.set_container_image(images[step]))


def configure_pod(step: str, task: dsl.PipelineTask, environment: Environment) -> None:
    """Set the image, environment variables, resources and node of the pod of a step."""
    from kfp import kubernetes  # slow, and not needed for local runs

    resources = environment.resources(step)
    image = environment.image(step)
    task.set_container_image(image)
    for name, value in build_container_variables(step, image).items():
        task.set_env_variable(name, value)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", size_limit=resources.ephemeral_storage)  # noqa: S108
    kubernetes.add_pod_label(task, "modelyard.dev/step", step)
    if environment.storage_endpoint:
        # for the launcher of Kubeflow Pipelines, which accepts no scheme
        task.set_env_variable("STORAGE_EMULATOR_HOST", urlsplit(environment.storage_endpoint).netloc)
    if not STEPS[step].cached:  # a cached step must not depend on the run
        kubernetes.use_field_path_as_env(task, RUN_ID, "metadata.labels['pipeline/runid']")
    if STEPS[step].accelerator_images:
        task.set_env_variable("KERAS_BACKEND", environment.keras_backend)
        if resources.accelerator:
            task.set_env_variable("MODELYARD_ACCELERATOR", resources.accelerator.kind)
            if environment.accelerator_optional:
                task.set_env_variable("MODELYARD_ACCELERATOR_OPTIONAL", "1")
    if STEPS[step].exit_task and (webhook := environment.webhook):
        kubernetes.use_secret_as_env(task, webhook.secret, {webhook.key: "MODELYARD_WEBHOOK"}, optional=True)
    _set_resources(task, resources)


def compile_to(config: Config, path: Path, environment: Environment = LOCAL) -> None:
    """Write the pipeline as YAML of KFP, with the configuration as default arguments.

    Replaces the file atomically. If `path` is a symbolic link, its target is replaced.
    """
    step_specs = create_specs(config, environment)
    package = _compile(create_pipeline(environment, step_specs), _to_arguments(step_specs))
    write_text(Path(os.path.realpath(path)), package)


def compile_package(environment: Environment) -> bytes:
    """Return the pipeline as YAML of KFP, without arguments; equal environments give equal bytes."""
    return _compile(create_pipeline(environment)).encode()


def parse_package(package: bytes) -> tuple[Json, Json]:
    """Return the two documents of a pipeline for a cluster: the pipeline spec and the platform spec."""
    pipeline, platform = yaml.load_all(package, LOADER)
    return pipeline, platform


def _to_arguments(step_specs: Mapping[str, Spec]) -> dict[str, str]:
    return {STEPS[step].parameter: spec.to_json() for step, spec in step_specs.items()}


def _build_spec(step: str, values: Mapping[str, Any]) -> Spec:
    spec_class = STEPS[step].spec
    return spec_class(**{key: values[key] for key in spec_class.model_fields})


def _recipe_sha256(config: Config, step_specs: Mapping[str, Spec], environment: Environment) -> str:
    """Return the fingerprint of the configuration and the code that decide the result."""

    def code(step: str) -> str:
        if environment.on_cluster:
            return environment.image(step)
        return _cached_code_sha256(step, step_specs[step].modules(), (REPORT,))

    recipe = {
        "preparation": config.preparation().model_dump(mode="json"),
        # the content of the folder instead of its path
        "model": {**config.model.model_dump(mode="json"), "code": config.code_sha256()},
        "training": config.training.recipe(),
        "gate": config.gate and config.gate.model_dump(mode="json"),
        "code": [code(step.name) for step in STEPS.values() if step.in_recipe],
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _compile(pipeline: Callable[..., dsl.PipelineTask], arguments: Mapping[str, str] | None = None) -> str:
    """Return a pipeline as YAML of KFP; `arguments` become the defaults of its parameters."""
    from kfp.compiler import Compiler

    with TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        Compiler().compile(pipeline, str(path), pipeline_parameters=arguments)
        return path.read_text(encoding="utf-8")


def _set_resources(task: dsl.PipelineTask, resources: StepResources) -> None:
    """Set the resources, node, timeout and retries of a task; CPU has a request but no limit."""
    from kfp import kubernetes

    if resources.cpu:
        task.set_cpu_request(resources.cpu)
    if resources.memory:
        task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    if resources.accelerator:
        task.set_accelerator_type(resources.accelerator.resource)
        task.set_accelerator_limit(resources.accelerator.count)
    for label, value in resources.all_node_labels().items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in resources.all_tolerations():
        kubernetes.add_toleration(
            task, toleration.key, toleration.operator, toleration.value, toleration.effect
        )
    if resources.timeout:
        kubernetes.set_timeout(task, resources.timeout)
    if resources.retries:
        task.set_retry(resources.retries, backoff_duration=RETRY_AFTER)


def _config_for_pods(config: Config, environment: Environment) -> Config:
    """Return the configuration with URLs inside the cluster; raise ConfigError for an unreachable URL."""
    endpoint, source = config.data.endpoint, config.data.source
    urls = {
        "model.code": config.model.code,
        "data.source": source,
        "data.endpoint": None if endpoint == environment.storage_endpoint else endpoint,
        "store.url": config.store.url,
    }
    check_server_access(config.serving.model_dump(), environment.target(needs_image=False))
    for key, value in urls.items():
        if value and (reason := find_storage(value, key).unreachable_from_pods(value)):
            raise ConfigError(
                f"{key} is {value}, {reason}, which pods cannot reach. {UNREACHABLE_REMEDIES[key]}"
            )
    update: dict[str, Any] = {"store": environment.for_pods(config.store)}
    if source and not endpoint:
        pod_store = environment.for_pods(Store(url=source))
        update["data"] = config.data.model_copy(update={"endpoint": pod_store.endpoint})
    return config.model_copy(update=update)
