"""From a configuration and an environment to the pipeline's arguments, its tasks' pods, and KFP's YAML."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import yaml
from kfp import dsl

from modelyard.components.artifacts import sha256, tree_sha256
from modelyard.components.errors import ConfigError
from modelyard.components.kubernetes import Json
from modelyard.components.records import RUN_ID
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import find_storage
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment, StepResources
from modelyard.pipelines.train_to_serve import STEPS, build

COMPONENTS = Path(__file__).parents[2] / "components"
SHARED = ("artifacts.py", "images.py", "settings.py", "shards.py", "source")
DECISIVE = ("ingest", "preprocess", "train", "evaluate")  # whose code decides what a version is
RECORDING = ("fingerprint", "deploy", "explain")  # never cached; they write what they did in this run
USER = 65532
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
RETRY_AFTER = "30s"

LOCAL = Environment(kind="local")
NO_OPTIONS: Mapping[str, bool | int] = {}  # what no configuration has: `skip_unchanged`, `force_after`
UPLOADS = "`modelyard run` and `modelyard submit` upload it; a compiled pipeline needs"
ELSEWHERE = {
    "model.code": f"{UPLOADS} the gs:// address that they show.",
    "data.source": f"{UPLOADS} a gs:// or https:// address.",
    "data.endpoint": "Give the address that the emulator has inside the cluster, or remove it.",
    "store.url": "Give gs://bucket/prefix, or leave it to the environment.",
}


def arguments(config: Config, environment: Environment = LOCAL) -> dict[str, str]:
    """Return the pipeline's arguments: each section of the configuration as JSON, and what identifies it.

    Args:
        config: the configuration.
        environment: where steps and servers run. Of it, only the steps' images are part of what identifies
            the run, as the fingerprint of the code that they hold.

    Raises:
        ConfigError: the configuration names files of this machine, and the environment is a cluster.
    """
    if environment.kind == "kubernetes":
        config = _inside(config, environment)
    code, code_sha256 = config.code(), config.code_sha256()
    decisive = {
        "preparation": config.preparation().model_dump(mode="json"),
        # where the folder lies does not matter, what is in it does
        "model": {**config.model.model_dump(mode="json"), "code": code_sha256},
        "training": config.training.decisive(),
        "gate": config.gate and config.gate.model_dump(mode="json"),
        "code": [_code(step, environment) for step in DECISIVE],
    }
    return {
        "name": config.name,
        "source": config.source().text(),
        "preparation": config.preparation().text(),
        "architecture": config.model.text(),
        "training": config.training.text(),
        "gate": config.gate.text() if config.gate else "null",
        "serving": config.serving.text(),
        "store": config.store.text(),
        "rollout": config.rollout.text(),
        "target": environment.target().text(),
        "config": json.dumps(config.model_dump(mode="json", exclude={"schedule"}), sort_keys=True),
        "recipe_sha256": _digest(decisive),
        "code_location": code.text() if code else "",
        "code_sha256": code_sha256,
        "root": environment.pipeline_root or "",
    }


@cache
def step_sha256(step: str) -> str:
    """Return the fingerprint of a step: its own source, the shared source, the installed packages."""
    shared = [_source_sha256(COMPONENTS / name) for name in SHARED]
    return _digest([tree_sha256(COMPONENTS / step), shared, _packages()])


def local_images() -> dict[str, str]:
    """Return an image reference per step whose tag is the step's fingerprint.

    The reference enters the cache key, which otherwise does not cover imported code.
    """
    tags = {step: _digest([step_sha256(step), report_sha256(step)]) for step in STEPS}
    return {step: f"modelyard/python-{step}:{tag[:16]}" for step, tag in tags.items()}


def report_sha256(step: str) -> str:
    """Return the fingerprint of the code of the report, which evaluate writes; empty for other steps."""
    return tree_sha256(COMPONENTS / "report") if step == "evaluate" else ""


def pipeline(environment: Environment) -> Callable[..., dsl.PipelineTask]:
    """Return the pipeline as it runs in an environment."""
    if environment.kind == "kubernetes":
        whole = dsl.PipelineConfig(active_deadline_seconds=environment.active_deadline)
        return build(lambda step, task: in_pod(step, task, environment), whole)
    images = local_images()
    return build(lambda step, task: task.set_container_image(images[step]))


def in_pod(step: str, task: dsl.PipelineTask, environment: Environment) -> None:
    """Write into a step's task where its pod runs."""
    from kfp import kubernetes  # which a run on this machine need not wait for

    resources = environment.resources(step)
    task.set_container_image(environment.image(step))
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", size_limit=resources.ephemeral_storage)  # noqa: S108
    kubernetes.add_pod_label(task, "modelyard.dev/step", step)
    if environment.storage_endpoint:
        # for the launcher of Kubeflow Pipelines, which wants no scheme; our own client is told the endpoint
        task.set_env_variable("STORAGE_EMULATOR_HOST", urlsplit(environment.storage_endpoint).netloc)
    if step in RECORDING:
        kubernetes.use_field_path_as_env(task, RUN_ID, "metadata.labels['pipeline/runid']")
    if step == "train":
        _backend(task, environment, resources)
    if step == "explain" and (webhook := environment.webhook):
        kubernetes.use_secret_as_env(task, webhook.secret, {webhook.key: "MODELYARD_WEBHOOK"}, optional=True)
    _size(task, resources)
    _node(task, resources)
    _time(task, resources)


def compile_to(config: Config, path: Path, environment: Environment = LOCAL) -> None:
    """Write the pipeline as KFP's YAML, with the configuration as its default arguments."""
    from kfp.compiler import Compiler

    Compiler().compile(pipeline(environment), str(path), pipeline_parameters=arguments(config, environment))


def compile_package(environment: Environment) -> bytes:
    """Return the pipeline as KFP's YAML, without arguments: of an environment, always the same bytes."""
    from kfp.compiler import Compiler

    with TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        Compiler().compile(pipeline(environment), str(path))
        return path.read_bytes()


def parse_package(package: bytes) -> tuple[Json, Json]:
    """Return the two documents of a pipeline of a cluster: its specification, and its platform's."""
    pipeline, platform = yaml.load_all(package, LOADER)
    return pipeline, platform


def _size(task: dsl.PipelineTask, resources: StepResources) -> None:
    """Ask for processor, memory and accelerator. Idle cores may be used beyond; memory has a limit."""
    if resources.cpu:
        task.set_cpu_request(resources.cpu)
    if resources.memory:
        task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    if resources.accelerator:
        task.set_accelerator_type(resources.accelerator.resource)
        task.set_accelerator_limit(resources.accelerator.count)


def _node(task: dsl.PipelineTask, resources: StepResources) -> None:
    from kfp import kubernetes

    for label, value in resources.selector().items():
        kubernetes.add_node_selector(task, label, value)
    for one in resources.tolerated():
        kubernetes.add_toleration(task, one.key, one.operator, one.value, one.effect)


def _time(task: dsl.PipelineTask, resources: StepResources) -> None:
    from kfp import kubernetes

    if resources.timeout:
        kubernetes.set_timeout(task, resources.timeout)
    if resources.retries:
        task.set_retry(resources.retries, backoff_duration=RETRY_AFTER)


def _backend(task: dsl.PipelineTask, environment: Environment, resources: StepResources) -> None:
    """Say what Keras trains with, and which accelerator must be there."""
    task.set_env_variable("KERAS_BACKEND", environment.keras_backend)
    if resources.accelerator:
        task.set_env_variable("MODELYARD_ACCELERATOR", resources.accelerator.kind)
        if environment.accelerator_optional:
            task.set_env_variable("MODELYARD_ACCELERATOR_OPTIONAL", "1")


def _inside(config: Config, environment: Environment) -> Config:
    """Return the configuration as pods see the world: no file of this machine, the store's own address."""
    given = config.data.endpoint
    source = config.data.source
    here = {
        "model.code": config.model.code,
        "data.source": source,
        "data.endpoint": None if given == environment.storage_endpoint else given,
        "store.url": config.store.url,
    }
    for key, value in here.items():
        if value and (reason := find_storage(value, key).unreachable_from_pods(value)):
            raise ConfigError(f"{key} is {value}, {reason}, which pods cannot reach. {ELSEWHERE[key]}")
    changed: dict[str, Any] = {"store": environment.inside(config.store)}
    if source and not given:  # as the store's, and the artifacts'
        inside = environment.inside(Store(url=source))
        changed["data"] = config.data.model_copy(update={"endpoint": inside.endpoint})
    return config.model_copy(update=changed)


def _code(step: str, environment: Environment) -> str:
    """Return what identifies the code of a step: here its source, on a cluster the image that holds it."""
    return environment.image(step) if environment.kind == "kubernetes" else step_sha256(step)


@cache
def _packages() -> dict[str, str]:
    """Return the installed versions of the packages that modelyard depends on."""
    found = {}
    for line in requires("modelyard") or []:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        with suppress(PackageNotFoundError):  # not for this platform
            found[name] = version(name)
    return found


def _source_sha256(path: Path) -> str:
    return tree_sha256(path) if path.is_dir() else sha256(path)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
