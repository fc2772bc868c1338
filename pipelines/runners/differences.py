"""Compares two configurations or two runs."""

import json
from collections.abc import Mapping
from typing import Any

from modelyard.components.artifacts import Record
from modelyard.pipelines.runners.base import Run, RunInfo, RunSummary
from modelyard.pipelines.runners.results import load_summary


class Change(Record):
    """A key with its value before and after; None if it has no value."""

    key: str
    before: Any = None
    after: Any = None

    def __str__(self) -> str:
        return f"{self.key}: {_format(self.before)} -> {_format(self.after)}"


class Comparison(Record):
    """Two runs: their results, their metrics, and the differences of their configurations."""

    runs: tuple[RunInfo, RunInfo]
    results: tuple[Change, ...]
    metrics: tuple[Change, ...]
    differences: tuple[Change, ...]


def compare_runs(first: Run, second: Run) -> Comparison:
    """Return the comparison of two runs; `results` and `metrics` include equal values.

    Raises:
        ModelyardError: the results of a run cannot be read.
    """
    infos = first.info(), second.info()
    return Comparison(
        runs=infos,
        results=_pair_values(*map(_get_results, infos)),
        metrics=_pair_values(_get_metrics(load_summary(first)), _get_metrics(load_summary(second))),
        differences=find_differences(flatten(first.config()), flatten(second.config())),
    )


def find_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return the keys with different values, sorted."""
    return tuple(
        Change(key=key, before=before.get(key), after=after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    )


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested sections as one dict with dotted keys."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            flat |= flatten(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def _pair_values(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return all keys with both values, in their order."""
    keys = [*before, *(key for key in after if key not in before)]
    return tuple(Change(key=key, before=before.get(key), after=after.get(key)) for key in keys)


def _get_results(info: RunInfo) -> dict[str, Any]:
    keys = ("model", "started", "seconds", "data", "state", "decision", "version")
    return {key: getattr(info, key) for key in keys}


def _get_metrics(summary: RunSummary | None) -> dict[str, float]:
    values = summary.evaluation.values if summary and summary.evaluation else {}
    return {name: metric.value for name, metric in values.items()}


def _format(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
