"""The results of a run on Kubeflow Pipelines: what its steps recorded in the model store, and the report."""

from pathlib import Path
from typing import Any

from modelyard.components import records
from modelyard.components.artifacts import UNCHANGED
from modelyard.components.errors import NotFoundError
from modelyard.components.store import staging
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import open_objects
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.runs import scores
from modelyard.pipelines.serving.smoke_test import predict_on_cluster


def results(run: Any, name: str, store: Store, environment: Environment, folder: Path) -> dict[str, Any]:
    """Return the part of a run's summary that has its results.

    Args:
        run: the run, as the server gives it; it has succeeded.
        name: of the model.
        store: of its versions, as it is reached from here.
        environment: where it ran.
        folder: where the report goes.

    Raises:
        NotFoundError: the records of the run are gone.
        StoreError: the bucket cannot be read.
    """
    champion = open_store(store).champion(name)
    found = records.of_run(open_objects(store), name, run.run_id)
    if not found.start:
        raise _gone(run, store, records.run_key(name, run.run_id))
    result: dict[str, Any] = {
        "fingerprint": found.start.fingerprint,
        "champion": champion.version if champion else None,
    }
    if found.start.unchanged is not None:
        return {**result, "decision": UNCHANGED, "reason": found.start.unchanged}
    if not (decision := found.decision):
        raise _gone(run, store, records.decision_key(name, found.start.fingerprint, found.start.champion))
    report = folder / "artifacts" / "evaluate" / "report"
    staging.fetch(decision.report, report, environment.artifacts().endpoint)
    outcome = found.outcome.outcome if found.outcome else None
    return {
        **result,
        **scores(decision.decision, decision.metrics, report, outcome, folder),
        "prediction": predict_on_cluster(name, store, environment),
    }


def _gone(run: Any, store: Store, key: str) -> NotFoundError:
    return NotFoundError(
        f"The record {store.url}/{key} of the run {run.display_name} was removed. `modelyard submit` starts "
        "another."
    )
