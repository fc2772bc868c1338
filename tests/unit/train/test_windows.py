"""What windows say about something whose cost is known."""

import pytest

from modelyard.components.train.windows import Windows


class Machine:
    """Takes 2 s for a call and 0.5 s for each thing, times what `slow` says of the call."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.slow = 1.0

    def __call__(self, count: int) -> float:
        self.calls.append(count)
        return (2.0 + 0.5 * count) * self.slow


def test_a_call_and_a_thing_come_apart() -> None:
    windows = Windows(Machine(), most=1000)
    windows.settle(52.0)
    for _ in range(3):
        windows.turn()
    pace = windows.pace()
    assert pace.each == pytest.approx(0.5)
    assert pace.fixed == pytest.approx(2.0)
    assert pace.seconds(10) == pytest.approx(7.0)
    assert pace.seconds(0) == 0.0
    assert (pace.windows, pace.count) == (3, 92)
    assert (pace.low, pace.high) == (1.0, 1.0)


def test_a_window_has_no_more_than_there_are() -> None:
    machine = Machine()
    windows = Windows(machine, most=5)
    windows.settle(1000.0)
    machine.calls.clear()
    windows.turn()
    assert machine.calls == [1, 5]


def test_what_is_slow_is_done_once_a_window() -> None:
    machine = Machine()
    windows = Windows(machine, most=1000)
    windows.settle(0.001)
    machine.calls.clear()
    windows.turn()
    assert machine.calls == [1]
    assert windows.pace().seconds(4) == pytest.approx(10.0)  # of a single size, everything is of the thing


def test_slow_moments_are_part_of_it() -> None:
    machine = Machine()
    windows = Windows(machine, most=100)
    windows.settle(1000.0)
    for machine.slow in (1.0, 1.0, 1.0, 3.0):
        windows.turn()
    pace = windows.pace()
    assert pace.seconds(100) == pytest.approx(52.0 * 1.5)
    assert pace.low < 1 < pace.high


def test_few_are_made_more_so_that_their_difference_tells() -> None:
    machine = Machine()
    windows = Windows(machine, most=1000)
    windows.settle(1.0, least=8)  # one takes 2.5 s, and eight as a call would have it 20 s: too long
    machine.calls.clear()
    windows.turn()
    assert machine.calls == [1]
    windows.settle(3.0, least=8)
    machine.calls.clear()
    windows.turn()
    assert machine.calls == [1, 8]


def test_there_are_no_more_than_all_also_where_more_were_better() -> None:
    machine = Machine()
    windows = Windows(machine, most=5)
    windows.settle(3.0, least=8)
    machine.calls.clear()
    windows.turn()
    assert machine.calls == [1, 5]


def test_what_had_no_turn_is_known_by_what_made_it_warm() -> None:
    windows = Windows(Machine(), most=1000)
    windows.warm()
    pace = windows.pace()
    assert (pace.each, pace.fixed, pace.windows, pace.count) == (2.5, 0.0, 1, 1)
