"""The device that trains, and the catalog of accelerators with their memory and prices."""

import math
import shutil
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from modelyard.components.artifacts import Record, describe_validation
from modelyard.components.errors import ConfigError
from modelyard.components.kubernetes.quantities import parse_quantity
from modelyard.components.resources import read_memory_limit
from modelyard.components.settings import Settings
from modelyard.pipelines.config.text import parse_file
from modelyard.pipelines.config.validation import suggest
from modelyard.pipelines.environments.accelerators import (
    CATALOG,
    Accelerator,
    AcceleratorType,
    accelerator_types,
)
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning.plan import HOUR, AcceleratorOption, Memory, TrainingCost, TrainTime
from modelyard.pipelines.runners.run_folder import find_nearest_existing

MAX_PRICE = 500.0  # USD per accelerator and hour; price lists use greater numbers for missing prices
TENSORFLOW_BYTES = 0.6e9  # memory of a process that has imported TensorFlow
NEEDS_JAX, WITHOUT_MACHINE = "JAX only", "GPU price only"


class Price(Settings):
    """USD per hour of `count` accelerators; None if unknown.

    `scope` is what the price includes: `vm` the machine with its accelerators, `chip` a share of the machine,
    `accelerator` no part of the machine. `on_demand_counts` are the counts that are available on demand; all
    if empty.
    """

    region: str
    scope: Literal["vm", "accelerator", "chip"]
    count: int = Field(default=1, ge=1)
    on_demand: float | None = None
    on_demand_counts: tuple[int, ...] = Field(default=(), strict=False)
    spot: float | None = None
    source: str

    def per_hour(self, count: int, spot: bool) -> float | None:
        """Return the price per hour of `count` accelerators; None if unknown."""
        rate = self.spot if spot else self.on_demand
        if rate is None or (not spot and self.on_demand_counts and count not in self.on_demand_counts):
            return None
        return rate * (math.ceil(count / self.count) if self.scope == "vm" else count / self.count)

    @model_validator(mode="after")
    def _check_plausible(self) -> Self:
        """Reject the numbers that price lists use for missing prices."""
        for name in ("on_demand", "spot"):
            value = getattr(self, name)
            if value is not None and not 0 < value / self.count < MAX_PRICE:
                raise ValueError(
                    f"{name} is {value:g} for {self.count} accelerators; the price of one is between 0 and "
                    f"{MAX_PRICE:g} USD per hour"
                )
        if self.on_demand is not None and self.spot is not None and self.spot >= self.on_demand:
            raise ValueError(f"spot {self.spot:g} is not below on_demand {self.on_demand:g}")
        return self


class CatalogEntry(AcceleratorType, extra="forbid"):
    """An accelerator type with the memory of one device and its price."""

    memory_gb: float | None = Field(default=None, ge=1, le=1000)
    price: Price | None = None


class Catalog(Settings):
    """A file of accelerators with prices; `read` is the date of the prices."""

    read: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    accelerators: dict[str, CatalogEntry]


class Device(Record):
    """The device of the step `train`.

    `memory` is the memory for the model; None if there is no limit. `disk` is the free disk space for a run
    on this machine.
    """

    name: str
    memory: float | None
    accelerator: Accelerator | None = None
    disk: float | None = None


def load_catalog(path: Path) -> Catalog:
    """Read a catalog.

    Raises:
        ConfigError: the file cannot be read, is not a catalog, or has an implausible price.
    """
    values = parse_file(path, "price file", f"Use a file like {CATALOG}.").value
    try:
        catalog = Catalog.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            f"{path} is not a price file: {describe_validation(error)}. Compare it with {CATALOG}."
        ) from error
    if path != CATALOG and (unknown := sorted(catalog.accelerators.keys() - accelerator_types().keys())):
        hint = suggest(unknown[0], list(accelerator_types()))
        raise ConfigError(f"{path}: {unknown[0]!r} is not an accelerator type{hint}")
    return catalog


def find_device(environment: Environment, catalog: Catalog, home: Path) -> Device:
    """Return the device of the environment's step `train`; runs on this machine write to `home`."""
    if not environment.on_cluster:
        disk = float(shutil.disk_usage(find_nearest_existing(home)).free)
        return Device(name="this machine", memory=read_memory_limit() - TENSORFLOW_BYTES, disk=disk)
    train = environment.resources("train")
    if train.accelerator:
        entry = catalog.accelerators.get(train.accelerator.type)
        memory = entry.memory_gb * 1e9 if entry and entry.memory_gb else None
        return Device(name=train.accelerator.type, memory=memory, accelerator=train.accelerator)
    limit = parse_quantity(train.memory) - TENSORFLOW_BYTES if train.memory else None
    return Device(name="the pod", memory=limit)


def list_options(catalog: Catalog, memory: Memory, backend: str) -> tuple[AcceleratorOption, ...]:
    """Return the accelerators of a catalog, sorted by fit, by whether they need JAX, and by price."""

    def rank(option: AcceleratorOption) -> tuple[bool, bool, float]:
        price = option.on_demand or option.spot or math.inf
        return (option.fit != "fits", NEEDS_JAX in option.note, price)

    options = [
        _create_option(name, entry, entry.memory_gb * 1e9, memory, backend)
        for name, entry in catalog.accelerators.items()
        if entry.memory_gb
    ]
    return tuple(sorted(options, key=rank))


def estimate_cost(
    time: TrainTime | None, accelerator: Accelerator | None, spot: bool, catalog: Catalog, price: float | None
) -> TrainingCost | None:
    """Return the cost of training: by `price` in USD per hour (--price), otherwise by the catalog."""
    total = time.total if time else None
    if price is not None:
        return TrainingCost(per_hour=price, train=total and total.scale(price / HOUR), note="--price")
    entry = catalog.accelerators.get(accelerator.type) if accelerator else None
    if accelerator is None or entry is None or entry.price is None:
        return None
    per_hour = entry.price.per_hour(accelerator.count, spot)
    if per_hour is None:
        return None
    without_machine = entry.price.scope == "accelerator"
    return TrainingCost(
        per_hour=per_hour,
        train=total and total.scale(per_hour / HOUR, bounded=not without_machine),
        note=f"{accelerator.type} x{accelerator.count}{' on Spot' if spot else ''}"
        f"{' without the machine' if without_machine else ''}, {entry.price.region}, {entry.price.source}, "
        f"read {catalog.read}",
    )


def _create_option(
    name: str, entry: CatalogEntry, capacity: float, memory: Memory, backend: str
) -> AcceleratorOption:
    count = accelerator_types()[name].min_count
    notes = [NEEDS_JAX] if entry.kind == "tpu" and backend == "tensorflow" else []
    if entry.price and entry.price.scope == "accelerator":
        notes.append(WITHOUT_MACHINE)
    return AcceleratorOption(
        accelerator=name,
        count=count,
        memory=capacity,
        fit=memory.fit(capacity),
        largest_batch=memory.largest_batch(capacity),
        on_demand=entry.price.per_hour(count, spot=False) if entry.price else None,
        spot=entry.price.per_hour(count, spot=True) if entry.price else None,
        note="; ".join(notes),
    )
