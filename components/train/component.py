"""The KFP component `train`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def train(
    features: dsl.Input[dsl.Dataset],
    architecture: str,
    training: str,
    code_location: str,
    code_sha256: str,
    store: str,
    model: dsl.Output[dsl.Model],
    history: dsl.Output[dsl.Artifact],
) -> None:
    """Fit the model and export it, three ways, with its preprocessing inside.

    Args:
        features: what preprocess wrote.
        architecture: `model` section as JSON.
        training: `training` section as JSON.
        code_location: where the user's own code is (Code), as JSON; empty without one.
        code_sha256: its fingerprint, checked before it is imported.
        store: `store` section as JSON; checkpoints are kept there.
        model: model.keras, model.onnx, saved_model/ and signature.json.
        history: history.json, the metrics of each epoch.
    """
    from modelyard.components.step import step

    with step("train"):
        from modelyard.components.train.trainer import train

        train(
            features.path,
            architecture,
            training,
            code_location,
            code_sha256,
            store,
            features.uri,
            model.path,
            history.path,
        )
