"""Small ONNX models, and the inputs of evaluate on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.helper import make_node

from modelyard.components import artifacts
from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.shards import ExampleIndex, ShardWriter, write_hashes
from tests.onnx_models import save_model as save_onnx_model
from tests.versions import classifier_signature, data_statistics, training_history

CLASSES = ("cat", "dog", "<i>emu</i>")
SHAPE = (2, 2, 3)


def save_onnx(path: Path, weights: NDArray[np.float32], activation: str, shape: tuple[int, ...]) -> None:
    """Write a model of uint8 (n, *shape): flatten, multiply by `weights`, apply the activation."""
    nodes = [
        make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        make_node("Flatten", ["f"], ["flat"]),
        make_node("MatMul", ["flat", "w"], ["logits"]),
        make_node(activation, ["logits"], ["y"]),
    ]
    save_onnx_model(path, nodes, ("x", "uint8", shape), ("y", [weights.shape[1]]), {"w": weights})


@dataclass(frozen=True)
class Inputs:
    """The inputs of evaluate, on disk."""

    root: Path

    @staticmethod
    def weights(classes: int = 3, swapped: bool = False) -> NDArray[np.float32]:
        """Return weights that predict the largest of the first values; `swapped` exchanges two classes."""
        matrix = 0.05 * np.eye(12, classes, dtype=np.float32)
        return matrix[:, [1, 0, 2]] if swapped else matrix

    def write_example_hashes(self, test: int) -> None:
        """Write the hashes 0, 1, … for the test examples, and 1000 to 1002 for three training examples."""

        def index(first: int, count: int) -> ExampleIndex:
            hashes = np.arange(first, first + count, dtype=np.uint64)
            return ExampleIndex(hashes, ("all",), np.array([count]), np.arange(count))

        write_hashes(self.root / "features", index(1000, 3), index(0, test))

    def save_model(
        self, name: str, matrix: NDArray[np.float32], activation: str = "Softmax", **changes: Any
    ) -> Path:
        folder = self.root / name
        folder.mkdir()
        fields: dict[str, Any] = {"shape": SHAPE, "dtype": "uint8", "names": CLASSES} | changes
        save_onnx(folder / "model.onnx", matrix, activation, fields["shape"])
        signature = classifier_signature(**fields)
        artifacts.write(folder / "signature.json", signature)
        return folder


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """Features of three classes, distinguished by their largest value, and a history."""
    features, history = tmp_path / "features", tmp_path / "history"
    features.mkdir()
    history.mkdir()
    labels = np.arange(600) % 3
    examples = np.random.default_rng(0).integers(0, 100, (600, 12)).astype(np.uint8)
    examples[np.arange(600), labels] = 200
    with ShardWriter(features, "test", SHAPE, "uint8") as writer:
        writer.append(examples.reshape(600, *SHAPE), labels)
    schema = Schema(shape=SHAPE, dtype="uint8", problem="classification", names=CLASSES, splits={"test": 600})
    artifacts.write(features / "schema.json", schema)
    artifacts.write(features / "statistics.json", data_statistics(targets={"train": {"examples": [600] * 3}}))
    artifacts.write(features / "normalization.json", Normalization())
    metrics = {"loss": [1.0, 0.5], "accuracy": [0.5, 0.9]}
    artifacts.write(history / "history.json", training_history(metrics=metrics))
    result = Inputs(tmp_path)
    result.write_example_hashes(600)
    return result
