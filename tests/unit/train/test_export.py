"""The exported files, each loaded with its runtime."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Signature
from modelyard.components.errors import TrainError
from modelyard.components.train.backend import keras, tf


def predict_with_all_formats(model: Path, examples: Any) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(str(model / "model.onnx"))
    served = tf.saved_model.load(str(model / "saved_model"))
    return {
        "keras": np.asarray(keras.saving.load_model(model / "model.keras")(examples, training=False)),
        "onnx": session.run(["probabilities"], {"input": examples})[0],
        "saved_model": np.asarray(served.serve(examples)),
    }


@pytest.mark.parametrize(
    ("shape", "dtype", "model"),
    [
        ((8, 8, 3), "uint8", {"filters": [4], "dense": [8], "dropout": 0.2}),
        ((8, 8), "float32", {"filters": [4], "logits": True}),
    ],
)
def test_all_formats_predict_the_same_from_raw_examples(train_env, shape, dtype, model, capsys) -> None:
    examples, labels = train_env.images(60, shape, dtype)
    channels = shape[-1] if len(shape) == 3 else 1
    train_env.features(examples, labels, mean=(30.0,) * channels, scale=(90.0,) * channels)
    history = train_env.train(model, epochs=20, optimizer_settings={"learning_rate": 0.01})
    assert history.metrics["accuracy"][-1] > 0.8
    assert set(history.metrics) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(len(values) == 20 for values in history.metrics.values())
    assert (history.epochs, history.stopped_early) == (20, False)
    assert history.parameters == train_env.load_model().count_params()
    assert history.examples_per_second > 0
    assert {"python", "keras", "tensorflow", "onnx"} <= set(history.packages)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == [f"{epoch}/20" for epoch in range(1, 21)]
    assert f"val_accuracy {history.metrics['val_accuracy'][-1]:.4f}" in lines[-1]
    examples, classes = train_env.images(30, shape, dtype, seed=2)
    outputs = predict_with_all_formats(train_env.model, examples)
    np.testing.assert_allclose(outputs["onnx"], outputs["keras"], atol=1e-5)
    np.testing.assert_allclose(outputs["saved_model"], outputs["keras"], atol=1e-5)
    np.testing.assert_allclose(outputs["onnx"].sum(axis=1), 1, atol=1e-5)
    assert (outputs["onnx"].argmax(axis=1) == classes).mean() > 0.8
    signature = artifacts.read(train_env.model / "signature.json", Signature)
    assert (signature.input.shape, signature.input.dtype, signature.output.names) == (
        shape,
        dtype,
        ("cat", "dog", "emu"),
    )


def test_nan_weights_after_the_last_step_write_nothing(train_env) -> None:
    train_env.features(*train_env.images(16), validation=0)
    settings = {"learning_rate": 1e38}
    with pytest.raises(
        TrainError, match=r"predicts nan .*learning_rate, or set training.optimizer_settings.clipnorm"
    ):
        train_env.train(epochs=1, batch_size=16, optimizer="sgd", optimizer_settings=settings)
    assert train_env.output_files() == []


def test_exported_models_do_not_augment(train_env) -> None:
    train_env.code(
        augmented="""
        def build(input_shape, classes):
            return keras.Sequential([
                layers.RandomFlip(), layers.RandomRotation(0.2), layers.RandomContrast(0.3),
                layers.Flatten(), layers.Dense(classes, activation="softmax"),
            ])
        """
    )
    train_env.features(*train_env.images(24), validation=0)
    train_env.export("augmented:build")
    examples, _ = train_env.images(8, seed=2)
    outputs = predict_with_all_formats(train_env.model, examples)
    np.testing.assert_allclose(outputs["onnx"], outputs["keras"], atol=1e-5)
    np.testing.assert_allclose(outputs["saved_model"], outputs["keras"], atol=1e-5)


def test_mixed_precision_models_are_exported_in_float32(train_env) -> None:
    train_env.code(
        mixed="""
        def build(input_shape, classes):
            policy = keras.DTypePolicy("mixed_bfloat16")
            return keras.Sequential([
                layers.Normalization(mean=0.3, variance=0.7, dtype=policy), layers.Conv2D(2, 3, dtype=policy),
                layers.BatchNormalization(dtype=policy), layers.LayerNormalization(), layers.Flatten(),
                layers.Dense(8, activation="relu"), layers.Dense(classes, "softmax", dtype="float32"),
            ])
        """
    )
    train_env.features(*train_env.images(24), validation=0)
    train_env.export("mixed:build", precision="mixed_float16")
    examples, _ = train_env.images(8, seed=2)
    outputs = predict_with_all_formats(train_env.model, examples)
    np.testing.assert_allclose(outputs["onnx"], outputs["keras"], atol=1e-5)
    np.testing.assert_allclose(outputs["saved_model"], outputs["keras"], atol=1e-5)
    assert {layer.compute_dtype for layer in train_env.load_model()._flatten_layers()} == {"float32"}


def test_an_export_that_predicts_differently_is_an_error(train_env) -> None:
    train_env.code(
        scale="""
        import random

        @keras.saving.register_keras_serializable("scale")
        class Scale(layers.Layer):
            def call(self, x):
                return x * random.random()  # a new value for each graph

        def build(input_shape, classes):
            x = keras.Input(input_shape)
            return keras.Model(x, layers.Dense(classes, activation="softmax")(layers.Flatten()(Scale()(x))))
        """
    )
    with pytest.raises(TrainError, match=r"predict differently: by 0.*random"):
        train_env.train_user_code("scale:build")
    assert train_env.output_files() == []


@pytest.mark.soak  # another process with TensorFlow
def test_a_killed_export_writes_nothing_and_the_next_run_succeeds(train_env) -> None:
    features = train_env.features()
    program = (
        "import os, sys; from modelyard.components.train import export, spec, trainer;"
        "export.convert = lambda *_: os.kill(os.getpid(), 9);"
        "trainer.train(sys.argv[1], spec.TrainSpec.from_json(sys.argv[2]), "
        "'gs://bucket/features', *sys.argv[3:])"
    )
    arguments = [features, train_env.spec(epochs=1).to_json(), train_env.model, train_env.history]
    result = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True)
    assert result.returncode == -9
    assert not train_env.model.exists()
    assert not train_env.history.exists()
    train_env.train(epochs=1)
    assert train_env.output_files() == ["history", "model"]
    names = sorted(path.name for path in train_env.model.iterdir())
    assert names == ["model.keras", "model.onnx", "saved_model", "signature.json"]
