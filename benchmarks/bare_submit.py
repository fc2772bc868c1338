"""Submits the pipeline with KFP's SDK: `python bare_submit.py ENVIRONMENT URL [NAME]`.

The script compiles the same pipeline with the same arguments and calls kfp.Client.
"""

import sys
import tempfile
from pathlib import Path

import kfp
from kfp.compiler import Compiler

from modelyard.pipelines.compile.compiler import create_arguments, create_pipeline
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment

environment_name, url, name = (*sys.argv[1:], "digits")[:3]
environment = load_environment(environment_name)
values = create_arguments(load(None, [f"name={name}"], store=environment.model_store()), environment)
with tempfile.TemporaryDirectory() as folder:
    package = Path(folder) / "pipeline.yaml"
    Compiler().compile(create_pipeline(environment), str(package))
    client = kfp.Client(host=url)
    uploaded = client.upload_pipeline_version(
        str(package),
        pipeline_version_name=f"bare-{Path(folder).name}",
        pipeline_id=client.get_pipeline_id(name),
    )
    experiment = client.create_experiment("bare")
    client.run_pipeline(
        experiment.experiment_id,
        "bare",
        params=values,
        pipeline_id=uploaded.pipeline_id,
        version_id=uploaded.pipeline_version_id,
        pipeline_root=environment.pipeline_root,
        service_account=environment.runs.service_account,
    )
