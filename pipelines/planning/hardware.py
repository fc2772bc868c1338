"""The device that trains, what fits into it, and other accelerators with what an hour of them costs."""

import os
import shutil
from pathlib import Path

from modelyard.components.artifacts import Record
from modelyard.components.kubernetes.quantities import number
from modelyard.pipelines.environments.accelerators import Accelerator, AcceleratorType, Catalog, known
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning.plan import Estimate, Memory, Money, Option, TrainTime

LIBRARIES = 0.6e9  # bytes of a process that has imported TensorFlow
NEEDS_JAX, ALONE = "JAX only", "GPU alone"


class Device(Record):
    """Where the step `train` runs; `memory` is what the model may use, None where nothing bounds it.

    `disk` is what is free where a run on this machine writes.
    """

    name: str
    memory: float | None
    accelerator: Accelerator | None = None
    disk: float | None = None


def device_of(environment: Environment, catalog: Catalog, home: Path) -> Device:
    """Return the device of an environment's step `train`; runs on this machine write into `home`."""
    if environment.kind == "local":
        place = next(one for one in (home.absolute(), *home.absolute().parents) if one.exists())
        return Device(
            name="this machine", memory=memory_here() - LIBRARIES, disk=float(shutil.disk_usage(place).free)
        )
    train = environment.resources("train")
    if train.accelerator:
        kind = catalog.accelerators.get(train.accelerator.type)
        memory = kind.memory_gb * 1e9 if kind and kind.memory_gb else None
        return Device(name=train.accelerator.type, memory=memory, accelerator=train.accelerator)
    return Device(name="the pod", memory=number(train.memory) - LIBRARIES if train.memory else None)


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


def money_of(
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


def memory_here(groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the memory of this machine in bytes, or the smallest limit of the control groups around it.

    Args:
        groups: the file that names the control groups of this process; only on Linux.
        mount: where they are mounted; inside a container, its own group may be the root.
    """
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for line in groups.read_text().splitlines() if groups.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            found += _limits(mount, path, "memory.max")
        elif "memory" in controllers.split(","):
            found += _limits(mount / "memory", path, "memory.limit_in_bytes")
    return min(found)


def _limits(root: Path, path: str, name: str) -> list[int]:
    """Return the limits of a control group and of those around it; "max" is none."""
    group = root / path.lstrip("/")
    files = [one / name for one in (group, *group.parents) if one.is_relative_to(root)]
    texts = [file.read_text().strip() for file in files if file.is_file()]
    return [int(text) for text in texts if text.isdigit()]


def _option(name: str, kind: AcceleratorType, capacity: float, memory: Memory, backend: str) -> Option:
    count = known()[name].fewest
    notes = [NEEDS_JAX] if kind.kind == "tpu" and backend == "tensorflow" else []
    if kind.price and kind.price.scope == "accelerator":
        notes.append(ALONE)
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
