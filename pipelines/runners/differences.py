"""Compare two configurations or two runs."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from modelyard.components.artifacts import Record
from modelyard.pipelines.runners.base import Run, RunInfo, RunSummary, read_summary


class Change(Record):
    """A key with its value before and after; None stands for no value."""

    key: str
    before: Any = None
    after: Any = None

    def __str__(self) -> str:
        values = ("none" if one is None else one for one in (self.before, self.after))
        before, after = (
            one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in values
        )
        return f"{self.key}: {before} -> {after}"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return the keys with different values, sorted."""
    return tuple(
        Change(key=key, before=before.get(key), after=after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    )


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested sections as one dict with dotted keys."""
    return dict(_leaves(value, prefix))


def _leaves(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, inside in value.items():
        if isinstance(inside, Mapping) and inside:
            yield from _leaves(inside, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inside


class Comparison(Record):
    """Two runs: their results, their metrics, and the differences of their configurations."""

    runs: tuple[RunInfo, RunInfo]
    results: tuple[Change, ...]
    metrics: tuple[Change, ...]
    differences: tuple[Change, ...]


def compare_runs(first: Run, second: Run) -> Comparison:
    """Return the comparison of two runs; `results` and `metrics` include equal values.

    Raises:
        ModelyardError: the results of one cannot be read.
    """
    infos = first.info(), second.info()
    return Comparison(
        runs=infos,
        results=_side_by_side(*map(_results, infos)),
        metrics=_side_by_side(_metrics(load_summary(first)), _metrics(load_summary(second))),
        differences=differences(flatten(first.config()), flatten(second.config())),
    )


def _side_by_side(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return all keys with both values, in their order."""
    keys = [*before, *(key for key in after if key not in before)]
    return tuple(Change(key=key, before=before.get(key), after=after.get(key)) for key in keys)


def load_summary(run: Run) -> RunSummary | None:
    """Return the result of a run that succeeded or failed; otherwise None."""
    state, known = run.info().state, read_summary(run.folder)
    if known and known.state == state:  # otherwise it was retried later
        return known
    return run.result() if state in ("succeeded", "failed") else None


def _results(info: RunInfo) -> dict[str, Any]:
    shown = ("model", "started", "seconds", "data", "state", "decision", "version")
    return {key: getattr(info, key) for key in shown}


def _metrics(summary: RunSummary | None) -> dict[str, float]:
    values = summary.evaluation.values if summary and summary.evaluation else {}
    return {name: metric.value for name, metric in values.items()}
