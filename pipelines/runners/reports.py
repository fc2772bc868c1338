"""The report of a run, or of a version in the model store, as a file of this machine."""

from pathlib import Path

from modelyard.components.errors import NotFoundError
from modelyard.components.report.page import add_run_facts
from modelyard.components.store.models import ModelStore
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import Run
from modelyard.pipelines.runners.differences import load_summary

REPORT = "report.html"


def report_of_run(run: Run) -> Path:
    """Return the report of a run; of one on Kubeflow Pipelines it is fetched.

    Raises:
        NotFoundError: there is none.
    """
    summary = load_summary(run)
    if summary and summary.report and Path(summary.report).is_file():
        return Path(summary.report)
    state = run.info().state
    if state in ("pending", "running"):
        why = f"is {state}, and has no report before its step evaluate has ended"
    else:
        why = f"({state}) has no report: it ended before there was one, or it was cleaned up"
    raise NotFoundError(
        f"The run {run.name} {why}. `modelyard runs list` shows other runs; of a version: `modelyard report "
        "NAME VERSION`."
    )


def report_of_version(models: ModelStore, name: str, version: int | None = None) -> tuple[Path, int]:
    """Fetch the report of a version, of the champion without one; return its path and the version.

    Raises:
        NotFoundError: there is no such version, or no champion.
    """
    version = version or models.require_champion(name).version
    folder = run_folder.home() / "reports" / f"{name}-{version:06d}"
    found = models.fetch(name, version, folder, only=[REPORT])
    data = found.config.get("data", {})
    facts = {
        "version": f"{version} of {name}",
        "run": found.run_id,
        "published": run_folder.format_minute(found.created),
        "data": data.get("source") or data.get("kind") or "",
        "fingerprint": found.run,
    }
    page = folder / REPORT
    page.write_text(add_run_facts(page.read_text(encoding="utf-8"), facts), encoding="utf-8")
    return page, version
