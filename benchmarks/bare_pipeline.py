"""Runs ingest to deploy as a bare KFP pipeline: `python bare_pipeline.py ENVIRONMENT URL NAME`.

The steps have modelyard's components, images and arguments; there is no fingerprint, condition or exit task.
The script prints the run id.
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
from modelyard.pipelines.compile.compiler import configure_pod, create_arguments
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment

environment_name, url, name = sys.argv[1:]
environment = load_environment(environment_name)
overrides = [f"name={name}", *(f"rollout.{key}" for key in ("bake_seconds=1", "min_requests=20"))]
parameters = create_arguments(load(None, overrides, store=environment.model_store()), environment)
RUN = uuid4().hex
IDENTITY = Identity(run=RUN, data=RUN).model_dump_json()


@dsl.pipeline(name="bare-train-to-serve")
def bare() -> None:
    """Run the steps one after the other."""
    ingest_task = ingest(spec=parameters["ingest_spec"], fingerprint=RUN)
    preprocess_task = preprocess(raw=ingest_task.outputs["raw"], spec=parameters["preprocess_spec"])
    train_task = train(features=preprocess_task.outputs["features"], spec=parameters["train_spec"])
    evaluate_task = evaluate(
        model=train_task.outputs["model"],
        features=preprocess_task.outputs["features"],
        history=train_task.outputs["history"],
        spec=parameters["evaluate_spec"],
        identity=IDENTITY,
    )
    deploy_task = deploy(
        model=train_task.outputs["model"],
        history=train_task.outputs["history"],
        evaluation=evaluate_task.outputs["evaluation"],
        spec=parameters["deploy_spec"],
        identity=IDENTITY,
    )
    for task in (ingest_task, preprocess_task, train_task, evaluate_task, deploy_task):
        configure_pod(task.name, task, environment)


client = kfp.Client(url)
run = client.create_run_from_pipeline_func(
    bare,
    experiment_name="bare",
    pipeline_root=environment.pipeline_root,
    service_account=environment.runs.service_account,
)
print(run.run_id)
