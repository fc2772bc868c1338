"""Runs the ONNX file of a model on examples and scores its predictions against the targets."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components import problems
from modelyard.components.artifacts import Schema
from modelyard.components.errors import EvaluateError, describe
from modelyard.components.shards import Split

BATCH = 256

Scores = NDArray[np.float64]


class Scorer:
    """A model in ONNX Runtime; `name` is its name in error messages.

    Raises:
        EvaluateError: ONNX Runtime cannot load the file.
    """

    def __init__(self, path: Path, schema: Schema, name: str) -> None:
        import onnxruntime

        self._problem, self._size = problems.get_problem(schema.problem), len(schema.names)
        self._name = name
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:
            raise EvaluateError(
                f"{name} cannot be loaded by ONNX Runtime from {path}: {describe(error)} Train it again."
            ) from error

    def predict(self, examples: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 (n, values) for raw examples (n, *shape).

        Raises:
            EvaluateError: the model rejects the examples, or its outputs are not valid predictions.
        """
        input_name = self._session.get_inputs()[0].name
        try:
            output = np.asarray(self._session.run(None, {input_name: examples})[0])
        except Exception as error:
            raise EvaluateError(
                f"{self._name} does not take {examples.dtype} examples of shape {examples.shape[1:]}: "
                f"{describe(error)} Train it again on these features."
            ) from error
        self._check(output, len(examples))
        return output.astype(np.float32, copy=False)

    def _check(self, output: NDArray[Any], count: int) -> None:
        if output.shape != (count, self._size):
            raise EvaluateError(
                f"{self._name} returns predictions of shape {output.shape}, but {(count, self._size)} is "
                f"expected. Set the units of its last layer to {self._size}."
            )
        if not np.isfinite(output).all():
            position = np.argwhere(~np.isfinite(output))[0]
            raise EvaluateError(
                f"{self._name} predicts {output[tuple(position)]} as value {position[1]} of a "
                "prediction. Lower the learning rate or check the normalization, and train again."
            )
        self._problem.check_predictions(output, self._name)

    def score(self, split: Split) -> Scores:
        """Return the scores of all examples of a split, float64 (n, m); m depends on the problem."""
        compute = self._problem.compute_scores
        return np.concatenate([compute(self.predict(x), targets) for x, targets in split.batches(BATCH)])
