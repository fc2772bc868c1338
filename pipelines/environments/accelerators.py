"""GPUs and TPUs: what a step asks for, and the labels, taints and resources by which it gets it.

The labels are those of GKE. Elsewhere, ask for `gpu` and write the cluster's own labels into `node_selector`.
"""

from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from modelyard.components.settings import Settings
from modelyard.pipelines.config.errors import choices
from modelyard.pipelines.config.text import parse

ANY_GPU = "gpu"
CATALOG = Path(__file__).parent / "accelerators.yaml"


class Toleration(Settings):
    """A taint of nodes that a step may run on nevertheless, as Kubernetes writes it."""

    key: str = Field(description="The taint's key.")
    operator: Literal["Exists", "Equal"] = Field(default="Exists", description="Exists: whatever its value.")
    value: str | None = Field(default=None, description="The taint's value, for Equal.")
    effect: Literal["NoSchedule", "NoExecute", "PreferNoSchedule"] = Field(
        default="NoSchedule", description="The taint's effect."
    )


class AcceleratorType(Settings, extra="ignore"):
    """What accelerators.yaml says about one type; its memory and its price are for planning/hardware.py."""

    kind: Literal["gpu", "tpu"]
    counts: tuple[int, ...] = Field(default=(), strict=False)
    topologies: dict[str, int] = Field(default_factory=dict)

    @property
    def min_count(self) -> int:
        """Return the smallest number that one machine has."""
        return min(self.counts or self.topologies.values())


class Accelerator(Settings):
    """The GPUs or TPU chips of one step."""

    type: str = Field(
        description="GKE's name for it, as nvidia-l4 or tpu-v6e-slice; `gpu` is any NVIDIA GPU."
    )
    count: int = Field(default=1, ge=1, description="GPUs, or TPU chips, of one node.")
    topology: str | None = Field(
        default=None, description="TPU only: the slice of one host, as 2x2; its chips are the count."
    )

    @property
    def kind(self) -> Literal["gpu", "tpu"]:
        """Return whether it is a GPU or a TPU."""
        return accelerator_types()[self.type].kind

    @property
    def resource(self) -> str:
        """Return the name under which Kubernetes counts it."""
        return {"gpu": "nvidia.com/gpu", "tpu": "google.com/tpu"}[self.kind]

    def node_selector(self) -> dict[str, str]:
        """Return the labels of the nodes that have it."""
        if self.type == ANY_GPU:
            return {}
        if self.kind == "gpu":
            return {"cloud.google.com/gke-accelerator": self.type}
        return {
            "cloud.google.com/gke-tpu-accelerator": self.type,
            "cloud.google.com/gke-tpu-topology": str(self.topology),
        }

    def toleration(self) -> Toleration:
        """Return what lets a step onto nodes that are kept free for the accelerator."""
        return Toleration(key=self.resource)

    @model_validator(mode="after")
    def _check_node_has_it(self) -> Self:
        """Refuse what no node has: the scheduler would wait for it for ever."""
        if not (one := accelerator_types().get(self.type)):
            near = choices(self.type, list(accelerator_types()))
            raise ValueError(f"accelerator.type is {self.type!r}, which is not known{near}")
        if one.kind == "gpu":
            if self.topology:
                raise ValueError(f"accelerator.topology is for TPUs and {self.type} is a GPU: remove it")
            if self.count not in one.counts:
                has = ", ".join(map(str, one.counts))
                raise ValueError(
                    f"accelerator.count is {self.count}, and a node has {has} {self.type}: take one of them"
                )
            return self
        slices = ", ".join(f"{topology} with {chips}" for topology, chips in one.topologies.items())
        if self.topology not in one.topologies:
            raise ValueError(
                f"accelerator.topology is {self.topology!r}, and the slices of {self.type} that one host has "
                f"are {slices} chips: a step is one pod, so take one of these"
            )
        if self.count != one.topologies[self.topology]:
            raise ValueError(
                f"accelerator.count is {self.count}, and a pod gets all chips of its host: take those of "
                f"{self.type}, {slices}"
            )
        return self


@cache
def accelerator_types() -> dict[str, AcceleratorType]:
    """Return the types that the shipped accelerators.yaml names."""
    found = parse(CATALOG.read_text(encoding="utf-8"), str(CATALOG)).value["accelerators"]
    return {name: AcceleratorType.model_validate(one) for name, one in found.items()}
