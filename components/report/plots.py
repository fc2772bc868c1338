"""The numbers behind the report's pictures, in the units of their SVG view boxes."""

from dataclasses import dataclass
from typing import Any

from modelyard.components.artifacts import ClassMetrics, Interval, Metrics

WIDTH, HEIGHT = 460.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 12.0, 26.0
MATRIX_CLASSES = 30


@dataclass(frozen=True)
class Line:
    """A polyline; `points` as SVG wants them, `last` where its end is marked."""

    name: str
    points: str
    last: tuple[float, float]
    value: float


@dataclass(frozen=True)
class Curves:
    """A plot of one metric over the epochs; ticks are (position, label)."""

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def curves(title: str, metric: str, metrics: dict[str, list[float]]) -> Curves | None:
    """Return the curves of a metric in training and validation, or None when there are none."""
    named = {"training": metrics.get(metric), "validation": metrics.get(f"val_{metric}")}
    series = {name: values for name, values in named.items() if values}
    if not series:
        return None
    values = [value for one in series.values() for value in one]
    low, high = min(values), max(values)
    high = high if high > low else low + 1e-6
    epochs = max(len(one) for one in series.values())

    def x(epoch: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (epoch / max(1, epochs - 1)), 1)

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)

    def line(name: str, one: list[float]) -> Line:
        places = [(x(epoch), y(value)) for epoch, value in enumerate(one)]
        return Line(name, " ".join(f"{a},{b}" for a, b in places), places[-1], one[-1])

    shown = sorted({0, epochs - 1, *range(0, epochs, max(1, -(-epochs // 8)))})
    levels = [low + (high - low) * part / 4 for part in range(5)]
    return Curves(
        title=title,
        lines=tuple(line(name, one) for name, one in series.items()),
        x_ticks=tuple((x(epoch), str(epoch + 1)) for epoch in shown),
        y_ticks=tuple((y(level), f"{level:.3g}") for level in levels),
    )


def bars(metrics: Metrics) -> list[dict[str, Any]]:
    """Return the accuracies with their intervals on one axis, as per cent of its width."""
    named: dict[str, Interval | None] = {
        "candidate": metrics.accuracy,
        "champion": metrics.champion_accuracy,
    }
    found = {name: interval for name, interval in named.items() if interval}
    low = min(interval.low for interval in found.values())
    high = max(interval.high for interval in found.values())
    margin = max(0.005, (high - low) * 0.25)
    start, end = max(0.0, low - margin), min(1.0, high + margin)

    def place(value: float) -> float:
        return round(100 * (value - start) / (end - start), 2)

    return [
        {
            "name": name,
            "interval": one,
            "low": place(one.low),
            "width": round(place(one.high) - place(one.low), 2),
            "value": place(one.value),
        }
        for name, one in found.items()
    ]


def cells(metrics: Metrics) -> list[list[dict[str, Any]]] | None:
    """Return the confusion matrix with each row's shares, or None when there are too many classes."""
    if len(metrics.confusion) > MATRIX_CLASSES:
        return None
    return [
        [
            {"count": count, "share": round(count / max(1, sum(row)), 3), "right": true == predicted}
            for predicted, count in enumerate(row)
        ]
        for true, row in enumerate(metrics.confusion)
    ]


def confusions(metrics: Metrics, most: int = 10) -> list[tuple[str, str, int]]:
    """Return the most frequent confusions: true class, predicted class, rows."""
    names = [one.name for one in metrics.per_class]
    found = [
        (names[true], names[predicted], count)
        for true, row in enumerate(metrics.confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    return sorted(found, key=lambda one: -one[2])[:most]


def ranked(metrics: Metrics) -> list[ClassMetrics]:
    """Return the classes, worst F1 first, those without one last."""
    return sorted(metrics.per_class, key=lambda one: (one.f1 is None, one.f1 or 0.0))
