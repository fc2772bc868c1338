"""Tiny ONNX models, of which some are slow or use too much memory."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_models import save_model


def write_model(path: Path, kind: str = "plain") -> None:
    """Write a model whose probability of `bright` is the mean of its input.

    plain: fast. slow: takes a tenth of a second or more. endless: never ends.
    large: uses 1.2 GB of memory for a bright input.
    """
    side = 128
    loop = helper.make_graph(
        [
            helper.make_node("MatMul", ["matrix_in", "matrix_in"], ["product"]),
            helper.make_node("Tanh", ["product"], ["matrix_out"]),
            helper.make_node("Identity", ["continue_in"], ["continue_out"]),
        ],
        "repeat",
        [
            helper.make_tensor_value_info("iteration", TensorProto.INT64, []),
            helper.make_tensor_value_info("continue_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("matrix_in", TensorProto.FLOAT, [side, side]),
        ],
        [
            helper.make_tensor_value_info("continue_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("matrix_out", TensorProto.FLOAT, [side, side]),
        ],
    )
    iterations = {"plain": 0, "slow": 4000, "endless": 10**9, "large": 0}[kind]
    values = {
        "last": np.array([1]),
        "one": np.float32(1),
        "zero": np.float32(0),
        "iterations": np.int64(iterations),
        "continue": np.bool_(True),
        "matrix": np.full((side, side), 0.01, np.float32),
        "values_if_bright": np.float32(3e8 if kind == "large" else 1),
    }
    fill = numpy_helper.from_array(np.array([1], np.float32))
    nodes = [
        helper.make_node("Loop", ["iterations", "continue", "matrix"], ["product"], body=loop),
        helper.make_node("ReduceMean", ["product"], ["mean_of_product"], keepdims=0),
        helper.make_node("ReduceMean", ["input", "last"], ["bright"], keepdims=1),
        helper.make_node("ReduceMax", ["bright"], ["brightest"], keepdims=0),
        helper.make_node("Floor", ["brightest"], ["is_bright"]),
        helper.make_node("Mul", ["is_bright", "values_if_bright"], ["size"]),
        helper.make_node("Cast", ["size"], ["number_of_values"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["number_of_values", "last"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["memory"], value=fill),
        helper.make_node("ReduceSum", ["memory"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "mean_of_product"], ["work"]),
        helper.make_node("Mul", ["work", "zero"], ["zero_work"]),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Concat", ["dark", "bright"], ["mean"], axis=1),
        helper.make_node("Add", ["mean", "zero_work"], ["probabilities"]),
    ]  # fmt: skip
    save_model(path, nodes, ("input", "float32", [4]), ("probabilities", [2]), values)
