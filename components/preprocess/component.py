"""The KFP component `preprocess`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def preprocess(raw: dsl.Input[dsl.Dataset], spec: str, features: dsl.Output[dsl.Dataset]) -> None:
    """Validate the examples, split them by content hash, compute the normalization.

    Args:
        raw: output of ingest.
        spec: PreprocessSpec as JSON.
        features: train, validation and test shards, schema, normalization and statistics.
    """
    from modelyard.components.step import step

    with step("preprocess"):
        from modelyard.components.preprocess.features import preprocess
        from modelyard.components.preprocess.spec import PreprocessSpec

        preprocess(raw.path, PreprocessSpec.from_json(spec), features.path)
