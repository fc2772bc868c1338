"""The five steps as a bare KFP pipeline, one after the other: `python bare_pipeline.py ENVIRONMENT URL NAME`.

Components, images and arguments are modelyard's, without fingerprint, conditions and exit task. The script
prints the run id.
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
    """Ingest, preprocess, train, evaluate, deploy."""
    ingested = ingest(spec=parameters["ingest_spec"], fingerprint=RUN)
    prepared = preprocess(raw=ingested.outputs["raw"], spec=parameters["preprocess_spec"])
    trained = train(features=prepared.outputs["features"], spec=parameters["train_spec"])
    evaluated = evaluate(
        model=trained.outputs["model"],
        features=prepared.outputs["features"],
        history=trained.outputs["history"],
        spec=parameters["evaluate_spec"],
        identity=IDENTITY,
    )
    deployed = deploy(
        model=trained.outputs["model"],
        history=trained.outputs["history"],
        evaluation=evaluated.outputs["evaluation"],
        spec=parameters["deploy_spec"],
        identity=IDENTITY,
    )
    steps = {"ingest": ingested, "preprocess": prepared, "train": trained, "evaluate": evaluated}
    for step, task in {**steps, "deploy": deployed}.items():
        configure_pod(step, task, environment)


client = kfp.Client(url)
run = client.create_run_from_pipeline_func(
    bare,
    experiment_name="bare",
    pipeline_root=environment.pipeline_root,
    service_account=environment.runs.service_account,
)
print(run.run_id)
