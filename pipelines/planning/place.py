"""Where the plan is for: how much memory and disk training has there."""

import shutil
from pathlib import Path

from modelyard.components.artifacts import Record
from modelyard.components.kubernetes.quantities import number
from modelyard.components.memory import memory_here
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning.hardware import Hardware
from modelyard.pipelines.planning.memory import Fit, Memory

LIBRARIES = 0.6e9  # bytes of a process that has imported TensorFlow and does nothing yet


class Place(Record):
    """The memory that training has, in bytes, and what its process takes; None when nobody says.

    `host` is the memory of the pod around an accelerator, `disk` what is free where a run on this machine
    writes. What a step's `ephemeral_storage` bounds is /tmp, where no artifacts are.
    """

    name: str
    capacity: float | None
    libraries: float
    host: float | None = None
    disk: float | None = None

    def fit(self, memory: Memory) -> Fit:
        """Say whether a training fits."""
        if self.capacity is None:
            return "unknown"
        return memory.fit(self.capacity - self.libraries)


def place(environment: Environment, hardware: Hardware, home: Path) -> Place:
    """Return the place that an environment's step `train` has; runs of this machine are in `home`."""
    if environment.kind == "local":
        there = next(one for one in (home.absolute(), *home.absolute().parents) if one.exists())
        return Place(
            name="this machine's memory",
            capacity=float(memory_here()),
            libraries=LIBRARIES,
            disk=float(shutil.disk_usage(there).free),
        )
    train = environment.resources("train")
    said = number(train.memory) if train.memory else None
    if train.accelerator:
        row = hardware.rows.get(train.accelerator.type)
        memory = row.memory if row else None
        return Place(name=train.accelerator.type, capacity=memory, libraries=0.0, host=said)
    return Place(name="the pod's memory", capacity=said, libraries=LIBRARIES)
