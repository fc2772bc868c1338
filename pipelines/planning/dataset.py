"""The data of a plan."""

from pydantic import Field

from modelyard.components.artifacts import Normalization, Record, Schema
from modelyard.pipelines.planning.quantity import Basis


class Dataset(Record):
    """The examples, and the rows of each split of the model; `features` is empty when nobody made them.

    `seconds` are those of the steps that made them here; None when they came from the cache.
    """

    examples: Schema
    normalization: Normalization
    rows: dict[str, int]
    basis: Basis
    source: str
    features: str = ""
    seconds: dict[str, float | None] = Field(default_factory=dict)

    @property
    def row_bytes(self) -> int:
        """Return the bytes of one row in a shard, with its label."""
        size = {"uint8": 1, "float32": 4}[self.examples.dtype]
        for side in self.examples.shape:
            size *= side
        return size + 8
