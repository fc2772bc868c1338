"""A number of a plan: what it is expected to be, between what, and what it rests on."""

from typing import Literal

from modelyard.components.artifacts import Record

Basis = Literal["counted", "measured", "given", "assumed", "unknown"]


class Quantity(Record):
    """An estimate; `low` and `high` are its interval.

    `value` is None when nothing supports a number, `high` None when nothing bounds it above: then `low` is a
    lower bound.
    """

    value: float | None
    low: float | None
    high: float | None
    why: str = ""

    def scaled(self, by: float, why: str = "") -> "Quantity":
        """Return this quantity times a number."""
        value, low, high = (None if one is None else one * by for one in (self.value, self.low, self.high))
        return Quantity(value=value, low=low, high=high, why=why or self.why)

    def plus(self, other: "Quantity") -> "Quantity":
        """Return the sum; unknown where a part is. The ends are added: parts are slow together."""
        return Quantity(
            value=_sum(self.value, other.value),
            low=(self.low or 0.0) + (other.low or 0.0),
            high=_sum(self.high, other.high),
            why="; ".join(dict.fromkeys(one for one in (self.why, other.why) if one)),
        )


def exactly(value: float) -> Quantity:
    """Return what has no interval."""
    return Quantity(value=value, low=value, high=value)


def unknown(why: str, at_least: float | None = None) -> Quantity:
    """Return what nothing supports a number for, with a lower bound if there is one."""
    return Quantity(value=None, low=at_least, high=None, why=why)


class Input(Record):
    """What a plan rests on: a fact, how it is known, from where and when."""

    name: str
    value: str
    basis: Basis
    source: str


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
