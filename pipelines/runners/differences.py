"""Two sides of something, key by key: what differs."""

from collections.abc import Iterator, Mapping
from typing import Any

from modelyard.components.artifacts import Record


class Change(Record):
    """A key whose value is not the same on both sides; None where there is no value to show."""

    key: str
    before: Any = None
    after: Any = None

    def __str__(self) -> str:
        before, after = ("none" if one is None else one for one in (self.before, self.after))
        return f"{self.key}: {before} -> {after}"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return the keys with different values, in the order of the alphabet."""
    return tuple(
        Change(key=key, before=before.get(key), after=after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    )


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the dotted keys of nested sections with their values."""
    return dict(_leaves(value, prefix))


def _leaves(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, inside in value.items():
        if isinstance(inside, Mapping) and inside:
            yield from _leaves(inside, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inside
