"""Asks an exported ONNX model for its answers, and checks that they are probabilities of the classes."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components.errors import EvaluateError
from modelyard.components.evaluate.scoring import Scores
from modelyard.components.shards import Split

BATCH = 256
TOLERANCE = 1e-3


class Scorer:
    """A model in ONNX Runtime.

    Args:
        path: of model.onnx.
        classes: how many the model must know.
        who: what an error calls it.

    Raises:
        EvaluateError: the file is not a model that ONNX Runtime can run.
    """

    def __init__(self, path: Path, classes: int, who: str) -> None:
        import onnxruntime

        self._classes, self._who = classes, who
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:
            raise EvaluateError(
                f"{path} of {who} cannot be loaded by ONNX Runtime: {_line(error)}. Export it again."
            ) from error

    def probabilities(self, examples: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 (n, classes) for raw examples (n, *shape).

        Raises:
            EvaluateError: the model does not take the examples, or does not give probabilities.
        """
        name = self._session.get_inputs()[0].name
        try:
            output = np.asarray(self._session.run(None, {name: examples})[0])
        except Exception as error:
            raise EvaluateError(
                f"{self._who} does not take {examples.dtype} examples of shape {examples.shape[1:]}: "
                f"{_line(error)}. Export it with the signature of the features."
            ) from error
        self._check(output, len(examples))
        return output.astype(np.float32, copy=False)

    def _check(self, output: NDArray[Any], rows: int) -> None:
        if output.shape != (rows, self._classes):
            raise EvaluateError(
                f"{self._who} gives {output.shape} for {rows} rows and {self._classes} classes, not "
                f"{(rows, self._classes)}. Let its last layer have one unit per class."
            )
        if not np.isfinite(output).all():
            bad = np.argwhere(~np.isfinite(output))[0]
            raise EvaluateError(
                f"{self._who} gives {output[tuple(bad)]} for class {bad[1]}. Lower the learning rate or "
                "check the normalisation, and train again."
            )
        sums = output.sum(axis=1)
        if output.min() < -TOLERANCE or (np.abs(sums - 1) > TOLERANCE).any():
            worst = sums[np.abs(sums - 1).argmax()]
            raise EvaluateError(
                f"{self._who} gives no probabilities: a row sums to {worst:.4f} and the least value is "
                f"{output.min():.4f}. End the model with a softmax, or set model.logits."
            )

    def scores(self, split: Split) -> Scores:
        """Return the answers to every row of a split, in batches."""
        predicted: list[NDArray[np.int64]] = []
        likelihood: list[NDArray[np.float64]] = []
        for examples, labels in split.batches(BATCH):
            output = self.probabilities(examples)
            predicted.append(output.argmax(axis=1))
            likelihood.append(output[np.arange(len(labels)), labels].astype(np.float64))
        return Scores(np.concatenate(predicted), np.concatenate(likelihood))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
