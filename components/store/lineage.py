"""What the history says: pure functions on its entries.

Each entry names the one it came after, and the champion pointer names the last: that chain is the truth,
and an entry outside it is an attempt that no pointer ever named.
"""

from collections.abc import Sequence

from modelyard.components.store.records import HistoryEntry


def marked(entries: Sequence[HistoryEntry], head: int) -> list[HistoryEntry]:
    """Return `entries` in order, with `attempt` True for those outside the chain that ends at `head`."""
    by_number = {entry.number: entry for entry in entries}
    effective = set()
    while head in by_number:
        effective.add(head)
        head = by_number[head].after
    return [
        by_number[number].model_copy(update={"attempt": number not in effective})
        for number in sorted(by_number)
    ]


def before(entries: Sequence[HistoryEntry], target: int) -> int | None:
    """Return what a rollback from `target` would go back to, once `target` was itself rolled back to.

    Promotions are a stack, and a rollback takes off what came after its target: after promotions of 1, 2
    and 3 and a rollback to 2, the next one goes to 1 and not to 3. `entries` are the effective ones.
    """
    stack: list[int] = []
    for entry in entries:
        if entry.action == "promote":
            stack.append(entry.version)
        else:
            stack = _down_to(stack, entry.version)
    stack = _down_to(stack, target)
    return stack[-2] if len(stack) > 1 else None


def _down_to(stack: list[int], version: int) -> list[int]:
    """Return `stack` without what is above `version`, which takes the top's place if it is not there."""
    if version not in stack:
        return [*stack[:-1], version]
    last = len(stack) - 1 - stack[::-1].index(version)
    return stack[: last + 1]


def rolled_back(entries: Sequence[HistoryEntry], version: int) -> HistoryEntry | None:
    """Return the rollback that left `version`, unless `version` became champion again since.

    `entries` are the effective ones, oldest first.
    """
    for entry in reversed(entries):
        if entry.version == version:
            return None
        if entry.action == "rollback" and entry.previous == version:
            return entry
    return None
