"""Conversion of model.keras from a training on JAX to ONNX and SavedModel."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from modelyard.components.errors import TrainError
from modelyard.components.train import export
from modelyard.components.train.backend import keras, tf

EXAMPLES = np.random.default_rng(0).integers(0, 255, (5, 4, 4, 1), dtype=np.uint8)

CUSTOM_LAYER = """
import keras

@keras.saving.register_keras_serializable("custom")
class Half(keras.layers.Layer):
    def call(self, x):
        return x / 2
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[keras.Model]:
    """A model with a custom layer, saved as model.keras."""
    (tmp_path / "custom_layers.py").write_text(CUSTOM_LAYER)
    monkeypatch.syspath_prepend(tmp_path)
    import custom_layers

    raw = keras.Input((4, 4, 1), dtype="uint8", name="input")
    examples = custom_layers.Half()(keras.ops.cast(raw, "float32"))
    outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(examples))
    model = keras.Model(raw, outputs)
    model.save(tmp_path / "model.keras")
    monkeypatch.setattr(export, "BACKEND", "jax")
    yield model
    del sys.modules["custom_layers"]
    keras.saving.get_custom_objects().clear()


def test_a_jax_model_converts_to_onnx_and_saved_model(model: keras.Model, tmp_path: Path) -> None:
    export.convert(model, "probabilities", tmp_path)
    expected = np.asarray(model(EXAMPLES))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    np.testing.assert_allclose(session.run(["probabilities"], {"input": EXAMPLES})[0], expected, atol=1e-5)
    served = tf.saved_model.load(str(tmp_path / "saved_model"))
    np.testing.assert_allclose(served.serve(EXAMPLES), expected, atol=1e-5)


@pytest.mark.soak  # another process with TensorFlow
def test_a_layer_that_tensorflow_cannot_run_is_an_error(model: keras.Model, tmp_path: Path) -> None:
    (tmp_path / "custom_layers.py").write_text(CUSTOM_LAYER.replace("x / 2", "x.at[0].set(0)"))
    with pytest.raises(TrainError, match=r"cannot run on TensorFlow.*'at'.* only keras.ops"):
        export.convert(model, "probabilities", tmp_path)
