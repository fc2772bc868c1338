"""A large batch is predicted in slices."""

import numpy as np
import pytest
from onnx import TensorProto
from onnx.helper import make_node

from modelyard.components.serve.model import Predictor
from tests.onnx_models import save_model
from tests.versions import classifier_signature


@pytest.mark.parametrize(("side", "size"), [(4, 16), (200, 3), (1000, 1)])
def test_the_size_of_a_slice_is_limited_in_examples_and_bytes(tmp_path, side, size):
    save_counting_model(tmp_path / "model.onnx", side)
    signature = classifier_signature((side, side), "float32", ("size", "nothing"))
    predictor = Predictor(tmp_path / "model.onnx", "tiny", 1, signature, 1)
    predictions = predictor.run(np.zeros((size + 1, side, side), np.float32))
    assert predictions[:, 0].tolist() == [size] * size + [1]


def save_counting_model(path, side):
    """Save a model that predicts the number of examples of its batch."""
    nodes = [
        make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        make_node("Unsqueeze", ["mean", "last"], ["column"]),
        make_node("Mul", ["column", "zero"], ["zeros"]),
        make_node("Shape", ["input"], ["size"], start=0, end=1),
        make_node("Cast", ["size"], ["count"], to=TensorProto.FLOAT),
        make_node("Add", ["zeros", "count"], ["counts"]),
        make_node("Concat", ["counts", "zeros"], ["probabilities"], axis=1),
    ]
    constants = {"axes": np.array([1, 2]), "last": np.array([1]), "zero": np.float32(0)}
    save_model(path, nodes, ("input", "float32", (side, side)), ("probabilities", [2]), constants)
