"""What the benchmarks share: interleaved rounds, medians, and how results are printed.

A result is one line of a table for people, and one JSON object a line for scripts.
"""

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
    """One measure beside its baseline; `ratio` is ours / baseline, `goal` what it should be."""

    measure: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    goal: str


def result(measure: str, ours: float, baseline: float, unit: str, goal: str) -> Result:
    """Return a result, rounded to what can be told apart."""
    ratio = ours / baseline if baseline else float("nan")
    return Result(measure, round(ours, 4), round(baseline, 4), unit, round(ratio, 3), goal)


def paired(measure: str, ours: Sequence[float], baseline: Sequence[float], unit: str, goal: str) -> Result:
    """Return the medians of rounds, and the median of the rounds' own ratios: a round has one speed."""
    ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, baseline, strict=True))
    medians = result(measure, statistics.median(ours), statistics.median(baseline), unit, goal)
    return replace(medians, ratio=round(ratio, 3))


def wall(command: Sequence[str | Path], **environment: str) -> float:
    """Return the seconds that a command takes; it must succeed."""
    started = time.perf_counter()
    subprocess.run(
        [str(part) for part in command],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    return time.perf_counter() - started


def finished(command: list[str | Path]) -> str:
    """Run a command and return its output."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def interleaved(rounds: int, contenders: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Return each contender's median over rounds in which they take turns, as the machine's speed drifts."""
    return {name: statistics.median(values) for name, values in turns(rounds, contenders).items()}


def turns(rounds: int, contenders: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Return what each contender gave in each round; see `interleaved`."""
    seen: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            seen[name].append(contender())
    return seen


def show(title: str, results: Sequence[Result]) -> None:
    """Print the table, then the lines for scripts."""
    table = Table(title=title)
    for column in ("measure", "ours", "baseline", "unit", "ratio", "goal"):
        table.add_column(column, justify="left" if column in ("measure", "unit", "goal") else "right")
    for row in results:
        table.add_row(
            row.measure, f"{row.ours:g}", f"{row.baseline:g}", row.unit, f"{row.ratio:.2f}", row.goal
        )
    Console(width=120).print(table)
    for row in results:
        print(json.dumps(asdict(row)))
