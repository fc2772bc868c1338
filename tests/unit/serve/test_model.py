"""A version is run on slices of a large batch."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelyard.components.serve.model import Predictor
from tests.versions import classifier_signature


@pytest.mark.parametrize(("side", "size"), [(4, 16), (200, 3), (1000, 1)])
def test_the_size_of_a_slice_is_limited_in_examples_and_bytes(tmp_path, side, size):
    predictor = Predictor(save_counting_model(tmp_path, side), "tiny", 1, signature(side), 1)
    predictions = predictor.run(np.zeros((size + 1, side, side), np.float32))
    assert predictions[:, 0].tolist() == [size] * size + [1]


def signature(side):
    return classifier_signature((side, side), "float32", ("size", "nothing"))


def save_counting_model(folder, side):
    """Return a model that answers with the number of examples that it is given at once."""
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        node("Unsqueeze", ["mean", "last"], ["column"]),
        node("Mul", ["column", "zero"], ["zeros"]),
        node("Shape", ["input"], ["size"], start=0, end=1),
        node("Cast", ["size"], ["count"], to=TensorProto.FLOAT),
        node("Add", ["zeros", "count"], ["counts"]),
        node("Concat", ["counts", "zeros"], ["probabilities"], axis=1),
    ]
    values = {"axes": np.array([1, 2]), "last": np.array([1]), "zero": np.float32(0)}
    graph = helper.make_graph(
        nodes,
        "counting",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", side, side])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in values.items()],
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path
