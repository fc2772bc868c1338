"""Two configurations, or two runs, side by side: what differs."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from modelyard.components.artifacts import Record
from modelyard.pipelines.runners.base import Run, RunInfo, RunSummary, read_summary


class Change(Record):
    """A key whose value is not the same on both sides; None where there is no value to show."""

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
    """Return the keys with different values, in the order of the alphabet."""
    return tuple(
        Change(key=key, before=before.get(key), after=after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    )


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the dotted keys of nested sections with their values."""
    return dict(_leaves(value, prefix))


def _leaves(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, inside in value.items():
        if isinstance(inside, Mapping) and inside:
            yield from _leaves(inside, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inside


class Comparison(Record):
    """Two runs side by side: how they ended, their metrics, and what differs in their configurations."""

    runs: tuple[RunInfo, RunInfo]
    results: tuple[Change, ...]
    metrics: tuple[Change, ...]
    differences: tuple[Change, ...]


def compare_runs(first: Run, second: Run) -> Comparison:
    """Return two runs side by side; `results` and `metrics` also have what is the same.

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
    """Return all keys, in their order."""
    keys = [*before, *(key for key in after if key not in before)]
    return tuple(Change(key=key, before=before.get(key), after=after.get(key)) for key in keys)


def load_summary(run: Run) -> RunSummary | None:
    """Return the result of a run that succeeded or failed; None of another."""
    state, known = run.info().state, read_summary(run.folder)
    if known and known.state == state:  # else it was tried again since it was followed
        return known
    return run.result() if state in ("succeeded", "failed") else None


def _results(info: RunInfo) -> dict[str, Any]:
    shown = ("model", "started", "seconds", "data", "state", "decision", "version")
    return {key: getattr(info, key) for key in shown}


def _metrics(summary: RunSummary | None) -> dict[str, float]:
    values = summary.evaluation.values if summary and summary.evaluation else {}
    return {name: metric.value for name, metric in values.items()}
