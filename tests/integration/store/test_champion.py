"""The champion pointer and its history, on a folder and in a bucket."""

from collections.abc import Callable

import pytest

from modelyard.components.artifacts import Manifest
from modelyard.components.errors import ConflictError, NotFoundError, StoreError
from modelyard.components.store import models
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.objects import Objects
from modelyard.components.store.records import HistoryEntry
from modelyard.components.store.settings import Store

Publish = Callable[[str], int]
MakeManifest = Callable[[str, int, str], Manifest]


def promote(store: ModelStore, *versions: int) -> None:
    for version in versions:
        store.promote("digits", version, reason=f"promote {version}", by="test")


def test_a_promotion_moves_the_pointer_and_adds_to_the_history(store: ModelStore, publish: Publish) -> None:
    first, second = publish("one"), publish("two")
    promote(store, first, second)
    champion = store.champion("digits")
    assert champion
    assert (champion.version, champion.previous, champion.history) == (second, first, 2)
    assert (champion.run, champion.digest) == ("two", store.digest("digits", second))
    entries = [
        (entry.number, entry.action, entry.version, entry.previous) for entry in store.history("digits")
    ]
    assert entries == [(1, "promote", 1, None), (2, "promote", 2, 1)]
    last = store.history("digits")[-1]
    assert (last.reason, last.by, last.run, last.attempt) == ("promote 2", "test", "two", False)


def test_promoting_the_champion_again_changes_nothing(
    store: ModelStore, publish: Publish, objects: Objects
) -> None:
    version = publish("run")
    first = store.promote("digits", version, reason="good", by="pipeline", expected=0)
    assert store.promote("digits", version, reason="again", by="test") == first
    assert len(objects.keys("digits/history/")) == 1


def test_only_a_complete_version_can_be_promoted(store: ModelStore, publish: Publish) -> None:
    publish("one")
    store.reserve("digits", "killed")
    for version in (2, 3, 0):
        with pytest.raises(NotFoundError, match=rf"digits has no version {version} .*versions: 1\."):
            store.promote("digits", version, reason="", by="")
    assert store.champion("digits") is None
    assert store.history("digits") == []


def test_a_promotion_that_expected_another_champion_is_a_conflict(
    store: ModelStore, publish: Publish
) -> None:
    v1, v2, v3 = publish("one"), publish("two"), publish("three")
    with pytest.raises(ConflictError, match=r"to be version 1, and is none"):
        store.promote("digits", v2, reason="", by="", expected=v1)
    promote(store, v1, v2)
    with pytest.raises(ConflictError, match=r"to be version 1, and is version 2, so version 3 was not"):
        store.promote("digits", v3, reason="", by="", expected=v1)
    with pytest.raises(ConflictError, match=r"to be none, and is version 2"):
        store.promote("digits", v3, reason="", by="", expected=0)
    assert [entry.version for entry in store.history("digits")] == [v1, v2]
    assert store.promote("digits", v3, reason="", by="", expected=v2).previous == v2


def test_repeated_rollbacks_return_to_earlier_champions(store: ModelStore, publish: Publish) -> None:
    promote(store, publish("one"), publish("two"), publish("three"))
    pointer = store.rollback("digits", reason="wrong classes", by="me")
    assert (pointer.version, pointer.previous) == (2, 1)
    assert store.rollback("digits", reason="also wrong", by="me").version == 1
    with pytest.raises(NotFoundError, match=r"--to; versions: 1, 2, 3\."):
        store.rollback("digits", reason="", by="")
    assert store.rollback("digits", 3, reason="it was fine", by="me").version == 3
    assert [entry.action for entry in store.history("digits")] == ["promote"] * 3 + ["rollback"] * 3


def test_a_rollback_without_a_champion_or_to_a_missing_version_is_an_error(
    store: ModelStore, publish: Publish
) -> None:
    with pytest.raises(NotFoundError, match=r"There is no model digits"):
        store.rollback("digits", reason="", by="")
    promote(store, publish("one"))
    with pytest.raises(NotFoundError, match=r"no version 7"):
        store.rollback("digits", 7, reason="", by="")


def test_a_version_is_rolled_back_until_it_is_promoted_again(store: ModelStore, publish: Publish) -> None:
    promote(store, publish("one"), publish("two"))
    store.rollback("digits", reason="wrong classes", by="me")
    entry = store.find_rollback("digits", 2)
    assert entry
    assert (entry.action, entry.previous, entry.reason) == ("rollback", 2, "wrong classes")
    assert store.find_rollback("digits", 1) is None
    promote(store, 2)
    assert store.find_rollback("digits", 2) is None


def test_an_entry_of_the_history_without_a_pointer_is_an_attempt(
    store: ModelStore, publish: Publish, objects: Objects
) -> None:
    promote(store, publish("one"))
    promoted = store.history("digits")[0]
    killed = promoted.model_copy(
        update={"number": 2, "after": 1, "version": 2, "previous": 1, "action": "rollback"}
    )
    publish("two")
    objects.create("digits/history/000002.json", killed.model_dump_json(exclude={"attempt"}).encode())
    champion = store.champion("digits")
    assert champion
    assert champion.version == 1
    assert [entry.attempt for entry in store.history("digits")] == [False, True]
    assert store.find_rollback("digits", 1) is None
    assert store.promote("digits", 2, reason="again", by="test").history == 3
    history = store.history("digits")
    assert [(entry.number, entry.after, entry.attempt) for entry in history] == [
        (1, 0, False), (2, 1, True), (3, 1, False),
    ]  # fmt: skip
    assert isinstance(history[0], HistoryEntry)


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b"\xff", b'{"version": "one"}'])
def test_a_damaged_pointer_is_an_error(store: ModelStore, objects: Objects, data: bytes) -> None:
    objects.create("digits/champion.json", data)
    with pytest.raises(StoreError, match=r"digits/champion\.json is damaged.*backup") as error:
        store.champion("digits")
    assert store.url in str(error.value)


def test_reading_writes_nothing(settings: Store, objects: Objects) -> None:
    store = open_store(settings)
    store.champion("digits")
    store.history("digits")
    assert objects.keys("") == []


def test_a_version_that_was_not_promoted_is_in_the_history_as_an_attempt(store, publish):
    first, second = publish("a"), publish("b")
    store.promote("digits", first, reason="good", by="me")
    before = store.champion("digits")
    store.record_attempt("digits", second, reason="not promoted: slow", by="deploy")
    assert store.champion("digits") == before
    store.promote("digits", second, reason="better", by="me")
    history = [(entry.version, entry.attempt, entry.reason) for entry in store.history("digits")]
    assert history == [
        (first, False, "good"),
        (second, True, "not promoted: slow"),
        (second, False, "better"),
    ]
    assert store.rollback("digits", reason="r", by="me").version == first


def test_a_promotion_of_a_concurrently_removed_version_is_reverted(store, publish, objects, monkeypatch):
    first, second = publish("one"), publish("two")
    promote(store, first)
    move = store._write_pointer

    def move_and_remove(name, pointer, generation):
        moved = move(name, pointer, generation)
        for entry in objects.entries("digits/versions/000002/"):
            if entry.key.endswith("manifest.json"):
                objects.delete(entry)
        return moved

    monkeypatch.setattr(store, "_write_pointer", move_and_remove)
    with pytest.raises(NotFoundError, match=r"Version 2 .* no manifest\.json"):
        promote(store, second)
    assert store.champion("digits").version == first


def test_a_promotion_fails_after_repeated_conflicts(store, publish, monkeypatch):
    version = publish("one")
    monkeypatch.setattr(models, "CONFLICT_RETRIES", 2)
    monkeypatch.setattr(store, "_write_pointer", lambda *_: False)
    with pytest.raises(ConflictError, match="2 times in a row"):
        promote(store, version)
    assert [entry.attempt for entry in store.history("digits")] == [True, True]
