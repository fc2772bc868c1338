"""How a run on Kubeflow Pipelines ended, or that it is running: `modelyard explain -e ENV`."""

from modelyard.components.artifacts import read
from modelyard.components.errors import DataError, StuckError
from modelyard.components.explain import kfp_run
from modelyard.components.explain.explanation import Explanation, explanation
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners import runs
from modelyard.pipelines.runners.base import RunSummary
from modelyard.pipelines.runners.kfp.client import connect
from modelyard.pipelines.runners.kfp.runs import RunArchive, find


def explain_kfp(name: str, environment: Environment, endpoint: str | None) -> Explanation:
    """Return how a run ended on Kubeflow Pipelines, also when its pods are gone, or that it is running.

    Args:
        name: the run's name, or its id.
        environment: where it ran.
        endpoint: the URL of Kubeflow Pipelines on the command line.

    Raises:
        NotFoundError: there is no such run.
        BackendError: Kubeflow Pipelines does not answer.
    """
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
