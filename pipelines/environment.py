"""Where a pipeline runs: `local`, `kind`, `gke`, or a file of your own; data, not code paths.

    environment = load_environment("kind", ["environment.steps.train.cpu=2"])

A name is that of a file in pipelines/environments, over which `./environments/NAME.yaml` is laid key by
key; a path stands for itself. What a key is comes from `--set environment.KEY`, else the variable
MODELYARD_ENVIRONMENT__KEY, else the file, else its default, as in the configuration.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from components.errors import ConfigError
from components.settings import Settings
from components.store.settings import Store
from pipelines.config_layers import Document
from pipelines.config_problems import did_you_mean, explain
from pipelines.config_text import Parsed, parse
from pipelines.environment_settings import Kfp, Runs, Servers, Steps
from pipelines.step_resources import StepResources

SHIPPED = Path(__file__).parent / "environments"
OWN = Path("environments")
BUILT = Path("build/images.json")
SECTION = "environment"
ENDPOINT = r"^https?://[^/]+$"

Step = Literal["fingerprint", "ingest", "preprocess", "train", "evaluate", "deploy"]
Image = Literal[Step, "train-cuda", "train-tpu", "serve"]


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
    pipeline_root: str | None = Field(
        default=None, description="Where the artifacts of runs are, gs://bucket/prefix."
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
    runs: Runs = Field(default=Runs(), description="Where the steps run.")
    serving: Servers = Field(default=Servers(), description="Where the servers run.")
    kfp: Kfp = Field(default=Kfp(), description="The Kubeflow Pipelines that `submit` talks to.")
    active_deadline: int = Field(
        default=86400, ge=1, description="Seconds after which a whole run is stopped."
    )
    start_timeout: int = Field(
        default=300,
        ge=1,
        description="Seconds that a pod may take until it runs, a new node and its image included.",
    )
    defaults: StepResources = Field(default=StepResources(), description="What each step asks for.")
    steps: Steps = Field(default=Steps(), description="What single steps ask for, over `defaults`.")

    def resources(self, step: str) -> StepResources:
        """Return what a step asks for."""
        mine: StepResources = getattr(self.steps, step)
        return mine.over(self.defaults)

    def image(self, name: str) -> str:
        """Return the reference of an image; for train, the one that has its accelerator's libraries.

        Raises:
            ConfigError: neither the environment nor `make images` names it.
        """
        accelerator = self.resources(name).accelerator if name in Steps.model_fields else None
        if name == "train" and accelerator:
            name = {"gpu": "train-cuda", "tpu": "train-tpu"}[accelerator.kind]
        images = dict[str, str](self.images.items())
        if name not in images:
            target = "images-accelerators" if name in ("train-cuda", "train-tpu") else "images"
            raise ConfigError(
                f"There is no image for {name}: `make {target}` builds it and writes {BUILT}, or name one in "
                f"environment.images.{name}."
            )
        host = images[name].split("/")[0]
        bare = self.registry and not ("." in host or ":" in host or host == "localhost")
        return f"{self.registry}/{images[name]}" if bare else images[name]

    def model_store(self, *, outside: bool) -> Store | None:
        """Return the model store, as this machine (`outside`) or as pods reach it, if there is one."""
        return Store(url=self.store, endpoint=self._endpoint(outside)) if self.store else None

    def artifacts(self, *, outside: bool) -> Store:
        """Return the place of the artifacts as this machine (`outside`) or as pods reach it."""
        return Store(url=str(self.pipeline_root), endpoint=self._endpoint(outside))

    def _endpoint(self, outside: bool) -> str | None:
        return (outside and self.storage_endpoint_outside) or self.storage_endpoint

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Refuse what would fail late, on the cluster."""
        if self.kind == "local":
            return self
        for key in ("store", "pipeline_root"):
            if not str(getattr(self, key) or "").startswith("gs://"):
                raise ValueError(
                    f"environment.{key} is {getattr(self, key)!r}, and pods share only a bucket: give it as "
                    f"gs://bucket/prefix, in ./environments/NAME.yaml or --set environment.{key}=gs://…"
                )
        accelerator = self.resources("train").accelerator
        if accelerator and accelerator.kind == "tpu" and self.keras_backend == "tensorflow":
            raise ValueError(
                f"train asks for {accelerator.type} and environment.keras_backend is tensorflow, but "
                "TensorFlow 2.21 has no TPU build. Set environment.keras_backend: jax, for which there is "
                "the image train-tpu, or ask for a GPU"
            )
        return self


def load_environment(
    name_or_path: str = "local", overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> Environment:
    """Return the checked environment.

    Args:
        name_or_path: a shipped name, the name of a file in ./environments, or a path to a .yaml file.
        overrides: `environment.key=value` with dotted keys; others are left to the configuration.
        environ: the environment variables.

    Raises:
        ConfigError: there is no such environment, or it has problems: each with its place and remedy.
    """
    document = _read(name_or_path)
    mine = {key: text for key, text in environ.items() if key.startswith(f"MODELYARD_{SECTION.upper()}__")}
    document.add_environment(mine, ())
    document.add_overrides([one for one in overrides if one.startswith(f"{SECTION}.")])
    try:
        environment = Environment.model_validate(document.values[SECTION])
    except ValidationError as error:
        raise explain(error, Environment, document, (SECTION,)) from error
    return environment.model_copy(update={"images": {**_built(), **environment.images}})


def _read(name_or_path: str) -> Document:
    """Return the document of an environment: the shipped file, and one's own over it."""
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path:
        files = [Path(name_or_path)]
    else:
        files = [folder / f"{name_or_path}.yaml" for folder in (SHIPPED, OWN)]
    if not (files := [file for file in files if file.is_file()]):
        names = sorted({file.stem for folder in (SHIPPED, OWN) for file in folder.glob("*.yaml")})
        near = did_you_mean(name_or_path, names) or f"; they are {', '.join(names)}."
        raise ConfigError(f"There is no environment {name_or_path!r}{near} Or name a .yaml file.")
    document = Document(Parsed({SECTION: {}}), f"the environment {name_or_path}")
    for file in files:
        document.add(_section(parse(file.read_text(encoding="utf-8"), str(file)), file), str(file))
    return document


def _section(parsed: Parsed, file: Path) -> Parsed:
    """Return a file's values as the section that they are."""
    if not isinstance(parsed.value, dict):
        raise ConfigError(f"{file}: an environment has keys, as in kind: kubernetes. Write some.")
    return Parsed({SECTION: parsed.value}, {(SECTION, *keys): line for keys, line in parsed.lines.items()})


def _built() -> dict[str, str]:
    """Return the images that `make images` built, if it did."""
    if not BUILT.is_file():
        return {}
    built: dict[str, str] = json.loads(BUILT.read_text(encoding="utf-8"))
    return built
