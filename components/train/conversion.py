"""Writes a model as ONNX and SavedModel, with Keras on TensorFlow whatever backend trained it.

A model of JAX is converted by a process of its own, from model.keras, which is the same for all backends:

    python -m modelyard.components.train.conversion FOLDER [MODULE...]

So there is one way to these files and not one a backend, and whether TensorFlow predicts what JAX trained is
checked like the rest (export.py).
"""

import importlib
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.components import lifeline
from modelyard.components.errors import TrainError, from_log
from modelyard.components.train.backend import BACKEND, keras, tf
from modelyard.components.train.cause import said

OUTPUT = "probabilities"


def convert(model: Any, directory: Path) -> None:
    """Write model.onnx and saved_model/ into `directory`, which holds model.keras.

    Raises:
        TrainError: a format cannot be written.
    """
    if BACKEND == "tensorflow":
        predicting = _predicting(model)
        _write_onnx(predicting, directory / "model.onnx")
        _write_saved_model(predicting, directory / "saved_model")
    else:
        _convert_elsewhere(directory)


def _predicting(model: Any) -> Any:
    """Return the model with `training=False` built in: Keras' layers of augmentation take part otherwise."""
    (examples,) = model.inputs
    same = keras.Input(examples.shape[1:], dtype=examples.dtype, name=examples.name)
    predicting = keras.Model(same, model(same, training=False))
    predicting(_zeros(examples))
    return predicting


def _zeros(examples: Any) -> Any:
    """Return one example of zeros: Keras exports only what was called before."""
    return np.zeros((1, *examples.shape[1:]), examples.dtype)


def _convert_elsewhere(directory: Path) -> None:
    """Let a process of its own load model.keras on TensorFlow, and whatever registered layers of it."""
    modules = {each.__module__ for each in keras.saving.get_custom_objects().values()}
    command = [
        sys.executable,
        "-m",
        "modelyard.components.train.conversion",
        str(directory),
        *sorted(modules),
    ]
    importable = os.pathsep.join(sys.path)
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": importable}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        lines = done.stdout.splitlines() or ["it left no message"]
        raise from_log(lines) or TrainError(
            f"The conversion to ONNX and SavedModel ended with {done.returncode}: {lines[-1].strip()} "
            "Give the step more memory, or train on the TensorFlow backend."
        )


def _write_onnx(model: Any, path: Path) -> None:
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Keras' own patch of tf2onnx
            model.export(path, format="onnx", verbose=False)
        _name_tensors(path)
    except Exception as error:
        raise TrainError(
            f"The model cannot be exported to ONNX: {said(error)} Replace the layer that uses this operation "
            "by layers of Keras."
        ) from error


def _name_tensors(path: Path) -> None:
    """Name the output and the axis of rows, which the converter numbers."""
    import onnx

    proto = onnx.load(path)
    (output,) = proto.graph.output
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [OUTPUT if name == output.name else name for name in names]
    output.name = OUTPUT
    for value in (*proto.graph.input, output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(proto, path)


def _write_saved_model(model: Any, path: Path) -> None:
    tf.get_logger().setLevel("ERROR")
    try:
        model.export(path, format="tf_saved_model", verbose=False)
    except Exception as error:
        raise TrainError(
            f"The model cannot be exported as SavedModel: {said(error)} Use operations of Keras or "
            "TensorFlow in layers of your own, and no NumPy."
        ) from error


def main() -> None:
    """Convert the model in the folder that the command line names, after importing the modules it names."""
    lifeline.follow()
    directory, *modules = sys.argv[1:]
    for module in modules:
        importlib.import_module(module)
    try:
        model = keras.saving.load_model(Path(directory) / "model.keras", compile=False)
        (examples,) = model.inputs
        model(_zeros(examples))
    except Exception as error:
        raise TrainError(
            f"TensorFlow, which exports what another backend trained, cannot run the model: {said(error)} "
            "Use keras.ops alone in layers of your own."
        ) from error
    convert(model, Path(directory))


if __name__ == "__main__":
    main()
