"""Small ONNX models, which are written without Keras."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node

from modelyard.components.artifacts import Signature

TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


def save_model(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    model_input: tuple[str, str, Sequence[int]],
    model_output: tuple[str, Sequence[Any]],
    constants: Mapping[str, Any],
) -> None:
    """Save a model of operator set 18 for batches.

    Args:
        path: the file.
        nodes: the operations.
        model_input: the name, the dtype and the shape of an example.
        model_output: the name and the shape of a prediction, of float32.
        constants: arrays by name.
    """
    (name, dtype, shape), (output_name, output_shape) = model_input, model_output
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TYPES[dtype], ["n", *shape])],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, ["n", *output_shape])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def save_mean_model(path: Path, signature: Signature, prediction: tuple[float, ...] | None = None) -> None:
    """Save a model that predicts from the mean of its input, or always `prediction`.

    The mean of uint8 is divided by 255. It is the probability of the second class; a regression model
    predicts 1000 times the mean.
    """
    tensor, output = signature.input, signature.output
    constants = {
        "axes": np.arange(1, 1 + len(tensor.shape)),
        "scale": np.float32(1 / 255 if tensor.dtype == "uint8" else 1),
        "thousand": np.float32(1000),
        "one": np.float32(1),
        "last": np.array([1]),
        "zero": np.float32(0),
        "prediction": np.array([prediction or (0.0,) * len(output.names)], np.float32),
    }
    nodes = [
        make_node("Cast", [tensor.name], ["floats"], to=TensorProto.FLOAT),
        make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=0),
        make_node("Mul", ["mean", "scale"], ["scaled"]),
        make_node("Unsqueeze", ["scaled", "last"], ["second"]),
        make_node("Sub", ["one", "second"], ["first"]),
        make_node("Concat", ["first", "second"], ["classes"], axis=1),
    ]
    if prediction:
        nodes.append(make_node("Mul", ["classes", "zero"], ["zeros"]))
        nodes.append(make_node("Add", ["zeros", "prediction"], [output.name]))
    elif signature.problem == "regression":
        nodes.append(make_node("Mul", ["second", "thousand"], [output.name]))
    else:
        nodes.append(make_node("Identity", ["classes"], [output.name]))
    save_model(path, nodes, (tensor.name, tensor.dtype, tensor.shape), (output.name, [None]), constants)
