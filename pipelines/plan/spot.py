"""What it costs to train on machines that are taken away.

With checkpoints, their best interval is that of Young and Daly, √(2 · C · M), for a checkpoint that takes C
seconds and a mean time of M between preemptions; the overhead is C / interval + (interval / 2 + restart) / M.
Without any, an attempt that is cut off begins again, and T seconds of work take M · (e^(T/M) - 1) on average.

M is known for no zone, so a plan shows three of them instead of one number.
"""

import math

from components.artifacts import Record

HOURS = (1.0, 6.0, 24.0)
NEVER = 30.0
WRITE = 100e6  # bytes a second to a bucket


class Preempted(Record):
    """One row: what a mean time between preemptions does to a training of `seconds` without any.

    `interval` is the best time between checkpoints, in seconds; `with_checkpoints` and `without` are how many
    times as long training then takes, `without` None when it never ends.
    """

    hours_between: float
    interval: float
    with_checkpoints: float
    without: float | None


def preempted(seconds: float, checkpoint: int, restart: float) -> tuple[Preempted, ...]:
    """Return the table.

    Args:
        seconds: of training, undisturbed.
        checkpoint: bytes of the weights and the optimizer's state.
        restart: seconds until an attempt trains: a node, the image, the imports, compiling.
    """
    write = checkpoint / WRITE
    rows = []
    for hours in HOURS:
        between = hours * 3600
        interval = math.sqrt(2 * max(write, 1e-3) * between)
        overhead = write / interval + (interval / 2 + restart) / between
        rows.append(
            Preempted(
                hours_between=hours,
                interval=interval,
                with_checkpoints=1 + overhead,
                without=_again(seconds / between),
            )
        )
    return tuple(rows)


def _again(share: float) -> float | None:
    """Return how many times as long work takes that begins again whenever it is cut off; None: it never ends.

    Args:
        share: its length, undisturbed, in mean times between preemptions.
    """
    if share > NEVER:
        return None
    return math.expm1(share) / share if share else 1.0
