"""Times something that can be done n times at once, in windows, and says what one costs."""

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from components.train.measured import Pace

T = TypeVar("T")


def timed(what: Callable[[], T]) -> tuple[float, T]:
    """Return how many seconds a call took, and what it returned."""
    began = time.perf_counter()
    given = what()
    return time.perf_counter() - began, given


class Windows:
    """Windows of one pass: of a single one, which is mostly what a call costs, and of many.

    Args:
        run: does it n times and returns the seconds.
        most: how many there are at most; where all fit into a window, the window is all.
    """

    def __init__(self, run: Callable[[int], float], most: int) -> None:
        self._run, self._most, self._many = run, most, 1
        self._seen: dict[int, list[float]] = {}

    def warm(self) -> float:
        """Do one and return its seconds; it is not counted."""
        return self._run(1)

    def settle(self, seconds: float) -> None:
        """Choose how many take about `seconds`."""
        count, took = 1, self.warm()
        while took < seconds / 4 and count < self._most:
            count = min(self._most, 2 * count)
            took = self._run(count)
        self._many = min(self._most, max(1, int(count * seconds / max(took, 1e-9))))

    def turn(self) -> None:
        """Do a window of one, and one of many."""
        for count in sorted({1, self._many}):
            self._seen.setdefault(count, []).append(self._run(count))

    def pace(self) -> Pace:
        """Return what it costs: the means, as the slow moments are part of a long run, too."""
        means = {count: float(np.mean(seen)) for count, seen in self._seen.items()}
        many, one = means[self._many], means[1]
        each = max(0.0, many - one) / (self._many - 1) if self._many > 1 else many
        seen = self._seen[self._many]
        low, high = np.quantile(np.asarray(seen) / many, (0.1, 0.9))
        fixed = max(0.0, many - self._many * each)
        return Pace(fixed=fixed, each=each, windows=len(seen), low=float(low), high=float(high))
