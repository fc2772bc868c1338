"""The pipeline, from data to a served model.

1. fingerprint: identify the data, the run and the champion; end the run if nothing changed (skip_unchanged)
2. ingest:      download, verify, decode
3. preprocess:  validate, split, compute the normalization
4. train:       fit, export with the normalization included
5. evaluate:    score candidate and champion on the same test examples; the gate decides
6. deploy:      if the gate promotes: publish, verify on a real server, promote
7. explain:     explain how the run ended; runs last, even after a failure

The input of a step is one JSON string with only the keys that affect its result, so that a change of another
key does not invalidate the cache. The environment sets image, resources and node of each step. The cache key
includes the image reference, whose tag or digest changes with the code.
"""

from collections.abc import Callable

from kfp import dsl

from modelyard.components.artifacts import UNCHANGED
from modelyard.components.deploy.component import deploy
from modelyard.components.evaluate.component import evaluate
from modelyard.components.explain.component import explain
from modelyard.components.fingerprint.component import fingerprint
from modelyard.components.ingest.component import ingest
from modelyard.components.preprocess.component import preprocess
from modelyard.components.train.component import train
from modelyard.pipelines.steps import STEPS

NAME = "train-to-serve"

ConfigureTask = Callable[[str, dsl.PipelineTask], object]


def build_pipeline(
    configure: ConfigureTask, config: dsl.PipelineConfig | None = None
) -> Callable[..., dsl.PipelineTask]:
    """Return the pipeline.

    Args:
        configure: called with the name and the task of each step; sets image, resources and node.
        config: pipeline-wide settings of KFP.
    """

    def set_options(task: dsl.PipelineTask) -> dsl.PipelineTask:
        task.set_caching_options(STEPS[task.name].cached)
        configure(task.name, task)
        return task

    @dsl.pipeline(name=NAME, pipeline_config=config)
    def train_to_serve(
        fingerprint_spec: str,
        ingest_spec: str,
        preprocess_spec: str,
        train_spec: str,
        evaluate_spec: str,
        deploy_spec: str,
        explain_spec: str,
        skip_unchanged: bool = False,
        force_after: int = 0,
    ) -> None:
        exit_task = set_options(explain(spec=explain_spec, run=dsl.PIPELINE_JOB_NAME_PLACEHOLDER))

        with dsl.ExitHandler(exit_task, name="steps"):
            fingerprint_task = set_options(
                fingerprint(spec=fingerprint_spec, skip_unchanged=skip_unchanged, force_after=force_after)
            )
            identity = fingerprint_task.outputs["identity"]

            # Conditions are on unnamed outputs: kfp.local silently skips one on a named output.
            with dsl.If(fingerprint_task.outputs["Output"] != UNCHANGED, name="changed"):
                ingest_task = set_options(
                    ingest(spec=ingest_spec, fingerprint=fingerprint_task.outputs["Output"])
                )

                preprocess_task = set_options(
                    preprocess(raw=ingest_task.outputs["raw"], spec=preprocess_spec)
                )

                train_task = set_options(train(features=preprocess_task.outputs["features"], spec=train_spec))

                evaluate_task = set_options(
                    evaluate(
                        model=train_task.outputs["model"],
                        features=preprocess_task.outputs["features"],
                        history=train_task.outputs["history"],
                        spec=evaluate_spec,
                        identity=identity,
                    )
                )

                with dsl.If(evaluate_task.outputs["Output"] == True, name="promote"):  # noqa: E712
                    set_options(
                        deploy(
                            model=train_task.outputs["model"],
                            history=train_task.outputs["history"],
                            evaluation=evaluate_task.outputs["evaluation"],
                            spec=deploy_spec,
                            identity=identity,
                        )
                    )

    return train_to_serve


def build_preparation(configure: ConfigureTask) -> Callable[..., dsl.PipelineTask]:
    """Return the pipeline of only ingest and preprocess, with the output `features`; see `build_pipeline`."""

    @dsl.pipeline(name="prepare")
    def prepare(ingest_spec: str, preprocess_spec: str, fingerprint: str) -> dsl.Dataset:
        ingest_task = ingest(spec=ingest_spec, fingerprint=fingerprint)
        configure("ingest", ingest_task)

        preprocess_task = preprocess(raw=ingest_task.outputs["raw"], spec=preprocess_spec)
        configure("preprocess", preprocess_task)
        return preprocess_task.outputs["features"]

    return prepare
