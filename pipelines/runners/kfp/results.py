"""The results of a run on Kubeflow Pipelines: what its steps wrote into the bucket.

The API does not have a task's outputs, and a task from the cache wrote nothing in this run. The driver of the
condition before deploy is given them, whether deploy runs or not, and writes them into its log.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from modelyard.components.artifacts import UNCHANGED, Outcome, read
from modelyard.components.errors import NotFoundError
from modelyard.components.explain.workflow import Workflow
from modelyard.components.fingerprint.identity import reason_in
from modelyard.components.store import staging
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import open_objects
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.kfp.runs import RunArchive
from modelyard.pipelines.runners.runs import scores
from modelyard.pipelines.serving.smoke_test import predict_on_cluster
from modelyard.pipelines.train_to_serve import NAME

GIVEN = "output ExecutorInput:"
CHANNEL = "pipelinechannel--"
DECODER = json.JSONDecoder()


def results(
    run: Any,
    archive: RunArchive,
    workflow: Workflow,
    name: str,
    store: Store,
    environment: Environment,
    folder: Path,
) -> dict[str, Any]:
    """Return the part of a run's summary that has its results.

    Args:
        run: the run, as the server gives it.
        archive: its logs.
        workflow: its Workflow, which has succeeded.
        name: of the model.
        store: of its versions, as it is reached from here.
        environment: where it ran.
        folder: where the report goes.

    Raises:
        StoreError: the bucket cannot be read.
    """
    champion = open_store(store).champion(name)
    given = _condition_inputs(archive, workflow)
    result: dict[str, Any] = {
        "fingerprint": given.get("parameterValues", {}).get(f"{CHANNEL}fingerprint-run"),
        "champion": champion.version if champion else None,
    }
    if not (workflow.cached("ingest") or workflow.own("ingest")):
        fingerprint = workflow.own("fingerprint")
        reason = reason_in(archive.log(fingerprint)) if fingerprint else None
        return {**result, "decision": UNCHANGED, "reason": reason or "nothing is new since the champion"}
    # the run's own root: the environment may have another one by now
    root = environment.artifacts().model_copy(update={"url": run.runtime_config.pipeline_root})
    evaluation = folder / "artifacts" / "evaluate" / "evaluation"
    for output, path in {"evaluation": evaluation, "report": evaluation.parent / "report"}.items():
        uri = _written(root, run.run_id, "evaluate", output) or _passed(given, f"evaluate-{output}")
        if uri is None:
            raise NotFoundError(
                f"The run {run.display_name} has its evaluation from an earlier run, and the logs that say "
                "where it is are gone. `modelyard submit` starts another."
            )
        staging.fetch(uri, path, root.endpoint)
    outcome = None
    if uri := _written(root, run.run_id, "deploy", "outcome"):  # deploy is never cached
        staging.fetch(uri, folder / "artifacts" / "deploy" / "outcome", root.endpoint)
        outcome = read(folder / "artifacts" / "deploy" / "outcome", Outcome)
    prediction = predict_on_cluster(name, store, environment)
    return {**result, **scores(evaluation, outcome, folder), "prediction": prediction}


def _condition_inputs(archive: RunArchive, workflow: Workflow) -> Mapping[str, Any]:
    """Return the inputs of the last condition: parameters and artifacts of the steps before it."""
    for node in reversed(workflow.pods()):
        if node.driver and node.step.startswith("condition-"):
            text = "\n".join(archive.log(node))
            with suppress(ValueError):  # cut
                inputs: Mapping[str, Any] = DECODER.raw_decode(text.partition(GIVEN)[2])[0]["inputs"]
                return inputs
    return {}


def _passed(given: Mapping[str, Any], name: str) -> str | None:
    """Return the address of an artifact that was passed on, wherever the cache has it from."""
    found = given.get("artifacts", {}).get(f"{CHANNEL}{name}", {}).get("artifacts", ())
    return str(found[0]["uri"]) if found else None


def _written(root: Store, run_id: str, step: str, output: str) -> str | None:
    """Return the address of an artifact that a step wrote in this run, at its last start."""
    prefix = f"{NAME}/{run_id}/{step}/"
    ours = re.compile(rf"{re.escape(prefix)}[^/]+/{output}(?=/|$)")
    entries = sorted(open_objects(root).entries(prefix), key=lambda one: one.changed)
    found = [match[0] for one in entries if (match := ours.match(one.key))]
    return f"{root.url.rstrip('/')}/{found[-1]}" if found else None
