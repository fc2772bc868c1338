"""What training keeps in a device's memory, and whether that fits.

weights + gradients + optimizer        exact: P · 16 bytes with Adam in float32
+ the larger of two upper bounds, as memory is reused:
  activations kept for the backward pass + the largest operation on them + the batch
  the largest operation on what is shaped as the variables, while they change

It fits when the upper bound is below 0.8 of the memory, it does not when weights and optimizer alone are
above 0.95 of it (a gradient may be applied and forgotten before the next is made), and between these only a
probe knows: what the driver, the libraries and fragmentation take is not in the graph.
"""

from typing import Literal

from pydantic import computed_field

from modelyard.components.artifacts import Record
from modelyard.components.train.measured import Traced

SURE, HOPELESS = 0.8, 0.95
Fit = Literal["fits", "does not fit", "unknown"]


class Memory(Record):
    """Bytes on one device; `each` is an example's part of what is not as large whatever the batch.

    `bounded` is False when the graph has what is not understood, which may keep more.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    working: int
    updating: int
    batch: int
    each: float
    bounded: bool

    @computed_field  # type: ignore[prop-decorator]
    @property
    def fixed(self) -> int:
        """Return what is needed whatever the batch, all gradients at once."""
        return self.weights + self.gradients + self.optimizer

    @computed_field  # type: ignore[prop-decorator]
    @property
    def most(self) -> int:
        """Return the upper bound, if there is one."""
        return self.fixed + max(self.activations + self.working + self.batch, self.updating)

    def fit(self, capacity: float) -> Fit:
        """Say whether it fits into a device's memory of so many bytes."""
        if self.weights + self.optimizer > HOPELESS * capacity:
            return "does not fit"
        return "fits" if self.bounded and self.most < SURE * capacity else "unknown"

    def largest_batch(self, capacity: float) -> int:
        """Return about the largest batch that fits for sure; 0 when not even one example does."""
        room = SURE * capacity - self.fixed
        return int(room / self.each) if self.each and self.updating < room else 0


def memory(traced: Traced) -> Memory:
    """Return what a traced step keeps in memory."""
    moving = traced.activations + traced.working + traced.batch
    return Memory(
        weights=traced.weights,
        gradients=traced.gradients,
        optimizer=traced.optimizer,
        activations=traced.activations,
        working=traced.working,
        updating=traced.updating,
        batch=traced.batch,
        each=moving / traced.batch_size,
        bounded=not traced.lower_bound,
    )
