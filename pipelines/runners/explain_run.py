"""How a run that this machine led ended, or that it is running: `modelyard explain`."""

from pathlib import Path

from modelyard.components import lifeline
from modelyard.components.artifacts import read
from modelyard.components.explain import local_run
from modelyard.components.explain.explanation import Explanation, explanation
from modelyard.pipelines.runners.base import RunSummary


def explain_local(run: Path) -> Explanation:
    """Return how a run ended that this machine led, or that it is running.

    Args:
        run: its folder.
    """
    if not (run / "run.json").exists():
        return _unfinished(run)
    summary = read(run / "run.json", RunSummary)
    if failure := summary.failure:
        return explanation(
            run.name, summary.model, summary.state, failure.step, failure.message, failure.kind
        )
    return explanation(run.name, summary.model, "succeeded", None, f"{summary.decision}: {summary.reason}")


def _unfinished(run: Path) -> Explanation:
    step = local_run.last_step(run)
    if lifeline.held(run / "lifeline"):
        return explanation(run.name, None, "running", step)
    reason = (
        f"it was killed, or the machine went down. `modelyard runs retry {run.name}` goes on: what is "
        "done is cached."
    )
    return explanation(run.name, None, "cancelled", step, reason)
