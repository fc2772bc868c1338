"""Functions of all benchmarks: alternating rounds, medians, and results as a table and as JSON lines."""

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Result:
    """A measurement and its baseline; `ratio` is value / baseline, and `goal` says what is required."""

    measure: str
    value: float
    baseline: float
    unit: str
    ratio: float
    goal: str


def make_result(measure: str, value: float, baseline: float, unit: str, goal: str) -> Result:
    """Return a rounded result."""
    ratio = value / baseline if baseline else float("nan")
    return Result(measure, round(value, 4), round(baseline, 4), unit, round(ratio, 3), goal)


def make_paired_result(
    measure: str, value: Sequence[float], baseline: Sequence[float], unit: str, goal: str
) -> Result:
    """Return the medians of the rounds, and the median of their ratios."""
    ratio = statistics.median(measured / base for measured, base in zip(value, baseline, strict=True))
    medians = make_result(measure, statistics.median(value), statistics.median(baseline), unit, goal)
    return replace(medians, ratio=round(ratio, 3))


def time_command(command: Sequence[str | Path], **environment: str) -> float:
    """Return the seconds that a command takes; it must succeed."""
    started = time.perf_counter()
    subprocess.run(
        [str(word) for word in command],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    return time.perf_counter() - started


def run_command(command: list[str | Path]) -> str:
    """Run a command and return its output."""
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout


def measure_medians(rounds: int, contenders: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Return the median of each contender over alternating rounds, because the machine's speed drifts."""
    return {name: statistics.median(values) for name, values in run_interleaved(rounds, contenders).items()}


def run_interleaved(rounds: int, contenders: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Return the value of each contender in each round; see `measure_medians`."""
    measurements: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            measurements[name].append(contender())
    return measurements


def print_results(title: str, results: Sequence[Result]) -> None:
    """Print a table, then JSON lines."""
    table = Table(title=title)
    for column in ("measure", "modelyard", "baseline", "unit", "ratio", "goal"):
        table.add_column(column, justify="left" if column in ("measure", "unit", "goal") else "right")
    for result in results:
        numbers = f"{result.value:g}", f"{result.baseline:g}", result.unit, f"{result.ratio:.2f}"
        table.add_row(result.measure, *numbers, result.goal)
    Console(width=120).print(table)
    for result in results:
        print(json.dumps(asdict(result)))
