"""An environment: where steps and servers run, what they ask for, and where models and artifacts are."""

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
from modelyard.pipelines.config.errors import choices
from modelyard.pipelines.config.schedule import check_time_zone
from modelyard.pipelines.environments.accelerators import Accelerator, Toleration
from modelyard.pipelines.steps import ACCELERATED_IMAGES, IMAGES, STEPS

IMAGES_FILE = "build/images.json"
INTERFACES_FILE = "build/interfaces.json"
SPOT = "cloud.google.com/gke-spot"
ENDPOINT = r"^https?://[^/]+$"
URL = r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$"


def _check_image(name: str) -> str:
    if name not in (known := (*IMAGES, *ACCELERATED_IMAGES)):
        raise PydanticCustomError("literal_error", "{expected}", {"expected": ", ".join(map(repr, known))})
    return name


Image = Annotated[
    str,
    AfterValidator(_check_image),
    WithJsonSchema({"type": "string", "enum": [*IMAGES, *ACCELERATED_IMAGES]}),
]


def _number_to_str(value: Any) -> Any:
    """Return a number as Kubernetes writes it: `cpu: 2` is as good as `cpu: "2"`."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Cpu = Annotated[str, BeforeValidator(_number_to_str), Field(pattern=r"^([1-9]\d*m|[1-9]\d*|\d+\.\d+)$")]
Memory = Annotated[str, Field(pattern=r"^[1-9]\d*(Mi|Gi|Ti|M|G|T)$")]


class StepResources(Settings):
    """What one step asks for; under `defaults`, what each step does unless it says otherwise."""

    cpu: Cpu | None = Field(
        default=None,
        description='Cores that are kept for it, as "2" or 500m; it may use idle ones beyond.',
    )
    memory: Memory | None = Field(
        default=None,
        description="Memory that is kept for it and that it cannot exceed, as 4Gi.",
    )
    ephemeral_storage: Memory | None = Field(
        default=None,
        description="Disk for its temporary files, as 20Gi; beyond, it is stopped.",
    )
    accelerator: Accelerator | None = Field(default=None, description="GPUs or TPU chips.")
    node_selector: dict[str, str] = Field(
        default_factory=dict,
        description="Labels that its node must have, beside those of accelerator and spot.",
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(),
        strict=False,
        description="Taints that it tolerates, beside those of accelerator and spot.",
    )
    spot: bool = Field(
        default=False,
        description="Run on GKE's Spot nodes: cheaper, and taken away at any time; give retries.",
    )
    timeout: int | None = Field(default=None, ge=1, description="Seconds after which an attempt is stopped.")
    retries: int = Field(
        default=0,
        ge=0,
        description="How often it is tried again; deploy, only as often as it says itself, not `defaults`.",
    )

    def with_defaults(self, defaults: Self) -> Self:
        """Return these resources, with `defaults` where a field is not set."""
        return defaults.model_copy(update={key: getattr(self, key) for key in self.model_fields_set})

    def all_node_labels(self) -> dict[str, str]:
        """Return all labels that the node must have."""
        accelerator = self.accelerator.node_selector() if self.accelerator else {}
        return {**accelerator, **({SPOT: "true"} if self.spot else {}), **self.node_selector}

    def all_tolerations(self) -> tuple[Toleration, ...]:
        """Return all taints that it tolerates."""
        accelerator = (self.accelerator.toleration(),) if self.accelerator else ()
        spot = (Toleration(key=SPOT, operator="Equal", value="true"),) if self.spot else ()
        return (*accelerator, *spot, *self.tolerations)


_FIELDS: Any = {
    step: (StepResources, Field(default=StepResources(), description=f"What {step} asks for."))
    for step in STEPS
}
Steps = create_model(
    "Steps",
    __base__=Settings,
    __doc__="What single steps ask for, where it is not what `defaults` says.",
    **_FIELDS,
)


class Runs(Settings):
    """Where the steps run."""

    namespace: str = Field(default="modelyard-runs", description="The namespace of their pods.")
    service_account: str = Field(default="modelyard-run", description="The account of all of them.")


class Servers(Settings):
    """Where the servers run, and what each asks for."""

    platform: str = Field(
        default="deployment",
        description="What serves models: deployment, two Deployments and a Service for each.",
    )
    namespace: str = Field(default="modelyard-serving", description="The namespace of their pods.")
    service_account: str = Field(default="modelyard-serve", description="The account of all of them.")
    replicas: int = Field(default=1, ge=1, description="Servers of a model when it is deployed first.")
    cpu: Cpu = Field(default="250m", description="Cores that are kept for a server.")
    memory: Memory = Field(default="512Mi", description="Memory of a server, kept for it and its limit.")
    token_secret: str | None = Field(
        default=None,
        description="Secret in the servers' namespace whose key token has bearer tokens, one a line, without "
        "one of which requests get 401; modelyard's own requests send the first.",
    )
    tls_secret: str | None = Field(
        default=None,
        description="Secret of type kubernetes.io/tls in the servers' namespace, with which they speak TLS.",
    )
    urls: dict[str, str] = Field(
        default_factory=dict,
        description="Address at which clients outside the cluster reach a model, by the model's name; one "
        "that is not here is asked through the API server.",
    )

    @field_validator("platform")
    @classmethod
    def _check_platform(cls, name: str) -> str:
        """Refuse an unknown serving platform."""
        known = [each for each in PLATFORMS if each != "local"]
        if name not in known:
            raise ValueError(f"there is no serving platform {name}{choices(name, known)}")
        return name


class Pipelines(Settings):
    """Where Kubeflow Pipelines is."""

    endpoint: str | None = Field(
        default=None,
        pattern=URL,
        description="Address of its API, as in https://kubeflow.example.com/pipeline; if left out, it is "
        "reached through the cluster that KUBECONFIG names.",
    )
    namespace: str = Field(
        default="kubeflow",
        description="Where it is installed. It starts the steps there too, unless it is shared by several "
        "users (multi-user): then in runs.namespace.",
    )
    time_zone: str = Field(
        default="UTC",
        description="Time zone in which its server reads cron lines (cronScheduleTimezone in its ConfigMap "
        "pipeline-install-config).",
    )

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, name: str) -> str:
        """Refuse an unknown time zone."""
        return check_time_zone(name)


class Webhook(Settings):
    """Where the address is that is told how a run ended; whoever knows it can write there."""

    secret: str = Field(description="The Secret that holds it, in the namespace where the steps run.")
    key: str = Field(default="address", description="Its key in the Secret.")


class Environment(Settings):
    """Where steps and servers run, what they ask for, and where models and artifacts are."""

    kind: Literal["local", "kubernetes"] = Field(
        description="local: processes of this machine; kubernetes: pods of the cluster that KUBECONFIG names."
    )
    registry: str | None = Field(
        default=None, description="Where images are that `images` names without a registry, as host/project."
    )
    images: dict[Image, str] = Field(
        default_factory=dict,
        description="Image of a step, of serve, or of train on an accelerator (train-cuda, train-tpu); what "
        "is not here comes from build/images.json, which `make images` writes.",
    )
    store: str | None = Field(
        default=None, description="The model store, gs://bucket/prefix; over store.url of the configuration."
    )
    user_project: str | None = Field(
        default=None,
        description="Google Cloud project that pays for requests to `store`, if its bucket has requester "
        "pays.",
    )
    pipeline_root: str | None = Field(
        default=None,
        description="Where the artifacts of runs are, gs://bucket/prefix; not with requester pays.",
    )
    storage_endpoint: str | None = Field(
        default=None,
        pattern=ENDPOINT,
        description="Address of a GCS emulator as pods reach it, with its scheme.",
    )
    storage_endpoint_outside: str | None = Field(
        default=None,
        pattern=ENDPOINT,
        description="The same as this machine reaches it; storage_endpoint if left out.",
    )
    keras_backend: Literal["tensorflow", "jax"] = Field(
        default="tensorflow", description="What Keras trains with; a TPU needs jax."
    )
    accelerator_optional: bool = Field(
        default=False, description="Train on the processor when the accelerator is not there, and say so."
    )
    kfp: Pipelines = Field(default=Pipelines(), description="Where Kubeflow Pipelines is.")
    runs: Runs = Field(default=Runs(), description="Where the steps run.")
    serving: Servers = Field(default=Servers(), description="Where the servers run.")
    webhook: Webhook | None = Field(
        default=None,
        description="Address that is told how a run on Kubeflow Pipelines ended, as JSON; a run that this "
        "machine leads tells the one in MODELYARD_WEBHOOK.",
    )
    active_deadline: int = Field(
        default=86400, ge=1, description="Seconds after which a whole run is stopped."
    )
    start_timeout: int = Field(
        default=300,
        ge=1,
        description="Seconds that a pod may take until it runs, a new node and its image included.",
    )
    defaults: StepResources = Field(default=StepResources(), description="What each step asks for.")
    steps: Steps = Field(  # type: ignore[valid-type]
        default=Steps(), description="What single steps ask for, over `defaults`."
    )

    @property
    def on_cluster(self) -> bool:
        """Whether steps and servers are pods, and not processes of this machine."""
        return self.kind == "kubernetes"

    def resources(self, step: str) -> StepResources:
        """Return what a step asks for."""
        own: StepResources = getattr(self.steps, step)
        return own.with_defaults(self.defaults.model_copy(update=STEPS[step].resources))

    def image(self, name: str) -> str:
        """Return the reference of an image, or of the image of a step, with its accelerator's libraries.

        Raises:
            ConfigError: neither the environment nor `make images` names it.
        """
        if step := STEPS.get(name):
            accelerator = self.resources(name).accelerator
            name = step.accelerated.get(accelerator.kind, step.image) if accelerator else step.image
        images = self.images
        if name not in images:
            target = "images-accelerators" if name in ACCELERATED_IMAGES else "images"
            raise ConfigError(
                f"There is no image for {name}: `make {target}` builds it and writes {IMAGES_FILE}, which "
                f"is read in the working directory; or name one in environment.images.{name}."
            )
        host = images[name].split("/")[0]
        bare = self.registry and not ("." in host or ":" in host or host == "localhost")
        return f"{self.registry}/{images[name]}" if bare else images[name]

    def model_store(self) -> Store | None:
        """Return the model store as this machine reaches it, if the environment has one."""
        pays = {"user_project": self.user_project} if self.user_project else {}
        return _with_endpoint(Store(url=self.store, **pays), self._local_endpoint()) if self.store else None

    def artifact_store(self) -> Store:
        """Return the place of the artifacts as this machine reaches it.

        Raises:
            ConfigError: there is none; artifacts of runs on this machine are in their folders.
        """
        if not self.pipeline_root:
            raise ConfigError(
                "environment.pipeline_root is not set. Set it, or name another environment with -e."
            )
        return _with_endpoint(Store(url=self.pipeline_root), self._local_endpoint())

    def for_pods(self, store: Store) -> Store:
        """Return a place in a storage as pods reach it."""
        return _with_endpoint(store, self.storage_endpoint)

    def for_this_machine(self, store: Store) -> Store:
        """Return a place in a storage, as pods reach it, as this machine does."""
        return store.model_copy(update={"endpoint": store.endpoint and self._local_endpoint()})

    def target(self, needs_image: bool = True) -> Target:
        """Return where deploy puts the server, with the image `serve` if there is one.

        Raises:
            ConfigError: it `needs_image`, and neither the environment nor `make images` names it.
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
    def _check_cluster(self) -> Self:
        """Refuse what would fail late, on the cluster."""
        for key in ("store", "pipeline_root"):
            url, why = str(getattr(self, key) or "."), ""
            try:
                storage = find_storage(url, f"environment.{key}")
                if self.on_cluster and storage.unreachable_from_pods(url):
                    why = "which pods cannot share"
                elif self.on_cluster and key == "pipeline_root" and not storage.mount:
                    why = "which Kubeflow Pipelines does not show to its steps"
            except ConfigError:
                why = "which is not supported"
            if why:
                raise ValueError(
                    f"environment.{key} is {getattr(self, key)!r}, {why}: give it as gs://bucket/prefix, in "
                    f"./environments/NAME.yaml or --set environment.{key}=gs://…"
                )
        accelerator = self.resources("train").accelerator if self.on_cluster else None
        if accelerator and accelerator.kind == "tpu" and self.keras_backend == "tensorflow":
            raise ValueError(
                f"train asks for {accelerator.type} and environment.keras_backend is tensorflow, but "
                "TensorFlow 2.21 has no TPU build. Set environment.keras_backend: jax, for which there is "
                "the image train-tpu, or ask for a GPU"
            )
        return self


def _with_endpoint(store: Store, endpoint: str | None) -> Store:
    """Return a place in a storage at an emulator, when its storage has emulators."""
    takes_endpoint = find_storage(store.url, "data.source").takes_endpoint  # of any kind
    return store.model_copy(update={"endpoint": endpoint if takes_endpoint else None})
