"""What came of a run, read from what evaluate and deploy wrote, wherever the pipeline ran."""

import shutil
from pathlib import Path
from typing import Any

from modelyard.components.artifacts import Decision, Metrics, Outcome, read
from modelyard.pipelines.runners.runs import MetricsSummary


def scores(evaluation: Path, outcome: Outcome | None, folder: Path) -> dict[str, Any]:
    """Return the part of a run's summary that says what was decided, and put the report into its folder.

    Args:
        evaluation: evaluate's folder; the report is beside it.
        outcome: deploy's last word, if it came to that.
        folder: the run's.
    """
    decision = read(evaluation / "decision.json", Decision)
    metrics = read(evaluation / "metrics.json", Metrics)
    return {
        "version": outcome.version if outcome else None,
        "decision": outcome.decision if outcome else decision.decision,
        "reason": outcome.reason if outcome else decision.reason,
        "metrics": MetricsSummary(
            accuracy=metrics.accuracy.value,
            accuracy_interval=(metrics.accuracy.low, metrics.accuracy.high),
            rows=metrics.rows,
            gain=metrics.gain,
        ),
        "report": str(shutil.copyfile(evaluation.parent / "report", folder / "report.html")),
    }
