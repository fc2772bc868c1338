"""Times something that can be done n times at once, in windows, and says what one costs."""

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from modelyard.components.train.measured import Pace

T = TypeVar("T")
FEW = 8  # between fewer, the difference of two windows tells little of what one costs
SHARES = 10  # a window of few may take so many times as long as one was meant to


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
        self._warm = 0.0
        self._seen: dict[int, list[float]] = {}

    def warm(self) -> float:
        """Do one and return its seconds; it counts only where there is no time for a window."""
        self._warm = self._run(1)
        return self._warm

    def settle(self, seconds: float, least: int = 1) -> None:
        """Choose how many take about `seconds`: `least` or more, or one where that would take much longer."""
        count, took = 1, self.warm()
        while took < seconds / 4 and count < self._most:
            count = min(self._most, 2 * count)
            took = self._run(count)
        self._many = min(self._most, max(1, int(count * seconds / max(took, 1e-9))))
        if self._many < (few := min(self._most, least)):
            self._many = few if few * took / count < SHARES * seconds else 1

    def turn(self) -> None:
        """Do a window of one, and one of many."""
        for count in sorted({1, self._many}):
            self._seen.setdefault(count, []).append(self._run(count))

    def pace(self) -> Pace:
        """Return what it costs: the means, as the slow moments are part of a long run, too."""
        windows = self._seen or {1: [self._warm]}
        count, one = max(windows), float(np.mean(windows[1]))
        seen = windows[count]
        many = float(np.mean(seen))
        each = max(0.0, many - one) / (count - 1) if count > 1 else many
        low, high = np.quantile(np.asarray(seen) / many, (0.1, 0.9))
        fixed = max(0.0, many - count * each)
        return Pace(fixed=fixed, each=each, windows=len(seen), low=float(low), high=float(high), count=count)
