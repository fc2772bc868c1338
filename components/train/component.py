"""The KFP component `train`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def train(
    features: dsl.Input[dsl.Dataset],
    spec: str,
    model: dsl.Output[dsl.Model],
    history: dsl.Output[dsl.Artifact],
) -> None:
    """Fit the model and export it in three formats, each including the normalization.

    Args:
        features: output of preprocess.
        spec: TrainSpec as JSON.
        model: model.keras, model.onnx, saved_model/ and signature.json.
        history: history.json, the metrics of each epoch.
    """
    from modelyard.components.step import step

    with step("train"):
        from modelyard.components.train.spec import TrainSpec
        from modelyard.components.train.trainer import train

        train(features.path, TrainSpec.from_json(spec), features.uri, model.path, history.path)
