"""Writes the model as .keras, ONNX and SavedModel, and checks that all three predict the same.

Each file is loaded again from disk and predicts real rows: what cannot be read back, or predicts otherwise,
is not exported. ONNX and SavedModel are written on TensorFlow whatever backend trained: a model of JAX is
converted by another process, from model.keras, which is the same for all backends. A model with a
mixed-precision policy is exported in float32, which its weights are.

    python -m modelyard.components.train.export FOLDER OUTPUT PATHS [MODULE...]
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
from modelyard.components.errors import TrainError, describe, of_machine
from modelyard.components.problems.base import INPUT, signature_of
from modelyard.components.records import Failure
from modelyard.components.step import VARIABLE, step
from modelyard.components.train.backend import BACKEND, keras, tf

TOLERANCE = 1e-4
HALF_DTYPES = ("float16", "bfloat16")

Predict = Callable[[NDArray[Any]], NDArray[np.float32]]


def export(
    model: Any, schema: Schema, normalization: Normalization, rows: NDArray[Any], directory: Path
) -> None:
    """Write model.keras, model.onnx, saved_model/ and signature.json.

    The ONNX graph has the input and the output of the signature, with any number of rows.

    Args:
        model: a `keras.Model` from raw examples to answers.
        schema: what the examples are.
        normalization: with the scale of the answers, which the tolerance is relative to.
        rows: raw examples (n, *shape), n >= 1, for the check.
        directory: where the files go; it exists.

    Raises:
        TrainError: the model gives no numbers, or a format cannot be written or read back, or predicts
            otherwise than the model.
    """
    with float32_policy(model):
        _write_and_check(model, schema, normalization, rows, directory)


@contextmanager
def float32_policy(model: Any) -> Iterator[None]:
    """Let layers that compute in less than their weights' precision compute in it."""
    every = list(model._flatten_layers())
    layers = [layer for layer in every if layer.compute_dtype != layer.variable_dtype]
    policies = [layer.dtype_policy for layer in layers]
    # A nested model casts its input to the dtype of the input layer.
    inputs = [layer for layer in every if isinstance(layer, keras.layers.InputLayer)]
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
    if isinstance(layer, keras.layers.Normalization):  # has its mean and variance in the dtype of before
        if layer.input_mean is None:
            layer.finalize_state()
        else:
            layer.build(layer._build_input_shape)


def _set_dtype(layer: Any, dtype: str) -> None:
    layer._dtype = layer.output._dtype = dtype


def _write_and_check(
    model: Any, schema: Schema, normalization: Normalization, rows: NDArray[Any], directory: Path
) -> None:
    expected = np.asarray(model(rows, training=False))
    if not np.isfinite(expected).all():
        raise TrainError(
            f"The model predicts {expected[~np.isfinite(expected)][0]} for training rows, so its weights are "
            "lost. Lower training.optimizer_settings.learning_rate, or set clipnorm: 1.0 beside it."
        )
    signature = signature_of(schema, problems.describe(schema.problem))
    output, scale = signature.output.name, np.asarray(normalization.target_deviation)

    def check(name: str, predict: Predict) -> None:
        _check_predictions(name, predict(rows), expected, scale)
        _check_predictions(name, predict(rows[:1]), expected[:1], scale)

    _write_keras(model, directory / "model.keras")
    check("model.keras", _load_keras(directory / "model.keras"))
    convert(model, output, directory)
    check("model.onnx", _load_onnx(directory / "model.onnx", output))
    check("saved_model", _load_saved_model(directory / "saved_model"))
    artifacts.write(directory / "signature.json", signature)


def _check_predictions(
    name: str, found: NDArray[np.float32], expected: NDArray[np.float32], scale: NDArray[np.float64]
) -> None:
    if found.shape != expected.shape:
        raise TrainError(
            f"{name} gives {found.shape} where the trained model gives {expected.shape}. Use layers whose "
            "output does not depend on the number of rows."
        )
    difference = float((np.abs(found - expected) / scale).max())
    if not difference <= TOLERANCE:
        relative = "" if (scale == 1).all() else " standard deviations of the target"
        raise TrainError(
            f"{name} predicts otherwise than the trained model: answers differ by {difference:.2g}"
            f"{relative}, more than {TOLERANCE:g}. Look for layers that are random at inference, keep state, "
            "or compute in less than float32."
        )


def _write_keras(model: Any, path: Path) -> None:
    try:
        model.save(path)
    except Exception as error:
        raise of_machine(error, path) or TrainError(
            f"The model cannot be saved as .keras: {describe(error)} Give each custom layer a get_config()."
        ) from error


def _load_keras(path: Path) -> Predict:
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise TrainError(
            f"{path.name} cannot be loaded again: {describe(error)} Decorate each layer of your own with "
            "@keras.saving.register_keras_serializable() and give it a get_config(); use no Lambda layer."
        ) from error
    return lambda rows: np.asarray(model(rows, training=False))


def _load_onnx(path: Path, output: str) -> Predict:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise TrainError(
            f"ONNX Runtime cannot run the exported model: {describe(error)} Replace the layer that it names."
        ) from error
    return lambda rows: np.asarray(session.run([output], {INPUT: rows})[0])


def _load_saved_model(path: Path) -> Predict:
    with chdir(path.parent):
        served = tf.saved_model.load(path.name)
    return lambda rows: np.asarray(served.serve(rows))


def convert(model: Any, output: str, directory: Path) -> None:
    """Write model.onnx, with this name of its output, and saved_model/ beside model.keras in `directory`.

    Raises:
        TrainError: a format cannot be written.
    """
    if BACKEND == "tensorflow":
        from modelyard.components.train import onnx_export

        onnx_export.convert(model, INPUT, output, directory / "model.onnx")
        _write_saved_model(_inference_model(model), directory / "saved_model")
    else:
        _convert_in_child_process(output, directory)


def _inference_model(model: Any) -> Any:
    """Return the model with `training=False` built in: Keras' layers of augmentation take part otherwise."""
    (examples,) = model.inputs
    same = keras.Input(examples.shape[1:], dtype=examples.dtype, name=examples.name)
    predicting = keras.Model(same, model(same, training=False))
    predicting(_zero_example(examples))
    return predicting


def _zero_example(examples: Any) -> Any:
    """Return one example of zeros: Keras exports only what was called before."""
    return np.zeros((1, *examples.shape[1:]), examples.dtype)


def _convert_in_child_process(output: str, directory: Path) -> None:
    """Load model.keras on TensorFlow in a child process, with the modules that registered its layers."""
    modules = {each.__module__ for each in keras.saving.get_custom_objects().values()}
    command = [
        sys.executable,
        "-P",
        "-m",
        "modelyard.components.train.export",
        str(directory),
        output,
        json.dumps(sys.path),  # not in PYTHONPATH, where a path has no colon
        *sorted(modules),
    ]
    with tempfile.TemporaryDirectory() as scratch:
        record = Path(scratch) / "failure.json"
        variables = {"KERAS_BACKEND": "tensorflow", VARIABLE: str(record)}
        done = subprocess.run(
            command,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        failure = Failure.parse(record.read_bytes()) if done.returncode and record.exists() else None
    if done.returncode and (failure is None or failure.exit_code != TrainError.exit_code):
        lines = done.stdout.splitlines() or ["it left no message"]
        raise TrainError(
            f"The conversion to ONNX and SavedModel ended with {done.returncode}: {lines[-1].strip()} "
            "Give the step more memory, or train on the TensorFlow backend."
        )
    if failure:
        raise failure.error()


def _write_saved_model(model: Any, path: Path) -> None:
    tf.get_logger().setLevel("ERROR")
    try:
        with chdir(path.parent):  # TensorFlow takes brackets and stars in a path for a pattern
            model.export(path.name, format="tf_saved_model", verbose=False)
    except Exception as error:
        raise of_machine(error, path) or TrainError(
            f"The model cannot be exported as SavedModel: {describe(error)} Use operations of Keras or "
            "TensorFlow in layers of your own, and no NumPy."
        ) from error


def main() -> None:
    """Convert the model in the folder that the command line names, after importing the modules it names."""
    with step("export"):
        directory, output, importable, *modules = sys.argv[1:]
        sys.path[:] = json.loads(importable)
        for module in modules:
            importlib.import_module(module)
        try:
            model = keras.saving.load_model(Path(directory) / "model.keras", compile=False)
            (examples,) = model.inputs
            model(_zero_example(examples))
        except Exception as error:
            raise TrainError(
                "TensorFlow, which exports what another backend trained, cannot run the model: "
                f"{describe(error)} Use only keras.ops in custom layers."
            ) from error
        convert(model, output, Path(directory))


if __name__ == "__main__":
    main()
