"""A regression model predicts in the unit of the target."""

import numpy as np
import onnxruntime
import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Normalization, Schema, Signature
from modelyard.components.errors import TrainError
from modelyard.components.shards import ShardWriter
from modelyard.components.train.backend import keras

MEAN, DEVIATION = 20_000.0, 500.0


@pytest.fixture
def features(train_env) -> np.ndarray:
    """Write features whose target depends on the first of three numbers; return the validation examples."""
    folder = train_env.root / "features"
    folder.mkdir()
    random, sizes = np.random.default_rng(0), {"train": 200, "validation": 40}
    for split, count in sizes.items():
        examples = random.normal(size=(count, 3)).astype(np.float32)
        with ShardWriter(folder, split, (3,), "float32") as writer:
            writer.append(examples, MEAN + DEVIATION * examples[:, 0])
    schema = Schema(shape=(3,), dtype="float32", problem="regression", names=("price",), splits=sizes)
    artifacts.write(folder / "schema.json", schema)
    scaling = Normalization(target_mean=(MEAN,), target_scale=(DEVIATION,))
    artifacts.write(folder / "normalization.json", scaling)
    return examples


def test_predictions_are_in_the_unit_of_the_target(train_env, features) -> None:
    history = train_env.train(
        {"filters": [], "dense": []}, epochs=30, optimizer="sgd", optimizer_settings={"learning_rate": 0.1}
    )
    assert set(history.metrics) == {"loss", "mae", "rmse", "val_loss", "val_mae", "val_rmse"}
    assert history.metrics["val_rmse"][-1] < 0.1 * DEVIATION
    assert history.metrics["loss"][-1] < 0.01  # in standard deviations of the target
    signature = artifacts.read(train_env.model / "signature.json", Signature)
    assert (signature.problem, signature.output.names) == ("regression", ("price",))
    session = onnxruntime.InferenceSession(str(train_env.model / "model.onnx"))
    (predictions,) = session.run([signature.output.name], {"input": features})
    np.testing.assert_allclose(predictions[:, 0], MEAN + DEVIATION * features[:, 0], atol=0.3 * DEVIATION)


@pytest.mark.usefixtures("features")
def test_user_code_gets_the_number_of_targets(train_env) -> None:
    train_env.code(
        current="""
        def build(input_shape, targets):
            return keras.Sequential([keras.Input(input_shape), layers.Dense(targets)])
        """,
        outdated="""
        def build(input_shape, classes):
            return keras.Sequential([keras.Input(input_shape), layers.Dense(classes)])
        """,
    )
    stopping = {"monitor": "val_mae", "patience": 1}
    train_env.train_user_code("current:build", epochs=2, loss="huber", early_stopping=stopping)
    with pytest.raises(
        TrainError, match=r"called with input_shape, targets, but its signature is \(.*classes\)"
    ):
        train_env.train_user_code("outdated:build")


@pytest.mark.usefixtures("features")
def test_losses_use_scaled_targets(train_env) -> None:
    targets, predictions = np.array([MEAN, MEAN + DEVIATION]), np.full((2, 1), MEAN + 3 * DEVIATION)
    for loss, expected in ((None, (9 + 4) / 2), ({"name": "huber", "delta": 2}, (4 + 2) / 2)):
        history, network = train_env.fit({"filters": [], "dense": []}, epochs=1, loss=loss)
        assert history.epochs == 1
        pair = {"y": keras.ops.cast(targets, "float32"), "y_pred": keras.ops.cast(predictions, "float32")}
        actual = network.compute_loss(**pair)
        assert float(actual) == pytest.approx(expected, rel=1e-3)
