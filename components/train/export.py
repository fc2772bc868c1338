"""Writes the model as .keras, ONNX and SavedModel, and checks that all three predict the same.

Each file is loaded again from disk and asked about real rows: what cannot be read back, or answers
otherwise, is not exported.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components import artifacts
from modelyard.components.artifacts import Schema, Signature
from modelyard.components.errors import TrainError
from modelyard.components.train import conversion
from modelyard.components.train.backend import keras, tf
from modelyard.components.train.cause import said
from modelyard.components.train.conversion import OUTPUT

TOLERANCE = 1e-4

Predict = Callable[[NDArray[Any]], NDArray[np.float32]]


def export(model: Any, schema: Schema, rows: NDArray[Any], directory: Path) -> None:
    """Write model.keras, model.onnx, saved_model/ and signature.json.

    The ONNX graph has the input `input` and the output `probabilities`, with any number of rows.

    Args:
        model: a `keras.Model` from raw examples to probabilities.
        schema: what the examples are.
        rows: raw examples (n, *shape), n >= 1, for the check.
        directory: where the files go; it exists.

    Raises:
        TrainError: the model gives no numbers, or a format cannot be written or read back, or predicts
            otherwise than the model.
    """
    expected = np.asarray(model(rows, training=False))
    if not np.isfinite(expected).all():
        raise TrainError(
            f"The model predicts {expected[~np.isfinite(expected)][0]} for training rows, so its weights are "
            "lost. Lower training.optimizer_settings.learning_rate, or set clipnorm: 1.0 beside it."
        )
    _write_keras(model, directory / "model.keras")
    _check("model.keras", _load_keras(directory / "model.keras"), rows, expected)
    conversion.convert(model, directory)
    _check("model.onnx", _load_onnx(directory / "model.onnx"), rows, expected)
    _check("saved_model", _load_saved_model(directory / "saved_model"), rows, expected)
    signature = Signature(shape=schema.shape, dtype=schema.dtype, classes=schema.classes, image=schema.image)
    artifacts.write(directory / "signature.json", signature)


def _check(name: str, predict: Predict, rows: NDArray[Any], expected: NDArray[np.float32]) -> None:
    _check_same(name, predict(rows), expected)
    _check_same(name, predict(rows[:1]), expected[:1])


def _check_same(name: str, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    if found.shape != expected.shape:
        raise TrainError(
            f"{name} gives {found.shape} where the trained model gives {expected.shape}. Use layers whose "
            "output does not depend on the number of rows."
        )
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise TrainError(
            f"{name} predicts otherwise than the trained model: probabilities differ by {difference:.2g}, "
            f"more than {TOLERANCE:g}. Look for layers that are random at inference, keep state, or compute "
            "in less than float32."
        )


def _write_keras(model: Any, path: Path) -> None:
    try:
        model.save(path)
    except Exception as error:
        raise TrainError(
            f"The model cannot be saved as .keras: {said(error)} Give each layer of your own a get_config()."
        ) from error


def _load_keras(path: Path) -> Predict:
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise TrainError(
            f"{path.name} cannot be loaded again: {said(error)} Decorate each layer of your own with "
            "@keras.saving.register_keras_serializable() and give it a get_config(); use no Lambda layer."
        ) from error
    return lambda rows: np.asarray(model(rows, training=False))


def _load_onnx(path: Path) -> Predict:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
    except Exception as error:
        raise TrainError(
            f"ONNX Runtime cannot run the exported model: {said(error)} Replace the layer that it names."
        ) from error
    if names != ["input"]:
        raise TrainError(
            f"The exported ONNX model has the inputs {', '.join(names)} instead of `input` alone: a layer "
            "holds tensors that are neither weights nor Python numbers. Make them weights, with add_weight()."
        )
    return lambda rows: np.asarray(session.run([OUTPUT], {"input": rows})[0])


def _load_saved_model(path: Path) -> Predict:
    served = tf.saved_model.load(str(path))
    return lambda rows: np.asarray(served.serve(rows))
