"""Checks the section `gate` against the metrics of the problem: names, directions and ranges.

The functions raise ValueError with the key, for the validators of `Config`.
"""

from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from modelyard.components.evaluate.gate import Gate
from modelyard.components.problems import get_description
from modelyard.components.problems.base import Description
from modelyard.pipelines.config.validation import suggest

DIRECTIONS = {"minimum": "higher", "maximum": "lower"}
"""Whether higher or lower values of a metric are better, by the key of its threshold."""


class Limit(NamedTuple):
    """A threshold or margin of a metric; with `class_name`, of one class."""

    key: str
    metric: str
    class_name: str | None
    value: float

    @property
    def path(self) -> str:
        """The key in the configuration."""
        return ".".join(filter(None, ("gate", self.key, self.metric, self.class_name)))


def iterate_limits(gate: Gate) -> Iterator[Limit]:
    """Yield all thresholds and margins of a gate."""
    for key in ("minimum", "maximum", "margin"):
        for metric, limits in getattr(gate, key).items():
            for name, value in limits.items() if isinstance(limits, dict) else [(None, limits)]:
                yield Limit(key, metric, name, value)


def check_metrics(gate: Gate, problem: str) -> None:
    """Reject metrics that the problem lacks or cannot compare, and thresholds in the wrong direction."""
    description = get_description(problem)
    for metric in gate.margin:
        if metric not in description.comparison_metrics:
            raise ValueError(
                f"gate.margin.{metric}: for {problem}, {metric} is not compared with the champion"
                f"{suggest(metric, description.comparison_metrics)}"
            )
    for key in ("margin", "minimum", "maximum"):
        for metric, limits in getattr(gate, key).items():
            slices = description.slice_metrics if key != "maximum" else ()
            if metric in slices:
                continue
            if isinstance(limits, dict) and metric in description.metrics:
                raise ValueError(
                    f"gate.{key}.{metric} has a value per class, but {metric} is one number: set one number"
                )
            if key in DIRECTIONS:
                _check_direction(key, metric, problem, description)


def _check_direction(key: str, metric: str, problem: str, description: Description) -> None:
    """Reject a metric that the problem does not have, or whose threshold must be under the other key."""
    direction = description.metrics.get(metric)
    if direction is None:
        names = [name for name, better in description.metrics.items() if better == DIRECTIONS[key]]
        names += description.slice_metrics if key == "minimum" else ()
        raise ValueError(f"gate.{key}.{metric} is not a metric of {problem}{suggest(metric, names)}")
    if direction != DIRECTIONS[key]:
        other = next(name for name in DIRECTIONS if name != key)
        raise ValueError(
            f"gate.{key}.{metric} is not allowed, because {direction} is better: use gate.{other}.{metric}"
        )


def check_ranges(gate: Gate, problem: str) -> None:
    """Reject thresholds and margins outside the range of their metric."""
    for limit in iterate_limits(gate):
        low, high = get_description(problem).ranges[limit.metric]
        if limit.key == "margin":
            low, high = 0, high - low
        if not low <= limit.value <= high:
            bounds = [f"at least {low:g}"] * (low > -inf) + [f"at most {high:g}"] * (high < inf)
            raise ValueError(f"{limit.path} is {limit.value:g}, and must be {' and '.join(bounds)}")
