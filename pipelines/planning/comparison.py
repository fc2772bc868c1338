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
from modelyard.pipelines.planning.plan import HOUR, Plan, load_plan, plan_key
from modelyard.pipelines.planning.render import dollars, facts, seconds, size
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import RunSummary


def find_plan_key(config: Config, environment: Environment) -> str | None:
    """Return what connects a run with its plan, before the run: data and code may change while it runs.

    None when it cannot be told: the run's own steps name what is wrong with data or code.
    """
    with suppress(ModelyardError, OSError):
        return plan_key(config, environment)
    return None


def add_plan_to_report(folder: Path, plan_key: str | None, summary: RunSummary) -> None:
    """Add the plan to a run's folder and to its report, if the run succeeded and was planned.

    An error here does not make a run fail that has succeeded.

    Args:
        folder: the run's.
        plan_key: the result of `find_plan_key` before the run.
        summary: how it ended.
    """
    plan = load_plan(run_folder.home(), plan_key) if plan_key and summary.state == "succeeded" else None
    if plan is None or summary.report is None:
        return
    try:
        write(folder / "plan.json", plan)
        report = Path(summary.report)
        page = report.read_text(encoding="utf-8")
        rows = list(_rows(plan, folder / "artifacts", summary))
        about = f"Planned {plan.created} for {plan.environment}."
        report.write_text(add_plan(page, facts(plan), rows, about), encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"The plan of this run is not in its report: {error}", file=sys.stderr)  # noqa: T201


def _rows(plan: Plan, artifacts: Path, summary: RunSummary) -> Iterator[PlanComparison]:
    """Yield what is compared; of a step from the cache, nothing was measured."""
    train = next((one for one in summary.steps if one.name == "train" and not one.cached), None)
    if train is None or train.state != "succeeded":
        return
    if plan.train:
        low, high = plan.train.total.low, plan.train.total.high or 0.0
        note = f" ({seconds(low)} to {seconds(high)})"
        yield _row("train", plan.train.total.value, train.seconds, seconds, note)
    if plan.money and plan.money.train:
        actual = plan.money.hour * train.seconds / HOUR
        yield _row("money for train, at the planned price", plan.money.train.value, actual, dollars)
    model = next(iter(sorted(artifacts.glob("*/train/model"))), None)  # where artifacts are on this machine
    if model:
        written = tree_bytes(model)
        yield _row("the exported model", plan.storage.model, written, size)


def _row(
    name: str, planned: float, actual: float, words: Callable[[float], str], note: str = ""
) -> PlanComparison:
    return PlanComparison(
        name, f"{words(planned)}{note}", words(actual), actual / planned if planned else None
    )
