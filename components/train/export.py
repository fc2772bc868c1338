"""Exports the model as .keras, ONNX and SavedModel, and checks that all three predict the same.

Each file is loaded from disk and must predict the same as the model. TensorFlow writes ONNX and SavedModel
for both backends: a model that was trained on JAX is converted by another process from model.keras, which
does not depend on the backend. A model with a mixed-precision policy is exported in float32, the dtype of
its weights.

    python -m modelyard.components.train.export FOLDER OUTPUT PATHS [MODULE...]

FOLDER has model.keras, OUTPUT is the name of the output, PATHS is sys.path as JSON, and MODULE... are the
modules of custom layers.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components import artifacts, problems
from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.errors import TrainError, describe, find_machine_error
from modelyard.components.problems.base import INPUT, build_signature
from modelyard.components.records import Failure
from modelyard.components.step import TERMINATION_LOG_VARIABLE, step
from modelyard.components.train.backend import BACKEND, keras, tf

TOLERANCE = 1e-4
HALF_DTYPES = ("float16", "bfloat16")

Predict = Callable[[NDArray[Any]], NDArray[np.float32]]


def export(
    model: Any, schema: Schema, normalization: Normalization, examples: NDArray[Any], folder: Path
) -> None:
    """Write model.keras, model.onnx, saved_model/ and signature.json to an existing folder.

    The ONNX graph has the input and the output of the signature, with a variable batch size.

    Args:
        model: a `keras.Model` from raw examples to predictions.
        schema: of the examples.
        normalization: with the scale of the predictions, to which the tolerance is relative.
        examples: raw examples (n, *shape), n >= 1, for the check.
        folder: existing folder for the files.

    Raises:
        TrainError: the model predicts NaN or infinity; a file cannot be written or loaded, or its predictions
            differ from those of the model.
    """
    with float32_policy(model):
        expected = np.asarray(model(examples, training=False))
        if not np.isfinite(expected).all():
            raise TrainError(
                f"The model predicts {expected[~np.isfinite(expected)][0]} for training examples. Lower "
                "training.optimizer_settings.learning_rate, or set training.optimizer_settings.clipnorm: 1.0."
            )
        signature = build_signature(schema, problems.get_description(schema.problem))
        output, scale = signature.output.name, np.asarray(normalization.target_scale)

        def check(name: str, predict: Predict) -> None:
            _check_predictions(name, predict(examples), expected, scale)
            _check_predictions(name, predict(examples[:1]), expected[:1], scale)

        _write_keras(model, folder / "model.keras")
        check("model.keras", _load_keras(folder / "model.keras"))
        convert(model, output, folder)
        check("model.onnx", _load_onnx(folder / "model.onnx", output))
        check("saved_model", _load_saved_model(folder / "saved_model"))
        artifacts.write(folder / "signature.json", signature)


@contextmanager
def float32_policy(model: Any) -> Iterator[None]:
    """Let all layers compute in the dtype of their weights within the block."""
    all_layers = list(model._flatten_layers())
    layers = [layer for layer in all_layers if layer.compute_dtype != layer.variable_dtype]
    policies = [layer.dtype_policy for layer in layers]
    # A nested model casts its input to the dtype of the input layer.
    inputs = [layer for layer in all_layers if isinstance(layer, keras.layers.InputLayer)]
    dtypes = [layer.dtype for layer in inputs]
    try:
        for layer in layers:
            _set_policy(layer, layer.variable_dtype)
        for layer, dtype in zip(inputs, dtypes, strict=True):
            _set_dtype(layer, "float32" if dtype in HALF_DTYPES else dtype)
        yield
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            _set_policy(layer, policy)
        for layer, dtype in zip(inputs, dtypes, strict=True):
            _set_dtype(layer, dtype)


def _set_policy(layer: Any, policy: Any) -> None:
    layer.dtype_policy = policy
    if isinstance(layer, keras.layers.Normalization):  # recompute its mean and variance in the dtype
        if layer.input_mean is None:
            layer.finalize_state()
        else:
            layer.build(layer._build_input_shape)


def _set_dtype(layer: Any, dtype: str) -> None:
    layer._dtype = layer.output._dtype = dtype


def _check_predictions(
    name: str, actual: NDArray[np.float32], expected: NDArray[np.float32], scale: NDArray[np.float64]
) -> None:
    if actual.shape != expected.shape:
        raise TrainError(
            f"Predictions of {name} have the shape {actual.shape}, but those of the trained model "
            f"have the shape {expected.shape}. Use layers whose output shape does not depend on the batch "
            "size."
        )
    difference = float((np.abs(actual - expected) / scale).max())
    if not difference <= TOLERANCE:
        relative = "" if (scale == 1).all() else " standard deviations of the target"
        raise TrainError(
            f"{name} and the trained model predict differently: by {difference:.2g}{relative}, more than "
            f"{TOLERANCE:g}. Check for layers that are random at inference, have state, or compute with "
            "lower precision than float32."
        )


def _write_keras(model: Any, path: Path) -> None:
    try:
        model.save(path)
    except Exception as error:
        raise find_machine_error(error, path) or TrainError(
            f"The model cannot be saved as .keras: {describe(error)} Define get_config() in custom layers."
        ) from error


def _load_keras(path: Path) -> Predict:
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise TrainError(
            f"{path.name} cannot be loaded: {describe(error)} Decorate custom layers with "
            "@keras.saving.register_keras_serializable() and define get_config(); do not use Lambda layers."
        ) from error
    return lambda examples: np.asarray(model(examples, training=False))


def _load_onnx(path: Path, output: str) -> Predict:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise TrainError(
            f"ONNX Runtime cannot load the exported model: {describe(error)} Replace the layer that "
            "uses this operation."
        ) from error
    return lambda examples: np.asarray(session.run([output], {INPUT: examples})[0])


def _load_saved_model(path: Path) -> Predict:
    with chdir(path.parent):
        saved_model = tf.saved_model.load(path.name)
    return lambda examples: np.asarray(saved_model.serve(examples))


def convert(model: Any, output: str, folder: Path) -> None:
    """Write a model in float32 as model.onnx and saved_model/ to the folder of model.keras.

    Raises:
        TrainError: a format cannot be written.
    """
    if BACKEND == "tensorflow":
        from modelyard.components.train import onnx_export

        onnx_export.convert(model, INPUT, output, folder / "model.onnx")
        _write_saved_model(_inference_model(model), folder / "saved_model")
    else:
        _convert_in_child_process(output, folder)


def _inference_model(model: Any) -> Any:
    """Return the model with a fixed `training=False`, without which augmentation layers are exported too."""
    (raw,) = model.inputs
    inputs = keras.Input(raw.shape[1:], dtype=raw.dtype, name=raw.name)
    inference_model = keras.Model(inputs, model(inputs, training=False))
    _call(inference_model)
    return inference_model


def _call(model: Any) -> None:
    """Call a model with an example of zeros, because Keras exports only models that were called."""
    (examples,) = model.inputs
    model(np.zeros((1, *examples.shape[1:]), examples.dtype))


def _convert_in_child_process(output: str, folder: Path) -> None:
    """Convert model.keras on TensorFlow in a child process, which imports the modules of custom layers."""
    modules = {layer.__module__ for layer in keras.saving.get_custom_objects().values()}
    paths = json.dumps(sys.path)  # not PYTHONPATH: a path in it cannot contain a colon
    program = [sys.executable, "-P", "-m", "modelyard.components.train.export"]
    with tempfile.TemporaryDirectory() as scratch:
        record = Path(scratch) / "failure.json"
        process = subprocess.run(
            [*program, str(folder), output, paths, *sorted(modules)],
            env={**os.environ, "KERAS_BACKEND": "tensorflow", TERMINATION_LOG_VARIABLE: str(record)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        failure = Failure.parse(record.read_bytes()) if process.returncode and record.exists() else None
    if process.returncode and (failure is None or failure.exit_code != TrainError.exit_code):
        lines = process.stdout.splitlines() or ["no output"]
        raise TrainError(
            f"The conversion to ONNX and SavedModel ended with exit code {process.returncode}: "
            f"{lines[-1].strip().rstrip('.')}. Raise the memory of the step, or train on the TensorFlow "
            "backend."
        )
    if failure:
        raise failure.to_error()


def _write_saved_model(model: Any, path: Path) -> None:
    tf.get_logger().setLevel("ERROR")
    try:
        with chdir(path.parent):  # TensorFlow interprets brackets and stars in a path
            model.export(path.name, format="tf_saved_model", verbose=False)
    except Exception as error:
        raise find_machine_error(error, path) or TrainError(
            f"The model cannot be exported as SavedModel: {describe(error)} Use operations of Keras or "
            "TensorFlow in custom layers, not NumPy."
        ) from error


def main() -> None:
    """Import modules and convert the model in a folder, all named on the command line."""
    with step("export"):
        folder, output, paths, *modules = sys.argv[1:]
        sys.path[:] = json.loads(paths)
        for module in modules:
            importlib.import_module(module)
        try:
            model = keras.saving.load_model(Path(folder) / "model.keras", compile=False)
            _call(model)
        except Exception as error:
            raise TrainError(
                "The model was trained on another backend and cannot run on TensorFlow, which exports it: "
                f"{describe(error)} Use only keras.ops in custom layers."
            ) from error
        convert(model, output, Path(folder))


if __name__ == "__main__":
    main()
