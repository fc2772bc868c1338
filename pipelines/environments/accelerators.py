"""GPUs and TPUs that a step requests, with their node labels, taints and resource names.

The labels are those of GKE. On other clusters, request `gpu` and set the labels in `node_selector`.
"""

from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from modelyard.components.settings import Settings
from modelyard.pipelines.config.text import parse_file
from modelyard.pipelines.config.validation import suggest

ANY_GPU = "gpu"
CATALOG = Path(__file__).parent / "accelerators.yaml"


class Toleration(Settings):
    """A toleration of Kubernetes."""

    key: str = Field(description="Key of the taint.")
    operator: Literal["Exists", "Equal"] = Field(
        default="Exists", description="Exists: any value of the taint; Equal: the value in `value`."
    )
    value: str | None = Field(default=None, description="With operator: Equal, the value of the taint.")
    effect: Literal["NoSchedule", "NoExecute", "PreferNoSchedule"] = Field(
        default="NoSchedule", description="Effect of the taint."
    )


class AcceleratorType(Settings, extra="ignore"):
    """A type in accelerators.yaml. planning/hardware.py reads its memory and price."""

    kind: Literal["gpu", "tpu"]
    counts: tuple[int, ...] = Field(default=(), strict=False)
    topologies: dict[str, int] = Field(default_factory=dict)

    @property
    def min_count(self) -> int:
        """The minimum number on a machine."""
        return min(self.counts or self.topologies.values())


class Accelerator(Settings):
    """The GPUs or TPU chips of a step."""

    type: str = Field(
        description="GKE's name of the accelerator, such as nvidia-l4 or tpu-v6e-slice; `gpu`: any NVIDIA "
        "GPU."
    )
    count: int = Field(default=1, ge=1, description="Number of GPUs or TPU chips of one node.")
    topology: str | None = Field(
        default=None,
        description="TPU only: topology of a single-host slice, such as 2x2; count is its number of chips.",
    )

    @property
    def kind(self) -> Literal["gpu", "tpu"]:
        """Whether it is a GPU or a TPU."""
        return accelerator_types()[self.type].kind

    @property
    def resource(self) -> str:
        """The name of the Kubernetes resource."""
        return {"gpu": "nvidia.com/gpu", "tpu": "google.com/tpu"}[self.kind]

    def node_selector(self) -> dict[str, str]:
        """Return the labels of nodes with the accelerator."""
        if self.type == ANY_GPU:
            return {}
        if self.kind == "gpu":
            return {"cloud.google.com/gke-accelerator": self.type}
        return {
            "cloud.google.com/gke-tpu-accelerator": self.type,
            "cloud.google.com/gke-tpu-topology": str(self.topology),
        }

    def toleration(self) -> Toleration:
        """Return the toleration for the taint of nodes with the accelerator."""
        return Toleration(key=self.resource)

    @model_validator(mode="after")
    def _check_available_on_nodes(self) -> Self:
        """Reject accelerators that no node has: the pod would remain pending."""
        if not (accelerator_type := accelerator_types().get(self.type)):
            hint = suggest(self.type, list(accelerator_types()))
            raise ValueError(f"accelerator.type is {self.type!r}, which is unknown{hint}")
        if accelerator_type.kind == "gpu":
            if self.topology:
                raise ValueError(f"accelerator.topology is for TPUs, but {self.type} is a GPU: remove it")
            if self.count not in accelerator_type.counts:
                counts = ", ".join(map(str, accelerator_type.counts))
                raise ValueError(
                    f"accelerator.count is {self.count}, but a node has {counts} {self.type}: set "
                    "one of these"
                )
            return self
        slices = ", ".join(
            f"{topology} with {chips}" for topology, chips in accelerator_type.topologies.items()
        )
        if self.topology not in accelerator_type.topologies:
            raise ValueError(
                f"accelerator.topology is {self.topology!r}, but a step needs a single-host slice. Those of "
                f"{self.type} are {slices} chips: set one of these"
            )
        if self.count != accelerator_type.topologies[self.topology]:
            raise ValueError(
                f"accelerator.count is {self.count}, but a pod gets all chips of its host: set the number "
                f"of chips of the topology: {slices}"
            )
        return self


@cache
def accelerator_types() -> dict[str, AcceleratorType]:
    """Return the types in accelerators.yaml by name."""
    types = parse_file(CATALOG, "catalog").value["accelerators"]
    return {name: AcceleratorType.model_validate(values) for name, values in types.items()}
