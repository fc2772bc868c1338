"""Plan against actual: recorded with each run, and shown in its report."""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from modelyard.components.artifacts import History
from modelyard.components.errors import ModelyardError
from modelyard.components.report.page import Planned, with_plan
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning.money import HOUR
from modelyard.pipelines.planning.quantity import Quantity
from modelyard.pipelines.planning.residuals import Residual, key, record
from modelyard.pipelines.planning.words import dollars, seconds, size
from modelyard.pipelines.planning.written import Written
from modelyard.pipelines.runners.runs import RunSummary


def identity(config: Config, environment: Environment) -> str | None:
    """Return what connects a run with its plan, to be asked before it: data and code may change meanwhile.

    None when it cannot be told: what is wrong with data or code, their own steps say better.
    """
    with suppress(ModelyardError, OSError):
        return key(config, environment)
    return None


def keep(
    folder: Path, plan_key: str | None, environment: Environment, summary: RunSummary, history: History | None
) -> None:
    """Record what was planned for a run and what happened, for later plans and in its report.

    What cannot be recorded does not make a run fail that has ended well.

    Args:
        folder: the run's.
        plan_key: what `identity` said before it.
        environment: where it ran.
        summary: how it went.
        history: what `train` tells of its only attempt; None when that is not known.
    """
    if plan_key is None:
        return
    try:
        residual = record(folder, plan_key, environment, summary, history)
        if residual and summary.report:
            _show(Path(summary.report), residual)
    except (ModelyardError, OSError, ValueError) as error:
        print(f"What was planned for this run is not recorded: {error}", file=sys.stderr)  # noqa: T201


def _show(report: Path, residual: Residual) -> None:
    plan = residual.plan
    risks = {one.what: f"{one.probability}; lowered by {one.lowers}" for one in plan.risks} if plan else {}
    rows = [*_times(residual), *_sizes(residual), *_money(residual)]
    page = report.read_text(encoding="utf-8")
    page = with_plan(page, plan.facts if plan else {}, risks, rows, _about(residual))
    report.write_text(page, encoding="utf-8")


def _times(residual: Residual) -> list[Planned]:
    plan = residual.plan
    train, whole = (plan.train, plan.whole) if plan else (None, None)
    as_planned = train is None or residual.planned == train.value
    train_note = _interval(train) if as_planned else f" for the {residual.epochs} epochs that there were"
    rows = [
        _row("train", residual.planned, residual.actual, seconds, train_note),
        _row("the whole run", residual.planned_whole, residual.actual_whole, seconds, _interval(whole)),
    ]
    if residual.actual is None:
        rows[0] = rows[0]._replace(actual="from the cache")
    elif residual.resumed_after:
        after = f"{seconds(residual.actual)} after epoch {residual.resumed_after}, from a checkpoint"
        rows[0] = rows[0]._replace(actual=after)
    return rows


def _sizes(residual: Residual) -> list[Planned]:
    """Return the bytes of what the steps of this run wrote; those from the cache wrote nothing."""
    planned, found = residual.planned_written or Written(), residual.written or Written()
    rows = [
        _row("the exported model", planned.model, found.model, size),
        _row("all artifacts of this run", planned.artifacts, found.artifacts, size),
    ]
    measured = (found.model, found.artifacts)
    return [row for row, actual in zip(rows, measured, strict=True) if actual is not None]


def _money(residual: Residual) -> list[Planned]:
    """Return what train cost at the planned price, if there was one and it ran where it was planned."""
    plan, actual = residual.plan, residual.actual
    if plan is None or plan.price is None or actual is None or plan.machine != residual.machine:
        return []
    planned = None if residual.planned is None else plan.price * residual.planned / HOUR
    return [_row("money for train, at the planned price", planned, plan.price * actual / HOUR, dollars)]


def _row(
    name: str, planned: float | None, actual: float | None, say: Callable[[float], str], note: str = ""
) -> Planned:
    said = "–" if planned is None else f"{say(planned)}{note}"
    happened = "–" if actual is None else say(actual)
    return Planned(name, said, happened, actual / planned if actual and planned else None)


def _interval(planned: Quantity | None) -> str:
    if planned is None or planned.low is None or planned.high is None:
        return ""
    return f" ({seconds(planned.low)} to {seconds(planned.high)})"


def _about(residual: Residual) -> str:
    if residual.plan is None:
        return "Nobody planned this run: modelyard plan --probe says beforehand what a run takes."
    if residual.plan.train.value is None:
        return f"Planned {residual.plan.created} without a probe, so without a time."
    return f"Planned {residual.plan.created} for {residual.plan.machine}; {residual.plan.train.why}."
