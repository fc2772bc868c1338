"""Finds the report of a run or a version, and downloads it if necessary."""

from pathlib import Path

from modelyard.components.errors import NotFoundError
from modelyard.components.report.page import add_run_facts
from modelyard.components.store.models import ModelStore
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import Run
from modelyard.pipelines.runners.differences import load_summary

REPORT = "report.html"


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
        reason = f"is {state} and has no report before the step evaluate has ended"
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
    manifest = models.fetch(name, version, folder, only=[REPORT])
    data = manifest.config.get("data", {})
    facts = {
        "version": f"{version} of {name}",
        "run": manifest.run_id,
        "published": run_folder.format_minute(manifest.created),
        "data": data.get("source") or data.get("kind") or "",
        "fingerprint": manifest.run,
    }
    page = folder / REPORT
    page.write_text(add_run_facts(page.read_text(encoding="utf-8"), facts), encoding="utf-8")
    return page, version
