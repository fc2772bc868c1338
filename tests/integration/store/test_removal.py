"""The removal of versions, with concurrent processes and kills."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.components.artifacts import Manifest
from modelyard.components.errors import NotFoundError
from modelyard.components.store.models import ModelStore
from modelyard.components.store.objects import Entry
from modelyard.components.store.settings import Store
from tests.integration.store.worker_processes import start_processes

Publish = Callable[[str], int]
ManifestOf = Callable[[str, int, str], Manifest]


def test_a_removed_version_loses_its_files_and_keeps_its_number(
    store: ModelStore, publish: Publish, objects, tmp_path: Path
) -> None:
    first, second = publish("first"), publish("second")
    (stored, _) = store.stored_files("digits")
    assert (stored.version, stored.complete) == (first, True)
    assert stored.size > 5000
    assert store.remove("digits", first)
    assert objects.keys("digits/versions/000001/") == ["digits/versions/000001/run.json"]
    assert store.versions("digits") == [second]
    assert [stored.version for stored in store.stored_files("digits")] == [second]
    with pytest.raises(NotFoundError):
        store.manifest("digits", first)
    assert store.remove("digits", first)  # idempotent
    assert store.reserve("digits", "third") == 3
    assert publish("first") == first  # the same run is the same version
    store.fetch("digits", first, tmp_path / "served")


def test_the_history_of_a_removed_version_can_be_read(store: ModelStore, publish: Publish) -> None:
    versions = [publish(f"run {number}") for number in range(3)]
    for version in versions:
        store.promote("digits", version, reason="better", by="test")
    assert store.remove("digits", versions[0])
    assert [entry.version for entry in store.history("digits")] == versions
    with pytest.raises(NotFoundError):
        store.rollback("digits", versions[0], reason="", by="")
    assert store.rollback("digits", reason="worse", by="test").version == versions[1]


@pytest.mark.parametrize("role", ["champion", "previous"])
def test_the_champion_and_its_predecessor_are_not_removed(
    store: ModelStore, publish: Publish, role: str
) -> None:
    first, second = publish("first"), publish("second")
    store.promote("digits", first, reason="", by="")
    store.promote("digits", second, reason="", by="")
    version = second if role == "champion" else first
    digest = store.digest("digits", version)
    assert not store.remove("digits", version)
    assert store.digest("digits", version) == digest


def test_a_killed_removal_leaves_a_complete_version_or_none(
    settings: Store, store: ModelStore, publish: Publish, tmp_path: Path
) -> None:
    for number in range(4):
        version = publish(f"run {number}")
        with start_processes(settings, 1) as [remover]:
            remover.call("remove", name="digits", version=version)
            time.sleep(number * 0.006)
            remover.kill()
        if version in store.versions("digits"):
            store.fetch("digits", version, tmp_path / "served")
        else:
            assert not any(
                stored.complete for stored in store.stored_files("digits") if stored.version == version
            )
        assert store.remove("digits", version, grace=0)
        assert store.stored_files("digits") == []


def test_two_concurrent_removals_of_a_version_succeed(
    settings: Store, store: ModelStore, publish: Publish
) -> None:
    with start_processes(settings, 2) as processes:
        for number in range(5):
            version = publish(f"run {number}")
            for process in processes:
                process.call("remove", name="digits", version=version, grace=0)
            assert [process.result() for process in processes] == [{"result": True}] * 2
            assert store.stored_files("digits") == []


def test_a_concurrent_promotion_never_points_to_a_removed_version(
    settings: Store, store: ModelStore, publish: Publish, tmp_path: Path
) -> None:
    anchor = publish("anchor")
    removals = set()
    with start_processes(settings, 2) as [promoter, remover]:
        for number in range(5):
            store.promote("digits", anchor, reason="", by="")
            version = publish(f"run {number}")
            promoter.call("promote", name="digits", version=version, reason="", by="")
            time.sleep((number % 4) * 0.002)
            remover.call("remove", name="digits", version=version)
            promoted, removed = promoter.result(), remover.result()["result"]
            champion = store.champion("digits")
            assert champion
            store.fetch("digits", champion.version, tmp_path / "served", digest=champion.digest)
            assert ("result" in promoted) == (champion.version == version)
            assert not (removed and champion.version == version)
            removals.add(removed)
            if not removed and champion.version != version:  # restored, although the promotion failed
                store.fetch("digits", version, tmp_path / "restored")
    assert removals


@pytest.mark.parametrize("settings", ["folder"], indirect=True)  # the emulator ignores preconditions
def test_a_concurrent_publication_leaves_a_complete_version_or_none(
    settings: Store, store: ModelStore, files: dict[str, Path], manifest: ManifestOf, tmp_path: Path
) -> None:
    version = store.reserve("digits", "run")
    complete = manifest("digits", version, "run")
    paths = {key: str(path) for key, path in files.items()}
    with start_processes(settings, 2) as [publisher, remover]:
        for number in range(5):
            publisher.call("publish", files=paths, manifest=complete.model_dump(mode="json"))
            time.sleep((number % 5) * 0.001)
            remover.call("remove", name="digits", version=version)
            publisher.result(), remover.result()
            if store.versions("digits"):
                store.fetch("digits", version, tmp_path / "served")
    store.publish("digits", version, files, complete)
    store.fetch("digits", version, tmp_path / "served")


def test_files_of_a_publication_in_progress_are_not_removed(
    store: ModelStore, objects, tmp_path: Path
) -> None:
    version = store.reserve("digits", "run")
    (tmp_path / "model.onnx").write_bytes(b"partial")
    objects.upload("digits/versions/000001/model.onnx", tmp_path / "model.onnx")
    assert not store.remove("digits", version)
    assert [files.complete for files in store.stored_files("digits")] == [False]
    assert store.remove("digits", version, grace=0)
    assert store.stored_files("digits") == []


def test_a_champion_is_not_removed_while_another_removal_restores_its_manifest(
    store: ModelStore, publish: Publish, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    version = publish("one")
    store.promote("digits", version, reason="", by="")
    objects = store._objects
    read = objects.read

    def read_without_manifest(key: str) -> tuple[bytes, str]:
        if key.endswith("manifest.json"):  # as if another removal had moved it
            raise NotFoundError(key)
        return read(key)

    def delete(entry: Entry) -> bool:
        assert entry.key.endswith("manifest.json")
        return True

    with monkeypatch.context() as patch:
        patch.setattr(objects, "read", read_without_manifest)
        patch.setattr(objects, "delete", delete)
        assert store.remove("digits", version) is False
    store.fetch("digits", version, tmp_path / "served")
