"""GPUs and TPUs: what a step asks for, the labels, taints and resources by which it gets it, and prices.

The labels are those of GKE. Elsewhere, ask for `gpu` and write the cluster's own labels into `node_selector`.
"""

import math
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from modelyard.components.errors import ConfigError
from modelyard.components.settings import Settings
from modelyard.pipelines.config.problems import did_you_mean
from modelyard.pipelines.config.text import parse

ANY_GPU = "gpu"
SHIPPED = Path(__file__).parent / "accelerators.yaml"
DEAREST = 500.0  # USD per accelerator and hour; price lists have such numbers where they have no price


class Toleration(Settings):
    """A taint of nodes that a step may run on nevertheless, as Kubernetes writes it."""

    key: str = Field(description="The taint's key.")
    operator: Literal["Exists", "Equal"] = Field(default="Exists", description="Exists: whatever its value.")
    value: str | None = Field(default=None, description="The taint's value, for Equal.")
    effect: Literal["NoSchedule", "NoExecute", "PreferNoSchedule"] = Field(
        default="NoSchedule", description="The taint's effect."
    )


class Price(Settings):
    """USD per hour of `count` accelerators, with the machine around them or without; None where not known."""

    region: str
    scope: Literal["vm", "accelerator", "chip"]
    count: int = Field(default=1, ge=1)
    on_demand: float | None = None
    on_demand_counts: tuple[int, ...] = Field(default=(), strict=False)
    spot: float | None = None
    source: str

    def hourly(self, count: int, spot: bool) -> float | None:
        """Return the price of an hour of so many accelerators; None where there is none."""
        rate = self.spot if spot else self.on_demand
        if rate is None or (not spot and self.on_demand_counts and count not in self.on_demand_counts):
            return None
        return rate * (math.ceil(count / self.count) if self.scope == "vm" else count / self.count)

    @model_validator(mode="after")
    def _plausible(self) -> Self:
        """Refuse what lists that are read by programs have where a price is missing or of something else."""
        for name in ("on_demand", "spot"):
            value = getattr(self, name)
            if value is not None and not 0 < value / self.count < DEAREST:
                raise ValueError(
                    f"{name} is {value:g} for {self.count}, and an accelerator costs between 0 and "
                    f"{DEAREST:g} USD an hour"
                )
        if self.on_demand is not None and self.spot is not None and self.spot >= self.on_demand:
            raise ValueError(f"spot {self.spot:g} is not below on_demand {self.on_demand:g}")
        return self


class AcceleratorType(Settings):
    """What accelerators.yaml says about one type; `memory_gb` is that of one device."""

    kind: Literal["gpu", "tpu"]
    counts: tuple[int, ...] = Field(default=(), strict=False)
    topologies: dict[str, int] = Field(default_factory=dict)
    memory_gb: float | None = Field(default=None, ge=1, le=1000)
    price: Price | None = None

    @property
    def fewest(self) -> int:
        """Return the smallest number that one machine has."""
        return min(self.counts or self.topologies.values())


class Catalog(Settings):
    """A file of accelerators and their prices, and the date on which these were read."""

    read: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    accelerators: dict[str, AcceleratorType]


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
        return known()[self.type].kind

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
    def _exists(self) -> Self:
        """Refuse what no node has: the scheduler would wait for it for ever."""
        if not (one := known().get(self.type)):
            near = did_you_mean(self.type, list(known())) or f"; they are {', '.join(known())}"
            raise ValueError(f"accelerator.type is {self.type!r}, which is not known{near.rstrip('.?')}")
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
def known() -> dict[str, AcceleratorType]:
    """Return the types that the shipped accelerators.yaml names."""
    return load_catalog(SHIPPED).accelerators


def load_catalog(path: Path) -> Catalog:
    """Return what a file says about accelerators and prices.

    Raises:
        ConfigError: it cannot be read, is no such file, or a figure contradicts another.
    """
    try:
        found = parse(path.read_text(encoding="utf-8"), str(path)).value
        catalog = Catalog.model_validate(found)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Name a file like {SHIPPED}.") from error
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ConfigError(f"{path}: {said}. Compare it with {SHIPPED}.") from error
    if path != SHIPPED and (unknown := sorted(catalog.accelerators.keys() - known().keys())):
        near = did_you_mean(unknown[0], list(known())) or f"; they are {', '.join(known())}"
        raise ConfigError(f"{path}: no accelerator.type has the name {unknown[0]!r}{near.rstrip('.?')}.")
    return catalog
