"""The history of a model: attempts, and the target of a rollback."""

from modelyard.components.store import records
from modelyard.components.store.records import Action, HistoryEntry


def entry(number: int, after: int, action: Action, version: int, previous: int | None) -> HistoryEntry:
    return HistoryEntry(
        number=number, after=after, action=action, version=version, previous=previous,
        digest="d", run="r", reason="because", by="me", at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def chain(*moves: tuple[Action, int]) -> list[HistoryEntry]:
    entries: list[HistoryEntry] = []
    for number, (action, version) in enumerate(moves, 1):
        previous = entries[-1].version if entries else None
        entries.append(entry(number, number - 1, action, version, previous))
    return entries


def test_an_entry_outside_the_chain_is_an_attempt() -> None:
    entries = [
        entry(1, 0, "promote", 1, None),
        entry(3, 2, "promote", 5, 2),  # 4 moved the pointer
        entry(2, 1, "promote", 2, 1),
        entry(4, 2, "promote", 3, 2),
        entry(5, 4, "promote", 9, 3),  # killed before it moved the pointer
    ]
    marked = records.mark_attempts(entries, head=4)
    assert [item.number for item in marked] == [1, 2, 3, 4, 5]
    assert [item.number for item in marked if item.attempt] == [3, 5]


def test_entries_before_a_missing_entry_remain_in_the_chain() -> None:
    first, second, attempt, _, last = chain(*[("promote", version) for version in range(1, 6)])
    entries = [first, second, attempt.model_copy(update={"attempt": True, "after": 2}), last]
    marked = records.mark_attempts(entries, head=5)
    assert [item.number for item in marked if item.attempt] == [3]


def test_without_a_pointer_every_entry_is_an_attempt() -> None:
    assert [item.attempt for item in records.mark_attempts(chain(("promote", 1)), head=0)] == [True]


def test_a_second_rollback_returns_to_an_earlier_version() -> None:
    entries = chain(("promote", 1), ("promote", 2), ("promote", 3))
    assert records.rollback_target(entries, 2) == 1
    entries = chain(("promote", 1), ("promote", 2), ("promote", 3), ("rollback", 2))
    assert records.rollback_target(entries, 1) is None


def test_a_rollback_after_a_repeated_promotion_returns_to_the_first() -> None:
    entries = chain(("promote", 1), ("promote", 2), ("promote", 1))
    assert records.rollback_target(entries, 2) == 1


def test_the_rollback_target_of_a_version_that_never_was_champion_is_the_previous_champion() -> None:
    entries = chain(("promote", 1), ("promote", 3))
    assert records.rollback_target(entries, 2) == 1


def test_a_promotion_of_the_version_ends_its_rollback() -> None:
    history = chain(("promote", 1), ("promote", 2), ("rollback", 1))
    assert records.find_rollback(history, 2) == history[-1]
    assert records.find_rollback(history, 1) is None
    assert (
        records.find_rollback(chain(("promote", 1), ("promote", 2), ("rollback", 1), ("promote", 2)), 2)
        is None
    )
    later = chain(("promote", 1), ("promote", 2), ("rollback", 1), ("promote", 3))
    assert records.find_rollback(later, 2) == later[2]
