"""The result of a run: its summary and its report, and the reports of versions."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelyard.components.artifacts import Decision, Metrics, Outcome, Prediction
from modelyard.components.errors import DeployError, NotFoundError
from modelyard.components.report.page import add_run_facts
from modelyard.components.store.models import ModelStore
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import (
    EvaluationSummary,
    Run,
    RunFailure,
    RunInfo,
    RunSummary,
    read_summary,
)

REPORT = "report.html"


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
        "report": str(shutil.copyfile(report, folder / REPORT)),
    }


def add_prediction(result: dict[str, Any], predict: Callable[[], Prediction | None]) -> dict[str, Any]:
    """Return a result with a prediction of the server; if the request fails, the run has failed."""
    try:
        return {**result, "prediction": predict()}
    except DeployError as error:
        return {**result, "state": "failed", "failure": RunFailure.from_error(error)}


def fetch_run_report(run: Run) -> Path:
    """Return the report of a run; download it from Kubeflow Pipelines if necessary.

    Raises:
        NotFoundError: the run has no report.
    """
    summary = load_summary(run)
    if summary and summary.report and Path(summary.report).is_file():
        return Path(summary.report)
    state = run.info().state
    if state in ("pending", "running"):
        reason = f"({state}) has no report yet: the step evaluate writes it"
    else:
        reason = f"({state}) has no report: it ended before evaluate, or its report was removed"
    raise NotFoundError(
        f"The run {run.name} {reason}. `modelyard runs list` shows other runs; `modelyard report NAME "
        "VERSION` shows the report of a version."
    )


def fetch_version_report(models: ModelStore, name: str, version: int | None = None) -> tuple[Path, int]:
    """Download the report of a version, by default the champion; return its path and the version.

    Raises:
        NotFoundError: there is no such version, or no champion.
    """
    version = version or models.require_champion(name).version
    folder = run_folder.home() / "reports" / f"{name}-{version:06d}"
    manifest = models.fetch(name, version, folder, paths=[REPORT])
    data = manifest.config.get("data", {})
    facts = {
        "version": f"{version} of {name}",
        "run": manifest.run_id,
        "published": _format_minute(manifest.created),
        "data": data.get("source") or data.get("kind") or "",
        "fingerprint": manifest.run,
    }
    page = folder / REPORT
    _add_facts(page, facts)
    return page, version


def add_facts_to_report(summary: RunSummary, info: RunInfo) -> None:
    """Add the facts of a run that evaluate does not know to its report, if it has one."""
    if not summary.report:
        return
    not_promoted = summary.version and summary.decision != "promote"
    facts = {
        "run": info.name,
        "started": _format_minute(info.started),
        "environment": info.environment,
        "data": info.data or "",
        "fingerprint": summary.fingerprint or "",
        "version": f"{summary.version}, {summary.decision}" if summary.version else "",
        "reason": (summary.reason or "") if not_promoted else "",
    }
    _add_facts(Path(summary.report), facts)


def _add_facts(page: Path, facts: dict[str, str]) -> None:
    page.write_text(add_run_facts(page.read_text(encoding="utf-8"), facts), encoding="utf-8")


def _format_minute(time: str) -> str:
    """Format an ISO 8601 time in UTC to the minute."""
    return f"{time[:16].replace('T', ' ')} UTC"
