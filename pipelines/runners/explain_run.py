"""How a run on this machine or on Kubeflow Pipelines ended, or that it is running: `modelyard explain`."""

from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.components import lifeline
from modelyard.components.artifacts import read
from modelyard.components.errors import DataError, StuckError
from modelyard.components.explain import local_run
from modelyard.components.explain.explanation import Explanation, explanation
from modelyard.pipelines.runners import runs
from modelyard.pipelines.runners.base import RunSummary

if TYPE_CHECKING:
    from modelyard.pipelines.environments.environment import Environment


def explain_local(run: Path) -> Explanation:
    """Return how a run ended that this machine led, or that it is running.

    Args:
        run: its folder.
    """
    if not (run / "run.json").exists():
        return _unfinished(run)
    summary = read(run / "run.json", RunSummary)
    if failure := summary.failure:
        return explanation(run.name, summary.model, summary.state, failure.step, failure.message)
    return explanation(run.name, summary.model, "succeeded", None, f"{summary.decision}: {summary.reason}")


def explain_kfp(name: str, environment: "Environment", endpoint: str | None) -> Explanation:
    """Return how a run ended on Kubeflow Pipelines, also when its pods are gone, or that it is running.

    Args:
        name: the run's name, or its id.
        environment: where it ran.
        endpoint: the URL of Kubeflow Pipelines on the command line.

    Raises:
        NotFoundError: there is no such run.
        BackendError: Kubeflow Pipelines does not answer.
    """
    from modelyard.components.explain import kfp_run
    from modelyard.pipelines.runners.kfp.client import connect
    from modelyard.pipelines.runners.kfp.runs import RunArchive, find

    backend = connect(environment, endpoint)
    run = find(backend, name)
    parameters = (run.runtime_config.parameters if run.runtime_config else None) or {}
    found = kfp_run.explain(run.display_name, parameters.get("name"), RunArchive(backend, run.run_id))
    return _stuck(found) or found if found.state == "cancelled" else found


def _stuck(found: Explanation) -> Explanation | None:
    """Return why a run was cancelled that was followed from here and stuck, which no pod says any more."""
    try:
        failure = read(runs.of_pipelines(found.run) / "run.json", RunSummary).failure
    except DataError:  # it was not followed from here
        return None
    if failure is None or failure.kind != StuckError.__name__:
        return None
    return explanation(found.run, found.model, "cancelled", failure.step, failure.message)


def _unfinished(run: Path) -> Explanation:
    step = local_run.last_step(run)
    if lifeline.held(run / "lifeline"):
        return explanation(run.name, None, "running", step)
    reason = "it was killed, or the machine went down. Run it again: what is done is cached."
    return explanation(run.name, None, "cancelled", step, reason)
