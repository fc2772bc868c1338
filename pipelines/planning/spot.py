"""What it costs to train on machines that are taken away.

An attempt that is cut off goes on from its last checkpoint, and one without any begins again. With C seconds
for a checkpoint, one every τ seconds, a mean time of M between preemptions and R until an attempt trains
again, T seconds of work take

    T / τ · M · e^(R/M) · (e^((τ + C) / M) - 1)        Daly, 2006; without checkpoints τ = T and C = 0

which is least near τ = √(2 · C · M) (Young, 1974). Checkpoints are made after an epoch, so τ is at least one.

M is known for no zone, so a plan shows three of them instead of one number.
"""

import math

from modelyard.components.artifacts import Record

HOURS = (1.0, 6.0, 24.0)
NEVER = 30.0
WRITE = 100e6  # bytes a second to a bucket


class Preempted(Record):
    """One row: how many times as long a training takes with a mean time between preemptions.

    `interval` is the best time between checkpoints in seconds, `best` what it gives, `configured` what the
    configuration gives, and `without` what a training without checkpoints takes. None: it never ends.
    """

    hours_between: float
    interval: float
    best: float | None
    configured: float | None
    without: float | None


def preempted(
    seconds: float, epochs: int, checkpoint: int, restart: float, every: float
) -> tuple[Preempted, ...]:
    """Return the table.

    Args:
        seconds: of training, undisturbed.
        epochs: that it has.
        checkpoint: bytes of the weights and the optimizer's state.
        restart: seconds until an attempt trains: a node, the image, the imports, compiling.
        every: seconds between checkpoints, as configured; 0 for none.
    """
    write, epoch = max(checkpoint / WRITE, 1e-3), seconds / epochs
    rows = []
    for hours in HOURS:
        between = hours * 3600

        def times(interval: float, between: float = between) -> float | None:
            """Return how many times as long it takes with checkpoints so far apart, in whole epochs."""
            apart = epoch * max(1, math.ceil(interval / epoch)) if interval else math.inf
            if apart >= seconds:
                return _times(seconds, 0.0, between, restart)
            return _times(apart, write, between, restart)

        interval = max(epoch, math.sqrt(2 * write * between))
        rows.append(
            Preempted(
                hours_between=hours,
                interval=interval,
                best=times(interval),
                configured=times(every),
                without=times(0.0),
            )
        )
    return tuple(rows)


def _times(apart: float, write: float, between: float, restart: float) -> float | None:
    """Return the formula's result for one second of work; None when it never ends."""
    if not apart:
        return 1.0
    if (apart + write + restart) / between > NEVER:
        return None
    return between * math.exp(restart / between) * math.expm1((apart + write) / between) / apart
