"""The pipeline, from data to a served and guarded model. Read it top to bottom: it is the flow.

1. fingerprint: what identifies the data and this run, and which champion is to be beaten; the end when it
                was asked to skip a run in which nothing is new
2. ingest:      fetch, verify, decode
3. preprocess:  validate, split, measure
4. train:       fit, export with the preprocessing inside
5. evaluate:    score candidate and champion on the same rows; the gate decides
6. deploy:      only if the gate says so: publish, verify in a real server, promote
7. explain:     whatever happened: say how the run ended, and why

The sections of the configuration arrive as JSON texts, one for each step, so that a changed serving
option does not train again. Where a step runs, in which image and on which node, comes from the environment.
The image's reference enters the cache key, and carries the fingerprint of the code.
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

NAME = "train-to-serve"
STEPS = ("fingerprint", "ingest", "preprocess", "train", "evaluate", "deploy", "explain")

Place = Callable[[str, dsl.PipelineTask], object]


def build(place: Place, config: dsl.PipelineConfig | None = None) -> Callable[..., dsl.PipelineTask]:
    """Return the pipeline.

    Args:
        place: gives a step, by its name, the image, resources and node that its task gets.
        config: what holds for a whole run.
    """

    @dsl.pipeline(name=NAME, pipeline_config=config)
    def train_to_serve(
        name: str,
        source: str,
        preparation: str,
        architecture: str,
        training: str,
        gate: str,
        serving: str,
        store: str,
        rollout: str,
        target: str,
        config: str,
        recipe_sha256: str,
        code_location: str,
        code_sha256: str,
        root: str,
        skip_unchanged: bool = False,
        force_after: int = 0,
    ) -> None:
        ending = explain(name=name, run=dsl.PIPELINE_JOB_NAME_PLACEHOLDER, store=store)
        ending.set_caching_options(False)
        place("explain", ending)

        with dsl.ExitHandler(ending, name="whole"):
            identity = fingerprint(
                name=name,
                source=source,
                recipe_sha256=recipe_sha256,
                store=store,
                root=root,
                skip_unchanged=skip_unchanged,
                force_after=force_after,
            )
            identity.set_caching_options(False)
            place("fingerprint", identity)

            # Conditions are on unnamed outputs: kfp.local silently skips one on a named output.
            with dsl.If(identity.outputs["Output"] != UNCHANGED, name="changed"):
                ingested = ingest(source=source, fingerprint=identity.outputs["Output"])
                place("ingest", ingested)

                prepared = preprocess(raw=ingested.outputs["raw"], preparation=preparation)
                place("preprocess", prepared)

                trained = train(
                    features=prepared.outputs["features"],
                    architecture=architecture,
                    training=training,
                    code_location=code_location,
                    code_sha256=code_sha256,
                    store=store,
                )
                place("train", trained)

                evaluated = evaluate(
                    model=trained.outputs["model"],
                    features=prepared.outputs["features"],
                    history=trained.outputs["history"],
                    name=name,
                    gate=gate,
                    store=store,
                    run=identity.outputs["run"],
                    champion=identity.outputs["champion"],
                )
                place("evaluate", evaluated)

                with dsl.If(evaluated.outputs["Output"] == True, name="promote"):  # noqa: E712
                    deployed = deploy(
                        model=trained.outputs["model"],
                        history=trained.outputs["history"],
                        evaluation=evaluated.outputs["evaluation"],
                        report=evaluated.outputs["report"],
                        name=name,
                        run=identity.outputs["run"],
                        champion=identity.outputs["champion"],
                        data=identity.outputs["data"],
                        recipe_sha256=recipe_sha256,
                        code_sha256=code_sha256,
                        config=config,
                        serving=serving,
                        store=store,
                        rollout=rollout,
                        target=target,
                    )
                    deployed.set_caching_options(False)
                    place("deploy", deployed)

    return train_to_serve


def build_preparation(place: Place) -> Callable[..., dsl.PipelineTask]:
    """Return the pipeline of ingest and preprocess alone, whose output is `features`; see `build`."""

    @dsl.pipeline(name="prepare")
    def prepare(source: str, preparation: str, fingerprint: str) -> dsl.Dataset:
        ingested = ingest(source=source, fingerprint=fingerprint)
        place("ingest", ingested)

        prepared = preprocess(raw=ingested.outputs["raw"], preparation=preparation)
        place("preprocess", prepared)
        return prepared.outputs["features"]

    return prepare
