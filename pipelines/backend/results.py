"""What came of a run on Kubeflow Pipelines: what its steps wrote, in the bucket.

The API says nothing of what a task passed on, and a task from the cache wrote nothing in this run. The driver
of the condition before deploy was given it all, whether deploy ran or not, and writes that into its log.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from components.artifacts import UNCHANGED, Outcome, read
from components.errors import ClusterError
from components.explain.workflow import Workflow
from components.fingerprint.unchanged import reason_in
from components.store import staging
from components.store.address import open_objects
from components.store.models import open_store
from components.store.settings import Store
from pipelines.ask import ask_at
from pipelines.backend.kept import Kept
from pipelines.config import Config
from pipelines.environment_settings import Environment
from pipelines.results import scores
from pipelines.runs import Prediction
from pipelines.serving_address import address_of
from pipelines.train_to_serve import NAME

GIVEN = "output ExecutorInput:"
CHANNEL = "pipelinechannel--"


def results(
    run: Any, kept: Kept, workflow: Workflow, config: Config, environment: Environment, folder: Path
) -> dict[str, Any]:
    """Return the part of a run's summary that says what came of it.

    Args:
        run: the run, as the server gives it.
        kept: its records.
        workflow: its Workflow, which has succeeded.
        config: its configuration.
        environment: where it ran.
        folder: where the report goes.

    Raises:
        StoreError: the bucket cannot be read.
    """
    champion = open_store(config.store).champion(config.name)
    given = _given(kept, workflow)
    result: dict[str, Any] = {
        "fingerprint": given.get("parameterValues", {}).get(f"{CHANNEL}fingerprint-run"),
        "champion": champion.version if champion else None,
    }
    fingerprint = workflow.own("fingerprint")
    if reason := reason_in(kept.log(fingerprint)) if fingerprint else None:
        return {**result, "decision": UNCHANGED, "reason": reason}
    # the run's own root: the environment may have another one by now
    root = environment.artifacts().model_copy(update={"url": run.runtime_config.pipeline_root})
    evaluation = folder / "artifacts" / "evaluate" / "evaluation"
    for name, path in {"evaluation": evaluation, "report": evaluation.parent / "report"}.items():
        staging.fetch(_uri(given, f"evaluate-{name}"), path, root.endpoint)
    outcome = _outcome(run.run_id, workflow, root, folder)
    return {**result, **scores(evaluation, outcome, folder), "prediction": _ask(config, environment)}


def _given(kept: Kept, workflow: Workflow) -> Mapping[str, Any]:
    """Return what the last condition was given: parameters and artifacts of the steps before it."""
    for node in reversed(workflow.pods()):
        if node.driver and node.step.startswith("condition-"):
            text = "\n".join(kept.log(node))
            if found := text.partition(GIVEN)[2]:
                inputs: Mapping[str, Any] = json.JSONDecoder().raw_decode(found)[0].get("inputs", {})
                return inputs
    return {}


def _uri(given: Mapping[str, Any], name: str) -> str:
    (artifact,) = given["artifacts"][f"{CHANNEL}{name}"]["artifacts"]
    return str(artifact["uri"])


def _outcome(run_id: str, workflow: Workflow, root: Store, folder: Path) -> Outcome | None:
    """Read deploy's last word, if it came to that; deploy is never cached, so it is in this run's folder."""
    if workflow.own("deploy") is None:
        return None
    bucket = open_objects(root)
    entries = bucket.entries(f"{NAME}/{run_id}/deploy/")
    last = max((one for one in entries if one.key.endswith("/outcome")), key=lambda one: one.changed)
    path = folder / "artifacts" / "deploy" / "outcome"
    path.parent.mkdir(parents=True, exist_ok=True)
    bucket.download(last.key, path)
    return read(path, Outcome)


def _ask(config: Config, environment: Environment) -> Prediction | None:
    """Ask the champion's server for a prediction, if it is reached from here."""
    with suppress(ClusterError):
        address = address_of(config.name, environment)
        return ask_at(address.url, config, address.transport)
    return None
