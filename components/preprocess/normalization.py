"""Mean and deviation of the training rows, in one pass and constant memory."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components.artifacts import Normalization
from modelyard.components.preprocess.settings import Preparation


class Moments:
    """Mean, variance, least and greatest value per channel, from batches of any size.

    The channels are the last axis of an example with one or three axes; an example with another number of
    axes has one channel. Batches are merged as in Chan, Golub and LeVeque, "Updating formulae and a
    pairwise algorithm for computing sample variances" (1979), in float64.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.channels = shape[-1] if len(shape) in (1, 3) else 1
        self.mean = np.zeros(self.channels)
        self.minimum, self.maximum = np.inf, -np.inf
        self._squares = np.zeros(self.channels)
        self._count = 0

    def add(self, examples: NDArray[Any]) -> None:
        """Add examples of shape (n, *shape)."""
        if not len(examples):
            return
        rows = examples.reshape(len(examples), -1)
        values = rows.astype(np.float64)
        width = values.shape[1] // self.channels
        count = len(values) * width
        mean = values.sum(axis=0).reshape(width, self.channels).sum(axis=0) / count
        values -= np.tile(mean, width)
        squares = np.einsum("ij,ij->j", values, values).reshape(width, self.channels).sum(axis=0)
        total, step = self._count + count, mean - self.mean
        self._squares += squares + step**2 * (self._count * count / total)
        self.mean += step * (count / total)
        self._count = total
        self.minimum = min(self.minimum, float(rows.min()))
        self.maximum = max(self.maximum, float(rows.max()))

    @property
    def deviation(self) -> NDArray[np.float64]:
        """The standard deviation per channel; 1 for a channel that never changes."""
        deviation = np.sqrt(self._squares / max(1, self._count))
        return np.where(deviation > 0, deviation, 1.0)


def normalization(preparation: Preparation, moments: Moments) -> Normalization:
    """Return what `data.normalize` says, measured on the training rows where it needs to be."""
    match preparation.normalize:
        case "scale":
            return Normalization(deviation=(preparation.scale,))
        case "standardize":
            return Normalization(
                mean=tuple(moments.mean.tolist()), deviation=tuple(moments.deviation.tolist())
            )
        case "none":
            return Normalization()
