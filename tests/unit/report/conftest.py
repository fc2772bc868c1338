from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from modelyard.components.artifacts import Decision, History, Repeats, Schema, Statistics
from modelyard.components.problems.classification import ClassMetrics, Details
from modelyard.components.report.page import render
from tests.published import accurate


@pytest.fixture
def page() -> Callable[..., str]:
    """Render a report of some classes; keywords change the metrics."""

    def build(
        classes: tuple[str, ...],
        metrics: dict[str, list[float]] | None = None,
        per_class: tuple[ClassMetrics, ...] = (),
        **changes: Any,
    ) -> str:
        size = len(classes)
        confusion = np.full((size, size), 1) + 50 * np.eye(size, dtype=int)
        scored = tuple(
            ClassMetrics(name=name, rows=50 + size, precision=0.9, recall=0.9, f1=(label + 1) / size)
            for label, name in enumerate(classes)
        )
        details = Details(per_class=per_class or scored, confusion=tuple(map(tuple, confusion.tolist())))
        found = accurate(0.9, 0.88, 0.92, details=details.model_dump(mode="json")).model_copy(update=changes)
        history = History(
            metrics={"loss": [1.0, 0.5], "val_loss": [1.1, 0.7]} if metrics is None else metrics,
            epochs=2,
            stopped_early=True,
            seconds=1.5,
            samples_per_second=1234.0,
            parameters=5678,
            packages={"keras": "3.15.0"},
        )
        splits = {"train": 7, "test": 3}
        schema = Schema(
            shape=(8, 8, 1), dtype="uint8", problem="classification", names=classes, splits=splits
        )
        facts: dict[str, Any] = {
            "duplicates": Repeats(count=4),
            "conflicting_labels": Repeats(count=0),
            "leakage": Repeats(count=2),
            "scaling": "values are taken as they are",
            "mean": 4.9,
            "minimum": 0.0,
            "maximum": 16.0,
        }
        decision = Decision(decision="promote", reason="accuracy is <em>good</em>", champion=3)
        return render("digits", found, decision, history, schema, Statistics(targets={}, **facts))

    return build
