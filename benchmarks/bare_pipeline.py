"""The five steps as a bare KFP pipeline, one after the other: `python bare_pipeline.py ENVIRONMENT URL NAME`.

Components, images and arguments are ours, with nothing around them: no fingerprint, conditions and exit task.
It prints the run's id.
"""

import sys
import warnings
from uuid import uuid4

warnings.simplefilter("ignore")

import kfp
from kfp import dsl

from modelyard.components.artifacts import Identity
from modelyard.components.deploy.component import deploy
from modelyard.components.evaluate.component import evaluate
from modelyard.components.ingest.component import ingest
from modelyard.components.preprocess.component import preprocess
from modelyard.components.train.component import train
from modelyard.pipelines.compile.compiler import arguments, in_pod
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment

environment, url, name = sys.argv[1:]
place = load_environment(environment)
overrides = [f"name={name}", *(f"rollout.{key}" for key in ("bake_seconds=1", "min_requests=20"))]
given = arguments(load(None, overrides, store=place.model_store()), place)
RUN = uuid4().hex
IDENTITY = Identity(run=RUN, data=RUN).model_dump_json()


@dsl.pipeline(name="bare-train-to-serve")
def bare() -> None:
    """Ingest, preprocess, train, evaluate, deploy."""
    ingested = ingest(spec=given["ingest_spec"], fingerprint=RUN)
    prepared = preprocess(raw=ingested.outputs["raw"], spec=given["preprocess_spec"])
    trained = train(features=prepared.outputs["features"], spec=given["train_spec"])
    evaluated = evaluate(
        model=trained.outputs["model"],
        features=prepared.outputs["features"],
        history=trained.outputs["history"],
        spec=given["evaluate_spec"],
        identity=IDENTITY,
    )
    deployed = deploy(
        model=trained.outputs["model"],
        history=trained.outputs["history"],
        evaluation=evaluated.outputs["evaluation"],
        spec=given["deploy_spec"],
        identity=IDENTITY,
    )
    steps = {"ingest": ingested, "preprocess": prepared, "train": trained, "evaluate": evaluated}
    for step, task in {**steps, "deploy": deployed}.items():
        in_pod(step, task, place)


client = kfp.Client(url)
started = client.create_run_from_pipeline_func(
    bare,
    experiment_name="bare",
    pipeline_root=place.pipeline_root,
    service_account=place.runs.service_account,
)
print(started.run_id)
