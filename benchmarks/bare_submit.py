"""The pipeline on Kubeflow Pipelines as users of its SDK send it: `python bare_submit.py ENVIRONMENT URL`.

It compiles the same pipeline with the same arguments and calls kfp.Client.
"""

import sys
import tempfile
from pathlib import Path

import kfp
from kfp.compiler import Compiler

from pipelines.compiler import arguments
from pipelines.config import load
from pipelines.environment import load_environment
from pipelines.placement import pipeline

place = load_environment(sys.argv[1])
values = arguments(load(store=place.model_store()), place)
with tempfile.TemporaryDirectory() as folder:
    package = Path(folder) / "pipeline.yaml"
    Compiler().compile(pipeline(place), str(package))
    client = kfp.Client(host=sys.argv[2])
    uploaded = client.upload_pipeline_version(
        str(package),
        pipeline_version_name=f"bare-{Path(folder).name}",
        pipeline_id=client.get_pipeline_id("digits"),
    )
    experiment = client.create_experiment("bare")
    client.run_pipeline(
        experiment.experiment_id,
        "bare",
        params=values,
        pipeline_id=uploaded.pipeline_id,
        version_id=uploaded.pipeline_version_id,
        pipeline_root=place.pipeline_root,
        service_account=place.runs.service_account,
    )
