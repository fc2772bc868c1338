"""A custom KFP pipeline with individual components of modelyard: evaluate a trained model on new data.

    python examples/own_pipeline.py pets.yaml          # writes own_pipeline.yaml for KFP

The components of modelyard are ordinary KFP components. Their settings come from the same file as for
`modelyard run`. On a cluster, give each task an image that `make images` built, with `set_container_image`.
"""

import sys

from kfp import compiler, dsl

import modelyard
from modelyard.components.evaluate.component import evaluate
from modelyard.components.ingest.component import ingest
from modelyard.components.preprocess.component import preprocess

IDENTITY = '{"run": "", "data": "", "champion": 0}'  # do not compare the model with a champion


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def alert(promote: bool) -> str:
    """Return a message. This is a component of your own."""
    return "the model is good enough" if promote else "the model does not pass the gate: see the report"


def build(config: str):
    """Return the pipeline for a configuration file."""
    specs = modelyard.step_specs(config)

    @dsl.pipeline(name="score-again")
    def score_again(model: str, history: str, date: str = "") -> str:
        """Evaluate a model on the current data.

        Args:
            model: URI of the artifact `model` of train.
            history: URI of the artifact `history` of train.
            date: part of the cache key of ingest; with a new date, ingest reads the data again.
        """
        raw = ingest(spec=specs["ingest"], fingerprint=date).outputs["raw"]
        features = preprocess(raw=raw, spec=specs["preprocess"]).outputs["features"]
        evaluated = evaluate(
            model=dsl.importer(artifact_uri=model, artifact_class=dsl.Model).output,
            history=dsl.importer(artifact_uri=history, artifact_class=dsl.Artifact).output,
            features=features,
            spec=specs["evaluate"],
            identity=IDENTITY,
        )
        return alert(promote=evaluated.outputs["Output"]).output

    return score_again


if __name__ == "__main__":
    compiler.Compiler().compile(build(sys.argv[1]), "own_pipeline.yaml")
