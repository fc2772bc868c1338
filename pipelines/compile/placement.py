"""Where a step runs: its image, its resources and its node, written into its KFP task."""

from collections.abc import Callable
from urllib.parse import urlsplit

from kfp import dsl

from modelyard.components.explain.webhook import VARIABLE as WEBHOOK
from modelyard.pipelines.compile.compiler import local_images
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.environments.step_resources import StepResources
from modelyard.pipelines.train_to_serve import build

USER = 65532
RETRY_AFTER = "30s"


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
    if step == "train":
        _backend(task, environment, resources)
    if step == "explain" and (webhook := environment.webhook):
        kubernetes.use_secret_as_env(task, webhook.secret, {webhook.key: WEBHOOK}, optional=True)
    _size(task, resources)
    _node(task, resources)
    _time(task, resources)


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
