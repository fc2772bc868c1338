"""Writing what others write at the same time: a write that lost is tried again, with a pause and an end."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from modelyard.components.errors import ClusterError

TRIES = 60
PAUSE = 0.5  # seconds at most; two that race do not stay in step

T = TypeVar("T")


def until_written(what: str, write: Callable[[], T | None]) -> T:
    """Return what `write` returns as soon as it is not None: nobody else changed the object meanwhile.

    Args:
        what: the object, for the error.
        write: reads the object, and writes it over what it read.

    Raises:
        ClusterError: others changed it each time.
    """
    for _ in range(TRIES):
        if (written := write()) is not None:
            return written
        time.sleep(random.uniform(0, PAUSE))  # noqa: S311 - no secret
    raise ClusterError(
        f"{what} was changed by others {TRIES} times in a row, so it was not written. Its managedFields "
        "(`kubectl get -o yaml --show-managed-fields`) say who does that; stop them, then try again."
    )
