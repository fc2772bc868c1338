"""How a run on Kubeflow Pipelines ended, or that it is running: `modelyard explain -e ENV`."""

from contextlib import suppress
from typing import Any

from modelyard.components import records
from modelyard.components.errors import BackendError, StoreError
from modelyard.components.explain import kfp_run
from modelyard.components.explain.explanation import Explanation
from modelyard.components.records import RunRecords
from modelyard.components.store.storage import open_objects
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.kfp import runs
from modelyard.pipelines.runners.kfp.client import Backend


def explain_kfp(backend: Backend, run: Any, environment: Environment) -> Explanation:
    """Return how a run ended on Kubeflow Pipelines, also when its pods are gone, or that it is running.

    Args:
        backend: the server.
        run: the run, as the server gives it.
        environment: where it ran.

    Raises:
        BackendError: Kubeflow Pipelines does not answer.
    """
    model, found = None, RunRecords()
    with suppress(BackendError, StoreError):  # it is no run of modelyard's, or its store does not answer
        model, store = runs.model_and_store(run, environment)
        found = records.of_run(open_objects(store), model, run.run_id)
    end = found.end
    if end and end.state == runs.state(run) and end.ended >= runs.last_start(run):
        return Explanation(run.display_name, model, end.state, end.step, end.kind, end.text)
    archive, decided = runs.RunArchive(backend, run.run_id), found.decided()
    return kfp_run.explain(run.display_name, model, archive, decided=": ".join(decided or ()))
