"""The device that trains, what fits into it, and the catalog of accelerators with their prices."""

import math
import shutil
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from modelyard.components.artifacts import Record
from modelyard.components.errors import ConfigError
from modelyard.components.kubernetes.quantities import parse_quantity
from modelyard.components.resources import memory_limit
from modelyard.components.settings import Settings
from modelyard.pipelines.config.errors import choices
from modelyard.pipelines.config.text import parse
from modelyard.pipelines.environments.accelerators import (
    CATALOG,
    Accelerator,
    AcceleratorType,
    accelerator_types,
)
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning.plan import Estimate, Memory, Money, Option, TrainTime

MAXIMUM_PRICE = 500.0  # USD per accelerator and hour; price lists have such numbers where they have no price
LIBRARY_BYTES = 0.6e9  # bytes of a process that has imported TensorFlow
NEEDS_JAX, ACCELERATOR_ONLY = "JAX only", "GPU alone"


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
            if value is not None and not 0 < value / self.count < MAXIMUM_PRICE:
                raise ValueError(
                    f"{name} is {value:g} for {self.count}, and an accelerator costs between 0 and "
                    f"{MAXIMUM_PRICE:g} USD an hour"
                )
        if self.on_demand is not None and self.spot is not None and self.spot >= self.on_demand:
            raise ValueError(f"spot {self.spot:g} is not below on_demand {self.on_demand:g}")
        return self


class CatalogEntry(AcceleratorType, extra="forbid"):
    """What a catalog says about one type; `memory_gb` is that of one device."""

    memory_gb: float | None = Field(default=None, ge=1, le=1000)
    price: Price | None = None


class Catalog(Settings):
    """A file of accelerators and their prices, and the date on which these were read."""

    read: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    accelerators: dict[str, CatalogEntry]


class Device(Record):
    """Where the step `train` runs; `memory` is what the model may use, None where nothing bounds it.

    `disk` is what is free where a run on this machine writes.
    """

    name: str
    memory: float | None
    accelerator: Accelerator | None = None
    disk: float | None = None


def load_catalog(path: Path) -> Catalog:
    """Return what a file says about accelerators and prices.

    Raises:
        ConfigError: it cannot be read, is no such file, or a figure contradicts another.
    """
    try:
        found = parse(path.read_text(encoding="utf-8"), str(path)).value
        catalog = Catalog.model_validate(found)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Name a file like {CATALOG}.") from error
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ConfigError(f"{path}: {said}. Compare it with {CATALOG}.") from error
    if path != CATALOG and (unknown := sorted(catalog.accelerators.keys() - accelerator_types().keys())):
        near = choices(unknown[0], list(accelerator_types()))
        raise ConfigError(f"{path}: {unknown[0]!r} is not the name of an accelerator.type{near}")
    return catalog


def find_device(environment: Environment, catalog: Catalog, home: Path) -> Device:
    """Return the device of an environment's step `train`; runs on this machine write into `home`."""
    if not environment.on_cluster:
        place = next(one for one in (home.absolute(), *home.absolute().parents) if one.exists())
        return Device(
            name="this machine",
            memory=memory_limit() - LIBRARY_BYTES,
            disk=float(shutil.disk_usage(place).free),
        )
    train = environment.resources("train")
    if train.accelerator:
        kind = catalog.accelerators.get(train.accelerator.type)
        memory = kind.memory_gb * 1e9 if kind and kind.memory_gb else None
        return Device(name=train.accelerator.type, memory=memory, accelerator=train.accelerator)
    return Device(
        name="the pod", memory=parse_quantity(train.memory) - LIBRARY_BYTES if train.memory else None
    )


def options(catalog: Catalog, memory: Memory, backend: str) -> tuple[Option, ...]:
    """Return the accelerators of a catalog: those that the model fits into first, the cheapest first."""
    found = [
        _option(name, kind, kind.memory_gb * 1e9, memory, backend)
        for name, kind in catalog.accelerators.items()
        if kind.memory_gb
    ]
    dear = float("inf")
    return tuple(
        sorted(
            found,
            key=lambda one: (one.fit != "fits", NEEDS_JAX in one.note, one.on_demand or one.spot or dear),
        )
    )


def estimate_cost(
    time: TrainTime | None, accelerator: Accelerator | None, spot: bool, catalog: Catalog, given: float | None
) -> Money | None:
    """Return what training costs: by the price that is given (--price), else by the catalog's."""
    total = time.total if time else None
    if given is not None:
        cost = total.scaled(given / 3600) if total else None
        return Money(hour=given, train=cost, note="--price")
    kind = catalog.accelerators.get(accelerator.type) if accelerator else None
    if accelerator is None or kind is None or kind.price is None:
        return None
    hour = kind.price.hourly(accelerator.count, spot)
    if hour is None:
        return None
    alone = kind.price.scope == "accelerator"
    return Money(
        hour=hour,
        train=_cost(total, hour, not alone),
        note=f"{accelerator.type} x{accelerator.count}{' on Spot' if spot else ''}"
        f"{' without its machine' if alone else ''}, {kind.price.region}, {kind.price.source}, "
        f"read {catalog.read}",
    )


def _option(name: str, kind: CatalogEntry, capacity: float, memory: Memory, backend: str) -> Option:
    count = accelerator_types()[name].min_count
    notes = [NEEDS_JAX] if kind.kind == "tpu" and backend == "tensorflow" else []
    if kind.price and kind.price.scope == "accelerator":
        notes.append(ACCELERATOR_ONLY)
    return Option(
        accelerator=name,
        count=count,
        memory=capacity,
        fit=memory.fit(capacity),
        largest_batch=memory.largest_batch(capacity),
        on_demand=kind.price.hourly(count, spot=False) if kind.price else None,
        spot=kind.price.hourly(count, spot=True) if kind.price else None,
        note="; ".join(notes),
    )


def _cost(total: Estimate | None, hour: float, bounded: bool) -> Estimate | None:
    return total.scaled(hour / 3600, bounded) if total else None
