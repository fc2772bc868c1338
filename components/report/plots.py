"""The data of the report's plots, in the units of their SVG view boxes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.components.artifacts import Metric

WIDTH, HEIGHT = 380.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 12.0, 10.0, 24.0
MAX_POINTS = 500  # per curve


@dataclass(frozen=True)
class Line:
    """A polyline: its points as an SVG attribute, and the position and value of the last one."""

    name: str
    points: str
    last: tuple[float, float]
    value: float


@dataclass(frozen=True)
class Curves:
    """A plot of one metric over the epochs. A tick is (position, label)."""

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def build_curves(title: str, metric: str, metrics: dict[str, list[float]]) -> Curves:
    """Return the curves of a metric in training and validation."""
    metrics_by_name = {"training": metrics.get(metric), "validation": metrics.get(f"val_{metric}")}
    curves = {name: values for name, values in metrics_by_name.items() if values}
    low, high = _find_range([value for values in curves.values() for value in values])
    epochs = max(map(len, curves.values()))
    scale_x, scale_y = _horizontal_scale(0, max(1, epochs - 1)), _vertical_scale(low, high)

    def build_line(name: str, values: list[float]) -> Line:
        interval = math.ceil(len(values) / MAX_POINTS)
        drawn_epochs = sorted({*range(0, len(values), interval), len(values) - 1})
        positions = [(scale_x(epoch), scale_y(values[epoch])) for epoch in drawn_epochs]
        return Line(name, " ".join(f"{x},{y}" for x, y in positions), positions[-1], values[-1])

    tick_interval = math.ceil(epochs / 8)
    tick_epochs = [*range(0, epochs - tick_interval // 2 - 1, tick_interval), epochs - 1]
    return Curves(
        title=title,
        lines=tuple(build_line(name, values) for name, values in curves.items()),
        x_ticks=tuple((scale_x(epoch), str(epoch + 1)) for epoch in tick_epochs),
        y_ticks=tuple((scale_y(tick), f"{tick:.5g}") for tick in _choose_ticks(low, high)),
    )


@dataclass(frozen=True)
class Scatter:
    """A plot of points with a line (x1, y1, x2, y2). A tick is (position, label)."""

    points: tuple[tuple[float, float], ...]
    line: tuple[float, float, float, float]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def build_scatter(
    points: Sequence[tuple[float, float]], diagonal: bool = False, level: float | None = None
) -> Scatter:
    """Return a plot of at least one point (x, y), with the line y = x or y = `level`.

    With `diagonal`, both axes have the same range.
    """
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if diagonal:
        xs = ys = [*xs, *ys]
    elif level is not None:
        ys = [*ys, level]
    (left, right), (low, high) = _find_range(xs), _find_range(ys)
    scale_x, scale_y = _horizontal_scale(left, right), _vertical_scale(low, high)
    start, end = (left, right) if diagonal or level is None else (level, level)
    return Scatter(
        points=tuple((scale_x(x), scale_y(y)) for x, y in points),
        line=(scale_x(left), scale_y(start), scale_x(right), scale_y(end)),
        x_ticks=tuple((scale_x(tick), f"{tick:.5g}") for tick in _choose_ticks(left, right)),
        y_ticks=tuple((scale_y(tick), f"{tick:.5g}") for tick in _choose_ticks(low, high)),
    )


def build_bars(candidate: Metric, champion: Metric | None) -> list[dict[str, Any]]:
    """Return a metric with its interval, of each model, on one axis and in percent of the axis width."""
    metrics_by_name = {"candidate": candidate, "champion": champion}
    present = {name: metric for name, metric in metrics_by_name.items() if metric}
    low = min(metric.low for metric in present.values())
    high = max(metric.high for metric in present.values())
    margin = (high - low) * 0.25 or 0.005
    start, end = low - margin, high + margin

    def percent(value: float) -> float:
        return round(100 * (value - start) / (end - start), 2)

    return [
        {
            "name": name,
            "interval": metric,
            "low": percent(metric.low),
            "width": round(percent(metric.high) - percent(metric.low), 2),
            "value": percent(metric.value),
        }
        for name, metric in present.items()
    ]


def _horizontal_scale(low: float, high: float) -> Callable[[float], float]:
    """Return a function from a value to its x; `low` is at the left, `high` at the right."""
    return lambda value: round(LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low), 1)


def _vertical_scale(low: float, high: float) -> Callable[[float], float]:
    """Return a function from a value to its y; `low` is at the bottom, `high` at the top."""
    return lambda value: round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)


def _find_range(values: Sequence[float]) -> tuple[float, float]:
    """Return minimum and maximum, or a wider range if they are almost equal."""
    low, high = min(values), max(values)
    minimum_span = 1e-3 * max(abs(low), abs(high)) or 1.0
    return (low, high) if high - low > minimum_span else (low - minimum_span, high + minimum_span)


def _choose_ticks(low: float, high: float) -> list[float]:
    """Return round numbers from `low` to `high`, usually three to six."""
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    steps = [power * factor for factor in (1, 2, 2.5, 5, 10)]
    step = min(steps, key=lambda step: abs(step - (high - low) / 4))
    first, last = math.ceil(low / step), math.floor(high / step)
    return [number * step for number in range(first, last + 1)]
