"""Something that may go: what it is, why it may or must stay, and how it goes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["schedule", "pod", "version", "run", "artifacts", "upload", "checkpoint", "image"]


@dataclass(frozen=True)
class Thing:
    """Something that modelyard made.

    `size` is in bytes, None when nobody knows. `kept` says why it stays; None when nothing needs it, and then
    `remove` takes it away, and says whether it could: what is used again meanwhile stays. It may be called
    again, and by several at once.
    """

    kind: Kind
    name: str
    size: int | None
    why: str
    kept: str | None
    remove: Callable[[], bool]


def latest(names: Iterable[str], count: int) -> set[str]:
    """Return the last `count` names, which begin with a time or a number."""
    ordered = sorted(names)
    return set(ordered[max(0, len(ordered) - count) :])


def age(seconds: float) -> str:
    """Return an age in words."""
    days = int(seconds // 86400)
    return f"{days} days old" if days > 1 else f"{int(seconds // 3600)} hours old"
