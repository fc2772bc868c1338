"""Plan against actual: recorded with each run, and shown in its report."""

from pathlib import Path

from components.report.page import Planned, with_plan
from pipelines.config import Config
from pipelines.environment_settings import Environment
from pipelines.plan.quantity import Quantity
from pipelines.plan.residuals import Residual, record
from pipelines.plan.words import seconds
from pipelines.runs import RunSummary


def keep(folder: Path, config: Config, environment: Environment, summary: RunSummary) -> None:
    """Record what was planned for a run and what happened, for later plans and in its report.

    Args:
        folder: the run's.
        config: its configuration.
        environment: where it ran.
        summary: how it went.
    """
    residual = record(folder, config, environment, summary)
    if residual and summary.report:
        _show(Path(summary.report), residual)


def _show(report: Path, residual: Residual) -> None:
    plan = residual.plan
    rows = [
        _row("train", residual.planned, residual.actual, plan.train if plan else None),
        _row("the whole run", residual.planned_whole, residual.actual_whole, plan.whole if plan else None),
    ]
    page = report.read_text(encoding="utf-8")
    report.write_text(with_plan(page, rows, _about(residual)), encoding="utf-8")


def _row(name: str, planned: float | None, actual: float | None, estimate: Quantity | None) -> Planned:
    said = "–" if planned is None else seconds(planned)
    if planned is not None and estimate and estimate.low is not None and estimate.high is not None:
        said += f" ({seconds(estimate.low)} to {seconds(estimate.high)})"
    happened = "from the cache" if actual is None else seconds(actual)
    return Planned(name, said, happened, actual / planned if actual and planned else None)


def _about(residual: Residual) -> str:
    if residual.plan is None:
        return "Nobody planned this run: modelyard plan --probe says beforehand what a run takes."
    if residual.plan.train.value is None:
        return f"Planned {residual.plan.created} without a probe, so without a time."
    return f"Planned {residual.plan.created} for {residual.plan.machine}; {residual.plan.train.why}."
