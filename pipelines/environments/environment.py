"""The keys of an environment: images, resources, storage and namespaces of steps and servers."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    WithJsonSchema,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from modelyard.components.deploy.settings import PLATFORMS, Resources, Target
from modelyard.components.errors import ConfigError
from modelyard.components.settings import Settings
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import find_storage
from modelyard.pipelines.config.schedule import check_time_zone
from modelyard.pipelines.config.validation import suggest
from modelyard.pipelines.environments.accelerators import Accelerator, Toleration
from modelyard.pipelines.steps import ACCELERATED_IMAGES, IMAGES, STEPS

IMAGES_FILE = "build/images.json"
INTERFACES_FILE = "build/interfaces.json"
SPOT = "cloud.google.com/gke-spot"
ENDPOINT = r"^https?://[^/]+$"
URL = r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$"


def _check_image(name: str) -> str:
    if name not in (images := (*IMAGES, *ACCELERATED_IMAGES)):
        raise PydanticCustomError("literal_error", "{expected}", {"expected": ", ".join(map(repr, images))})
    return name


Image = Annotated[
    str,
    AfterValidator(_check_image),
    WithJsonSchema({"type": "string", "enum": [*IMAGES, *ACCELERATED_IMAGES]}),
]


def _number_to_str(value: Any) -> Any:
    """Convert a number to text, so that `cpu: 2` equals `cpu: "2"`."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Cpu = Annotated[str, BeforeValidator(_number_to_str), Field(pattern=r"^([1-9]\d*m|[1-9]\d*|\d+\.\d+)$")]
Memory = Annotated[str, Field(pattern=r"^[1-9]\d*(Mi|Gi|Ti|M|G|T)$")]


class StepResources(Settings):
    """The resources of a step, or in `defaults`, of every step."""

    cpu: Cpu | None = Field(
        default=None, description='CPU request, such as "2" or 500m. There is no CPU limit.'
    )
    memory: Memory | None = Field(default=None, description="Memory request and limit, such as 4Gi.")
    ephemeral_storage: Memory | None = Field(
        default=None, description="Request and limit of disk for temporary files, such as 20Gi."
    )
    accelerator: Accelerator | None = Field(default=None, description="GPUs or TPU chips of the step.")
    node_selector: dict[str, str] = Field(
        default_factory=dict,
        description="Labels of the node, in addition to those that accelerator and spot require.",
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(),
        strict=False,
        description="Tolerations of the pod, in addition to those that accelerator and spot require.",
    )
    spot: bool = Field(
        default=False,
        description="Run on GKE's Spot nodes, which are cheaper and may be preempted; set retries.",
    )
    timeout: int | None = Field(
        default=None, ge=1, description="Timeout of the step in seconds; each retry has the same timeout."
    )
    retries: int = Field(
        default=0,
        ge=0,
        description="Number of retries. The value in `defaults` does not apply to deploy; set "
        "steps.deploy.retries.",
    )

    def all_node_labels(self) -> dict[str, str]:
        """Return all labels of the node, including those of accelerator and spot."""
        accelerator = self.accelerator.node_selector() if self.accelerator else {}
        return {**accelerator, **({SPOT: "true"} if self.spot else {}), **self.node_selector}

    def all_tolerations(self) -> tuple[Toleration, ...]:
        """Return all tolerations, including those of accelerator and spot."""
        accelerator = (self.accelerator.toleration(),) if self.accelerator else ()
        spot = (Toleration(key=SPOT, operator="Equal", value="true"),) if self.spot else ()
        return (*accelerator, *spot, *self.tolerations)


_FIELDS: Any = {
    step: (StepResources, Field(default=StepResources(), description=f"Resources of {step}."))
    for step in STEPS
}
Steps = create_model(
    "Steps", __base__=Settings, __doc__="Resources of individual steps, which override `defaults`.", **_FIELDS
)


class Runs(Settings):
    """Namespace and service account of the steps."""

    namespace: str = Field(
        default="modelyard-runs",
        description="Namespace of the steps' pods. On Kubeflow Pipelines, only in multi-user mode; otherwise "
        "it is kfp.namespace.",
    )
    service_account: str = Field(default="modelyard-run", description="ServiceAccount of the steps' pods.")


class Servers(Settings):
    """Namespace, resources and access of the servers."""

    platform: str = Field(
        default="deployment",
        description="Serving platform: deployment (two Deployments and a Service per model).",
    )
    namespace: str = Field(default="modelyard-serving", description="Namespace of the servers' pods.")
    service_account: str = Field(
        default="modelyard-serve", description="ServiceAccount of the servers' pods."
    )
    replicas: int = Field(default=1, ge=1, description="Replicas of a model when it is first deployed.")
    cpu: Cpu = Field(default="250m", description="CPU request of a server. There is no CPU limit.")
    memory: Memory = Field(default="512Mi", description="Memory request and limit of a server.")
    token_secret: str | None = Field(
        default=None,
        description="Secret in the servers' namespace. Its key `token` has a bearer token per line. "
        "Requests without one of these tokens get 401; modelyard sends the first token.",
    )
    tls_secret: str | None = Field(
        default=None, description="Secret of type kubernetes.io/tls in the servers' namespace. Enables TLS."
    )
    urls: dict[str, str] = Field(
        default_factory=dict,
        description="URL of each model for clients outside the cluster, by the model's name. For a model "
        "without a URL, modelyard sends requests through the API server of the cluster.",
    )

    @field_validator("platform")
    @classmethod
    def _check_platform(cls, name: str) -> str:
        platforms = [platform for platform in PLATFORMS if platform != "local"]
        if name not in platforms:
            raise ValueError(f"{name} is not a serving platform{suggest(name, platforms)}")
        return name


class Pipelines(Settings):
    """URL, namespace and time zone of Kubeflow Pipelines."""

    endpoint: str | None = Field(
        default=None,
        pattern=URL,
        description="URL of the API of Kubeflow Pipelines, such as https://kubeflow.example.com/pipeline. "
        "Default: the Service ml-pipeline in kfp.namespace; outside of the cluster, through the API "
        "server in KUBECONFIG.",
    )
    namespace: str = Field(
        default="kubeflow",
        description="Namespace in which Kubeflow Pipelines is installed. Steps also run in this namespace; "
        "in multi-user mode, they run in runs.namespace.",
    )
    time_zone: str = Field(
        default="UTC",
        description="Time zone of cron expressions on the server (cronScheduleTimezone in its ConfigMap "
        "pipeline-install-config).",
    )

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, name: str) -> str:
        return check_time_zone(name)


class Webhook(Settings):
    """The Secret with the URL of the webhook."""

    secret: str = Field(description="Name of a Secret in the namespace of the steps.")
    key: str = Field(default="address", description="Key of the Secret whose value is the URL.")


class Environment(Settings):
    """Where steps and servers run, with which images, resources and storage."""

    kind: Literal["local", "kubernetes"] = Field(
        description="local: processes on this machine; kubernetes: pods on the cluster in KUBECONFIG."
    )
    registry: str | None = Field(
        default=None,
        description="Registry for images whose reference has no registry, such as host/project.",
    )
    images: dict[Image, str] = Field(
        default_factory=dict,
        description="Image references by the name of the image: that of a step, serve, train-cuda or "
        "train-tpu. Other images come from build/images.json, which `make images` writes.",
    )
    store: str | None = Field(
        default=None,
        description="Model store, gs://bucket/prefix; overrides store.url of the configuration file.",
    )
    user_project: str | None = Field(
        default=None,
        description="Google Cloud project that is billed for requests to `store`, if its bucket has "
        "Requester Pays.",
    )
    pipeline_root: str | None = Field(
        default=None,
        description="Root URL of the artifacts of runs, gs://bucket/prefix; not with Requester Pays.",
    )
    storage_endpoint: str | None = Field(
        default=None, pattern=ENDPOINT, description="URL of a GCS emulator for pods."
    )
    storage_endpoint_outside: str | None = Field(
        default=None,
        pattern=ENDPOINT,
        description="URL of the same emulator for this machine. Default: storage_endpoint.",
    )
    keras_backend: Literal["tensorflow", "jax"] = Field(
        default="tensorflow", description="Keras backend of train; a TPU needs jax."
    )
    accelerator_optional: bool = Field(
        default=False, description="Train on the CPU, with a warning, if there is no accelerator."
    )
    kfp: Pipelines = Field(default=Pipelines(), description="The installation of Kubeflow Pipelines.")
    runs: Runs = Field(default=Runs(), description="Namespace and service account of the steps.")
    serving: Servers = Field(default=Servers(), description="Namespace, resources and access of the servers.")
    webhook: Webhook | None = Field(
        default=None,
        description="Webhook to which runs on Kubeflow Pipelines post their result as JSON. Runs of "
        "`modelyard run` use the URL in MODELYARD_WEBHOOK.",
    )
    active_deadline: int = Field(default=86400, ge=1, description="Timeout of a run, in seconds.")
    start_timeout: int = Field(
        default=300,
        ge=1,
        description="Maximum seconds until a pod runs, including the start of a new node and pulling the "
        "image.",
    )
    defaults: StepResources = Field(default=StepResources(), description="Resources of all steps.")
    steps: Steps = Field(  # type: ignore[valid-type]
        default=Steps(),
        description="Resources of individual steps, with the keys of `defaults`, which they override.",
    )

    @property
    def on_cluster(self) -> bool:
        """Whether steps and servers are pods."""
        return self.kind == "kubernetes"

    def resources(self, step: str) -> StepResources:
        """Return the resources of a step."""
        settings: StepResources = getattr(self.steps, step)
        values = {key: getattr(settings, key) for key in settings.model_fields_set}
        return self.defaults.model_copy(update={**STEPS[step].resources, **values})

    def image(self, name: str) -> str:
        """Return the reference of an image by its name or that of a step.

        Raises:
            ConfigError: it is neither in the environment nor in build/images.json.
        """
        if step := STEPS.get(name):
            accelerator = self.resources(name).accelerator
            name = step.accelerator_images.get(accelerator.kind, step.image) if accelerator else step.image
        if name not in self.images:
            target = "images-accelerators" if name in ACCELERATED_IMAGES else "images"
            raise ConfigError(
                f"Neither environment.images nor ./{IMAGES_FILE} has an image for {name}. "
                f"Build it with `make {target}`, or set environment.images.{name}."
            )
        image = self.images[name]
        host = image.split("/")[0]
        has_registry = "." in host or ":" in host or host == "localhost"
        return image if has_registry or not self.registry else f"{self.registry}/{image}"

    def model_store(self) -> Store | None:
        """Return the model store with the endpoint for this machine, if the environment has one."""
        if not self.store:
            return None
        billing = {"user_project": self.user_project} if self.user_project else {}
        return _with_endpoint(Store(url=self.store, **billing), self._local_endpoint())

    def artifact_store(self) -> Store:
        """Return the pipeline root with the endpoint for this machine.

        Raises:
            ConfigError: it is not set; artifacts of local runs are in their folders.
        """
        if not self.pipeline_root:
            raise ConfigError(
                "environment.pipeline_root is not set. Set it, or select another environment with -e."
            )
        return _with_endpoint(Store(url=self.pipeline_root), self._local_endpoint())

    def for_pods(self, store: Store) -> Store:
        """Return a store with the endpoint for pods."""
        return _with_endpoint(store, self.storage_endpoint)

    def for_this_machine(self, store: Store) -> Store:
        """Return a store with its endpoint for pods replaced by the endpoint for this machine."""
        return store.model_copy(update={"endpoint": store.endpoint and self._local_endpoint()})

    def target(self, needs_image: bool = True) -> Target:
        """Return the target of deploy, with the image `serve` if there is one.

        Raises:
            ConfigError: `needs_image`, and there is none.
        """
        if not self.on_cluster:
            return Target()
        servers, image = self.serving, None
        try:
            image = self.image("serve")
        except ConfigError:
            if needs_image:
                raise
        return Target(
            platform=servers.platform,
            namespace=servers.namespace,
            image=image,
            service_account=servers.service_account,
            replicas=servers.replicas,
            resources=Resources(cpu=servers.cpu, memory=servers.memory),
            start_timeout=self.start_timeout,
            token_secret=servers.token_secret,
            tls_secret=servers.tls_secret,
        )

    def _local_endpoint(self) -> str | None:
        return self.storage_endpoint_outside or self.storage_endpoint

    @model_validator(mode="after")
    def _check_urls(self) -> Self:
        """Reject URLs that would fail late, on the cluster."""
        for key in ("store", "pipeline_root"):
            value = getattr(self, key)
            if reason := self._unusable_reason(key, str(value or ".")):  # unset: a folder of this machine
                state = f"is {value!r}, {reason}" if value else "is not set"
                raise ValueError(
                    f"environment.{key} {state}: set gs://bucket/prefix in "
                    f"./environments/NAME.yaml or with --set environment.{key}=gs://…"
                )
        return self

    def _unusable_reason(self, key: str, url: str) -> str | None:
        """Return why the URL of `store` or `pipeline_root` cannot be used, as the end of a sentence."""
        try:
            storage = find_storage(url, f"environment.{key}")
        except ConfigError:
            return "which is not supported"
        if self.on_cluster and storage.unreachable_from_pods(url):
            return "which pods cannot reach"
        if self.on_cluster and key == "pipeline_root" and not storage.mount:
            return "which Kubeflow Pipelines cannot mount"
        return None

    @model_validator(mode="after")
    def _check_backend(self) -> Self:
        """Reject a TPU with a Keras backend that does not support it."""
        accelerator = self.resources("train").accelerator if self.on_cluster else None
        if accelerator and accelerator.kind == "tpu" and self.keras_backend == "tensorflow":
            raise ValueError(
                f"train requests {accelerator.type} and environment.keras_backend is tensorflow, but "
                "TensorFlow 2.21 has no TPU build. Set environment.keras_backend: jax, or request a GPU"
            )
        return self


def _with_endpoint(store: Store, endpoint: str | None) -> Store:
    """Return a store at the endpoint of an emulator, if its storage has emulators."""
    takes_endpoint = find_storage(store.url, "data.source").takes_endpoint  # a key that allows every storage
    return store.model_copy(update={"endpoint": endpoint if takes_endpoint else None})
