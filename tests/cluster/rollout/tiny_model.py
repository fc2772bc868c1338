"""Tiny ONNX models, good and bad."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_models import save_model


def write_model(path: Path, kind: str = "plain") -> None:
    """Write a model whose probability of `bright` is the mean of its input.

    slow: takes a tenth of a second or more. endless: never ends. hungry: takes 1.2 GB for a bright input.
    """
    side = 128
    loop = helper.make_graph(
        [
            helper.make_node("MatMul", ["matrix_in", "matrix_in"], ["product"]),
            helper.make_node("Tanh", ["product"], ["matrix_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "spin",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("matrix_in", TensorProto.FLOAT, [side, side]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("matrix_out", TensorProto.FLOAT, [side, side]),
        ],
    )
    turns = {"plain": 0, "slow": 4000, "endless": 10**9, "hungry": 0}[kind]
    values = {
        "last": np.array([1]),
        "one": np.float32(1),
        "zero": np.float32(0),
        "turns": np.int64(turns),
        "go": np.bool_(True),
        "matrix": np.full((side, side), 0.01, np.float32),
        "hunger": np.float32(3e8 if kind == "hungry" else 1),
    }
    fill = numpy_helper.from_array(np.array([1], np.float32))
    nodes = [
        helper.make_node("Loop", ["turns", "go", "matrix"], ["spun"], body=loop),
        helper.make_node("ReduceMean", ["spun"], ["mean_of_spun"], keepdims=0),
        helper.make_node("ReduceMean", ["input", "last"], ["p"], keepdims=1),
        helper.make_node("ReduceMax", ["p"], ["brightest"], keepdims=0),
        helper.make_node("Floor", ["brightest"], ["is_bright"]),
        helper.make_node("Mul", ["is_bright", "hunger"], ["size"]),
        helper.make_node("Cast", ["size"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "last"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["eaten"], value=fill),
        helper.make_node("ReduceSum", ["eaten"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "mean_of_spun"], ["work"]),
        helper.make_node("Mul", ["work", "zero"], ["nothing"]),
        helper.make_node("Sub", ["one", "p"], ["q"]),
        helper.make_node("Concat", ["q", "p"], ["both"], axis=1),
        helper.make_node("Add", ["both", "nothing"], ["probabilities"]),
    ]  # fmt: skip
    save_model(path, nodes, ("input", "float32", [4]), ("probabilities", [2]), values)
