"""The handlers for tf2onnx, each with a small model, and the errors."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from modelyard.components.errors import TrainError
from modelyard.components.train import onnx_export
from modelyard.components.train.backend import keras, tf

layers, ops = keras.layers, keras.ops


def as_floats(function: Any) -> Any:
    return lambda x: ops.cast(function(x), "float32")


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        pytest.param(layers.Dense(3, activation="gelu"), (4,), id="Erfc"),
        pytest.param(layers.Activation("celu"), (4,), id="Expm1"),
        pytest.param(lambda x: ops.logaddexp(x, 2 * x), (4,), id="Log1p"),
        pytest.param(layers.Normalization(mean=[1.0, 2], variance=[3.0, 4]), (2,), id="captured constants"),
        pytest.param(layers.Conv2D(4, 3, groups=2), (5, 5, 4), id="inlined functions"),
        pytest.param(layers.Conv3D(4, 2, groups=2), (3, 3, 3, 4), id="Conv3D"),
        pytest.param(
            layers.Conv2DTranspose(2, 3, strides=(2, 1), output_padding=(1, 0)), (3, 3, 2), id="ConvTranspose"
        ),
        pytest.param(layers.Resizing(64, 31), (41, 7, 1), id="ResizeBilinear"),
        pytest.param(layers.UpSampling2D((3, 5)), (7, 41, 1), id="ResizeNearestNeighbor"),
        pytest.param(layers.Resizing(5, 9, interpolation="bicubic"), (8, 6, 1), id="ResizeBicubic"),
        pytest.param(layers.Resizing(5, 9, antialias=True), (8, 6, 1), id="ScaleAndTranslate"),
        pytest.param(as_floats(layers.Discretization(bin_boundaries=[0.0, 1])), (4,), id="Bucketize"),
        pytest.param(as_floats(ops.signbit), (4,), id="Bitcast"),
        pytest.param(lambda x: ops.add(*ops.rfft(x, fft_length=6)), (4,), id="RFFT"),
        pytest.param(layers.LSTM(2, dropout=0.1), (3, 2), id="variables that are assigned"),
    ],
)
def test_an_exported_operation_predicts_like_keras(
    function: Any, shape: tuple[int, ...], tmp_path: Path
) -> None:
    examples = keras.Input(shape)
    model = keras.Model(examples, function(examples))
    onnx_export.convert(model, "input", "output", tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert [tensor.name for tensor in session.get_inputs()] == ["input"]
    values = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    values[0, 0], values[1, 0] = 0.0, -0.0
    for batch in (values, values[:1]):
        output = session.run(["output"], {"input": batch})[0]
        np.testing.assert_allclose(output, np.asarray(model(batch, training=False)), atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            layers.Lambda(lambda x: ops.cast(tf.bitcast(x, "int32"), "float32"), name="bits"),
            (4,),
            r"in the layer bits \(Lambda\): .*operation Bitcast",
        ),
        (layers.Hashing(3, name="hash"), (1,), r"in the layer hash \(Hashing\): .*StringToHashBucketFast"),
    ],
)
def test_the_error_names_the_layer_that_cannot_be_converted(
    layer: Any, shape: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    examples = keras.Input(shape, dtype="int32" if layer.name == "hash" else "float32")
    model = keras.Model(examples, layers.Activation("relu", name="after")(layer(examples)))
    with pytest.raises(TrainError, match=message):
        onnx_export.convert(model, "input", "output", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize("kind", ["models", "layers"])
def test_export_of_all_keras_models_and_layers(kind: str, tmp_path: Path) -> None:
    program = Path(__file__).parents[3] / "benchmarks" / "export_coverage.py"
    subprocess.run([sys.executable, program, kind, "--output", tmp_path / "results.md"], check=True)
