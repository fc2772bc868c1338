"""The normalization of the examples for `data.normalize`, from the moments of the training examples."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.preprocess.settings import Preparation
from modelyard.components.step import log

EXACT_SUM_EXAMPLES = 256
"""Number of uint8 examples with exact sums in uint16, and of squares in float32: 256 * 255**2 < 2**24."""
MINIMUM_RANGE, MAXIMUM_RANGE = 0.05, 20
"""Magnitudes of the training values, relative to data.scale, outside of which a warning is logged."""


class Moments:
    """Mean and standard deviation per channel, minimum and maximum, from batches of any size.

    The channels are the last axis of an example with one or three axes; an example with another number of
    axes has one channel. Batches are merged as in Chan, Golub and LeVeque, "Updating formulae and a
    pairwise algorithm for computing sample variances" (1979), in float64. The standard deviation is optional.
    """

    def __init__(self, shape: tuple[int, ...], with_standard_deviation: bool) -> None:
        self.channels = shape[-1] if len(shape) in (1, 3) else 1
        self.mean = np.zeros(self.channels)
        self.minimum, self.maximum = np.inf, -np.inf
        self._with_standard_deviation = with_standard_deviation
        self._squares = np.zeros(self.channels)
        self._count = 0

    def add(self, examples: NDArray[Any]) -> None:
        """Add examples of shape (n, *shape)."""
        size = EXACT_SUM_EXAMPLES if examples.dtype == np.uint8 else max(1, len(examples))
        for start in range(0, len(examples), size):
            batch = examples[start : start + size]
            self._add(batch.reshape(len(batch), -1))

    def _add(self, batch: NDArray[Any]) -> None:
        count = batch.size // self.channels
        sums = batch.sum(axis=0, dtype=np.uint16 if batch.dtype == np.uint8 else np.float64)
        mean = self._sum_by_channel(sums) / count
        total, step = self._count + count, mean - self.mean
        if self._with_standard_deviation:
            squares = self._sum_squared_differences(batch, mean)
            self._squares += squares + step**2 * (self._count * count / total)
        self.mean += step * (count / total)
        self._count = total
        self.minimum = min(self.minimum, float(batch.min()))
        self.maximum = max(self.maximum, float(batch.max()))

    def _sum_squared_differences(self, batch: NDArray[Any], mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum of (x - mean)**2 per channel."""
        if batch.dtype == np.uint8:  # the sum of x**2 is exact
            values = batch.astype(np.float32)
            squares = self._sum_by_channel(np.einsum("ij,ij->j", values, values))
            return squares - batch.size // self.channels * mean**2
        differences = batch - np.tile(mean, batch.shape[1] // self.channels)
        return self._sum_by_channel(np.einsum("ij,ij->j", differences, differences))

    def _sum_by_channel(self, columns: NDArray[Any]) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = columns.reshape(-1, self.channels).sum(axis=0, dtype=np.float64)
        return sums

    @property
    def standard_deviation(self) -> NDArray[np.float64]:
        """The standard deviation per channel; 1 for constant channels."""
        values = np.sqrt(self._squares / max(1, self._count))
        return np.where(values > 0, values, 1.0)


def compute_normalization(
    preparation: Preparation, moments: Moments, schema: Schema
) -> tuple[Normalization, str]:
    """Return the normalization of `data.normalize` from the training examples, and its description."""
    match preparation.normalize:
        case "scale":
            minimum, maximum = moments.minimum, moments.maximum
            scale = preparation.scale or _choose_default_scale(minimum, maximum, schema)
            origin = "from data.scale" if preparation.scale else "the default of data.scale"
            description = (
                f"training values from {minimum:.4g} to {maximum:.4g} are divided by {scale:g}, {origin}"
            )
            if not MINIMUM_RANGE * scale <= max(-minimum, maximum) <= MAXIMUM_RANGE * scale:
                log(f"{description}, which is far from their range: check data.scale.")
            return Normalization(scale=(scale,)), description
        case "standardize":
            mean, deviation = tuple(moments.mean.tolist()), tuple(moments.standard_deviation.tolist())
            description = (
                "training values are standardized: minus their mean, divided by their standard deviation"
            )
            return Normalization(mean=mean, scale=deviation), description
    return Normalization(), "values are not normalized"


def _choose_default_scale(minimum: float, maximum: float, schema: Schema) -> float:
    if schema.image:
        return 255.0
    magnitude = max(-minimum, maximum)
    if magnitude <= 1:
        return 1.0
    return next((scale for scale in (255.0, 65535.0) if scale / 2 <= magnitude <= scale), magnitude)
