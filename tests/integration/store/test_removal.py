"""Versions that go: what stays of them, and what others may do meanwhile, or a kill."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.components.artifacts import Manifest
from modelyard.components.errors import NotFoundError
from modelyard.components.store.removal import Removal, open_removal
from modelyard.components.store.settings import Store
from tests.integration.store.racers import racers

Publish = Callable[[str], int]
ManifestOf = Callable[[str, int, str], Manifest]


@pytest.fixture
def removal(settings: Store) -> Removal:
    return open_removal(settings)


def test_a_version_goes_with_its_files_and_its_number_stays(
    removal: Removal, publish: Publish, objects, tmp_path: Path
) -> None:
    first, second = publish("first"), publish("second")
    (one, _) = removal.held("digits")
    assert (one.version, one.whole) == (first, True)
    assert one.size > 5000
    assert removal.remove("digits", first)
    assert objects.keys("digits/versions/000001/") == ["digits/versions/000001/run.json"]
    assert removal.versions("digits") == [second]
    assert [held.version for held in removal.held("digits")] == [second]
    with pytest.raises(NotFoundError):
        removal.manifest("digits", first)
    assert removal.remove("digits", first)  # again
    assert removal.reserve("digits", "third") == 3
    assert publish("first") == first  # the same run is the same version
    removal.fetch("digits", first, tmp_path / "served")


def test_the_history_of_a_version_that_is_gone_can_be_read(removal: Removal, publish: Publish) -> None:
    versions = [publish(f"run {number}") for number in range(3)]
    for version in versions:
        removal.promote("digits", version, reason="better", by="test")
    assert removal.remove("digits", versions[0])
    assert [entry.version for entry in removal.history("digits")] == versions
    with pytest.raises(NotFoundError):
        removal.rollback("digits", versions[0], reason="", by="")
    assert removal.rollback("digits", reason="worse", by="test").version == versions[1]


@pytest.mark.parametrize("role", ["champion", "previous"])
def test_what_became_champion_meanwhile_stays_as_it_was(
    removal: Removal, publish: Publish, role: str
) -> None:
    first, second = publish("first"), publish("second")
    removal.promote("digits", first, reason="", by="")
    removal.promote("digits", second, reason="", by="")
    version = second if role == "champion" else first
    digest = removal.digest("digits", version)
    assert not removal.remove("digits", version)
    assert removal.digest("digits", version) == digest


def test_a_removal_killed_anywhere_leaves_a_whole_version_or_none(
    settings: Store, removal: Removal, publish: Publish, tmp_path: Path
) -> None:
    for turn in range(4):
        version = publish(f"run {turn}")
        with racers(settings, 1) as [remover]:
            remover.ask("remove", name="digits", version=version)
            time.sleep(turn * 0.006)
            remover.process.send_signal(signal.SIGKILL)
            remover.process.wait()
        if version in removal.versions("digits"):
            removal.fetch("digits", version, tmp_path / "served")
        else:
            assert not any(held.whole for held in removal.held("digits") if held.version == version)
        assert removal.remove("digits", version, grace=0)
        assert removal.held("digits") == []


def test_two_that_remove_the_same_at_once_both_see_it_gone(
    settings: Store, removal: Removal, publish: Publish
) -> None:
    with racers(settings, 2) as pair:
        for turn in range(5):
            version = publish(f"run {turn}")
            for racer in pair:
                racer.ask("remove", name="digits", version=version, grace=0)
            assert [racer.answer() for racer in pair] == [{"answer": True}] * 2
            assert removal.held("digits") == []


def test_a_promotion_at_the_same_moment_never_leads_to_a_version_that_is_gone(
    settings: Store, removal: Removal, publish: Publish, tmp_path: Path
) -> None:
    anchor = publish("anchor")
    ends = set()
    with racers(settings, 2) as [promoter, remover]:
        for turn in range(6):
            removal.promote("digits", anchor, reason="", by="")
            version = publish(f"run {turn}")
            promoter.ask("promote", name="digits", version=version, reason="", by="")
            time.sleep((turn % 4) * 0.002)
            remover.ask("remove", name="digits", version=version)
            promoted, gone = promoter.answer(), remover.answer()["answer"]
            champion = removal.champion("digits")
            assert champion
            removal.fetch("digits", champion.version, tmp_path / "served", digest=champion.digest)
            assert ("answer" in promoted) == (champion.version == version)
            assert not (gone and champion.version == version)
            ends.add(gone)
            if not gone and champion.version != version:  # put back, although the promotion gave up
                removal.fetch("digits", version, tmp_path / "back")
    assert ends


@pytest.mark.parametrize("settings", ["folder"], indirect=True)  # the emulator deletes whatever is asked
def test_a_run_that_publishes_at_the_same_moment_ends_with_a_whole_version_or_none(
    settings: Store, removal: Removal, files: dict[str, Path], manifest: ManifestOf, tmp_path: Path
) -> None:
    version = removal.reserve("digits", "run")
    whole = manifest("digits", version, "run")
    paths = {key: str(path) for key, path in files.items()}
    with racers(settings, 2) as [publisher, remover]:
        for turn in range(20):
            publisher.ask("publish", files=paths, manifest=whole.model_dump(mode="json"))
            time.sleep((turn % 5) * 0.001)
            remover.ask("remove", name="digits", version=version)
            publisher.answer(), remover.answer()
            if removal.versions("digits"):
                removal.fetch("digits", version, tmp_path / "served")
    removal.publish("digits", version, files, whole)
    removal.fetch("digits", version, tmp_path / "served")
