"""Compare plan and actual values in the report of a run."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from modelyard.components.artifacts import tree_bytes, write
from modelyard.components.errors import ModelyardError
from modelyard.components.report.page import PlanComparison, add_plan
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning.plan import HOUR, Plan, compute_plan_key, load_plan
from modelyard.pipelines.planning.render import format_dollars, format_facts, format_seconds, format_size
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import RunSummary


def find_plan_key(config: Config, environment: Environment) -> str | None:
    """Return the key of the plan of a run, or None if data or code cannot be read.

    Call it before the run, because data and code may change during the run. The steps report unreadable data.
    """
    with suppress(ModelyardError, OSError):
        return compute_plan_key(config, environment)
    return None


def add_plan_to_report(folder: Path, plan_key: str | None, summary: RunSummary) -> None:
    """Add the plan to a run's folder and to its report, if the run succeeded and was planned.

    An error is only printed, because the run has succeeded. `plan_key` is the result of `find_plan_key`.
    """
    plan = load_plan(run_folder.home(), plan_key) if plan_key and summary.state == "succeeded" else None
    if plan is None or summary.report is None:
        return
    try:
        write(folder / "plan.json", plan)
        report = Path(summary.report)
        page = report.read_text(encoding="utf-8")
        comparisons = list(_compare(plan, folder / "artifacts", summary))
        caption = f"Planned at {plan.created} for {plan.environment}."
        report.write_text(add_plan(page, format_facts(plan), comparisons, caption), encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"The plan cannot be added to the report: {error}", file=sys.stderr)  # noqa: T201


def _compare(plan: Plan, artifacts: Path, summary: RunSummary) -> Iterator[PlanComparison]:
    """Yield planned and actual values; nothing if train came from the cache."""
    train = next((step for step in summary.steps if step.name == "train" and not step.cached), None)
    if train is None or train.state != "succeeded":
        return
    if plan.train:
        total = plan.train.total
        interval = f" ({format_seconds(total.low)} to {format_seconds(total.high or 0.0)})"
        yield _create_comparison("train", total.value, train.seconds, format_seconds, interval)
    if plan.cost and plan.cost.train:
        actual = plan.cost.per_hour * train.seconds / HOUR
        yield _create_comparison(
            "cost of train, at the planned price", plan.cost.train.value, actual, format_dollars
        )
    if model := next(iter(sorted(artifacts.glob("*/train/model"))), None):  # if artifacts are local
        yield _create_comparison("the exported model", plan.storage.model, tree_bytes(model), format_size)


def _create_comparison(
    name: str, planned: float, actual: float, format_value: Callable[[float], str], interval: str = ""
) -> PlanComparison:
    ratio = actual / planned if planned else None
    return PlanComparison(name, format_value(planned) + interval, format_value(actual), ratio)
