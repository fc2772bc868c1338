from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from modelyard.components.artifacts import Decision, Metric, Rule, Schema, Slice
from modelyard.components.report.page import ReportedMistake, render_report
from tests.versions import accuracy_metrics, data_statistics, training_history


def scored_class(name: str, examples: int, recall: float | None) -> Slice:
    """Return a class with this recall."""
    if recall is None:
        return Slice(name=name, examples=0, values={})
    metric = Metric(value=recall, low=recall, high=recall, direction="higher")
    return Slice(name=name, examples=examples, values=dict.fromkeys(("recall", "precision", "f1"), metric))


@pytest.fixture
def page() -> Callable[..., str]:
    """Return a function that renders a report of some classes; keywords change the metrics."""

    def render(
        classes: tuple[str, ...],
        metrics: dict[str, list[float]] | None = None,
        slices: tuple[Slice, ...] = (),
        mistakes: Sequence[ReportedMistake] = (),
        settings: dict[str, Any] | None = None,
        **changes: Any,
    ) -> str:
        size = len(classes)
        confusion = np.full((size, size), 1) + 50 * np.eye(size, dtype=int)
        scored = tuple(
            scored_class(name, 50 + size, (label + 1) / size) for label, name in enumerate(classes)
        )
        details = {"confusion": confusion.tolist()}
        evaluation = accuracy_metrics(0.9, 0.88, 0.92, details=details, slices=slices or scored).model_copy(
            update=changes
        )
        metrics = {"loss": [1.0, 0.5], "val_loss": [1.1, 0.7]} if metrics is None else metrics
        history = training_history(metrics=metrics, stopped_early=True, settings=settings or {})
        splits = {"train": 7, "test": 3}
        schema = Schema(
            shape=(8, 8, 1), dtype="uint8", problem="classification", names=classes, splits=splits
        )
        rule = Rule(rule="accuracy at least", value=0.9, limit=0.8125, passed=True)
        decision = Decision(
            decision="promote",
            reason="accuracy is <em>good</em>",
            champion=3,
            rules=(rule,),
            notes=("fewer than 10 test examples, too few to judge: a (3)",),
        )
        return render_report(
            "digits", evaluation, decision, history, schema, data_statistics(), "sha256:1", mistakes
        )

    return render
