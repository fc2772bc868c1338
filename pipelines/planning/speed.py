"""How fast the machine is that a plan is for: what a probe said now or before, and what earlier runs say."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from modelyard.components.train.measured import Probed
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.accelerators import Accelerator
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning import residuals
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.quantity import Quantity
from modelyard.pipelines.planning.time import Duration, duration


class Speed(NamedTuple):
    """What is known of a configuration on a machine.

    `key` identifies the two. `time` is None without a probe, `probed_at` when an earlier one was, whose times
    are used. `absent` is the accelerator that the environment asks for where the probe found a processor.
    `correction` and `past` are those of residuals.py.
    """

    key: str
    machine: str
    absent: Accelerator | None
    time: Duration | None
    probed_at: str | None
    correction: Quantity | None
    past: Mapping[str, float]

    def elsewhere(self) -> "Speed":
        """Return what that tells of another machine: nothing."""
        return self._replace(time=None, probed_at=None, correction=None, past={})


def speed_of(
    config: Config, environment: Environment, data: Dataset, probed: Probed | None, wall: float, home: Path
) -> Speed:
    """Return what is known of a configuration where an environment trains it.

    Args:
        config: the configuration.
        environment: where it would run.
        data: the rows; an earlier probe of others says nothing.
        probed: what a probe found there now.
        wall: seconds of its whole process, or pod.
        home: where runs and plans are kept.
    """
    key, machine = residuals.key(config, environment), residuals.machine(environment)
    time, probed_at = _earlier(home, key, machine, data)
    if probed:
        rehearsed, pod = config.model.build is not None, environment.kind != "local"
        time, probed_at = duration(probed, wall, config.training, data, rehearsed, pod), None
    asked = environment.resources("train").accelerator
    absent = asked if probed and asked and not probed.device.startswith(asked.kind) else None
    if absent:  # accelerator_optional, on a node without it: this is the plan of its processor
        machine = f"a node without {absent.type}"
    return Speed(
        key=key,
        machine=machine,
        absent=absent,
        time=time,
        probed_at=probed_at,
        correction=residuals.correction(home, machine, key) if time else None,
        past=residuals.past_steps(home, key),
    )


def _earlier(home: Path, key: str, machine: str, data: Dataset) -> tuple[Duration | None, str | None]:
    """Return what an earlier probe of the same configuration and rows on this machine said, and when."""
    kept = residuals.planned(home, key)
    if kept and kept.parts and (kept.machine, kept.rows) == (machine, data.rows):
        return kept.parts, kept.created
    return None, None
