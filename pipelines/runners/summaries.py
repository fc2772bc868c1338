"""Builds the fields of a run's summary from the results of its steps, and loads summaries."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelyard.components.artifacts import Decision, Metrics, Outcome, Prediction
from modelyard.components.errors import DeployError
from modelyard.pipelines.runners.base import EvaluationSummary, Run, RunFailure, RunSummary, read_summary


def load_summary(run: Run) -> RunSummary | None:
    """Return the result of a run that succeeded or failed; otherwise None."""
    state, summary = run.info().state, read_summary(run.folder)
    if summary and summary.state == state:  # otherwise the run was retried after the summary was written
        return summary
    return run.result() if state in ("succeeded", "failed") else None


def summarize_evaluation(
    decision: Decision, metrics: Metrics, report: Path, outcome: Outcome | None, folder: Path
) -> dict[str, Any]:
    """Return the fields of a summary from evaluate and deploy; copy the report to the folder of the run."""
    return {
        "version": outcome.version if outcome else None,
        "decision": outcome.decision if outcome else decision.decision,
        "reason": outcome.reason if outcome else decision.reason,
        "rules": decision.rules,
        "notes": decision.notes,
        "metrics": {
            **{name: metric.value for name, metric in metrics.values.items()},
            **{f"{name}_interval": (metric.low, metric.high) for name, metric in metrics.values.items()},
            "examples": metrics.examples,
            "gain": metrics.gain,
        },
        "evaluation": EvaluationSummary(**{**dict(metrics), "details": {}}, compared_with=decision.champion),
        "report": str(shutil.copyfile(report, folder / "report.html")),
    }


def add_prediction(result: dict[str, Any], predict: Callable[[], Prediction | None]) -> dict[str, Any]:
    """Return a result with a prediction of the server; if the request fails, the run has failed."""
    try:
        return {**result, "prediction": predict()}
    except DeployError as error:
        return {**result, "state": "failed", "failure": RunFailure.from_error(error)}
