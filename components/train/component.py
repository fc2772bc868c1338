"""The KFP component `train`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def train(
    features: dsl.Input[dsl.Dataset],
    architecture: str,
    training: str,
    code: str,
    code_sha256: str,
    model: dsl.Output[dsl.Model],
    history: dsl.Output[dsl.Artifact],
) -> None:
    """Fit the model and export it, three ways, with its preprocessing inside.

    Args:
        features: what preprocess wrote.
        architecture: `model` section as JSON.
        training: `training` section as JSON.
        code: where the user's own code is (Code), as JSON; empty without one.
        code_sha256: its fingerprint, checked before it is imported.
        model: model.keras, model.onnx, saved_model/ and signature.json.
        history: history.json, the metrics of each epoch.
    """
    from components.train.trainer import train

    train(features.path, architecture, training, code, code_sha256, model.path, history.path)
