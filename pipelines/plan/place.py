"""Where the plan is for: how much memory training has there."""

import os

from components.artifacts import Record
from components.kubernetes.quantities import number
from pipelines.environment_settings import Environment
from pipelines.plan.hardware import Hardware
from pipelines.plan.memory import Fit, Memory

LIBRARIES = 0.6e9  # bytes of a process that has imported TensorFlow and does nothing yet


class Place(Record):
    """The memory that training has, in bytes, and what its process takes; None when nobody says."""

    name: str
    capacity: float | None
    libraries: float

    def fit(self, memory: Memory) -> Fit:
        """Say whether a training fits."""
        if self.capacity is None:
            return "unknown"
        return memory.fit(self.capacity - self.libraries)


def place(environment: Environment, hardware: Hardware) -> Place:
    """Return the place that an environment's step `train` has."""
    if environment.kind == "local":
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return Place(name="this machine's memory", capacity=float(pages), libraries=LIBRARIES)
    train = environment.resources("train")
    if train.accelerator:
        row = hardware.rows.get(train.accelerator.type)
        return Place(name=train.accelerator.type, capacity=row.memory if row else None, libraries=0.0)
    said = number(train.memory) if train.memory else None
    return Place(name="the pod's memory", capacity=said, libraries=LIBRARIES)
