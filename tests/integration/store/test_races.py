"""Concurrent and killed processes on the same store."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.components.artifacts import Manifest
from modelyard.components.store.models import ModelStore
from modelyard.components.store.settings import Store
from tests.integration.store.worker_processes import start_processes
from tests.processes import wait_until

Publish = Callable[[str], int]


def test_one_of_two_promotions_with_the_same_expected_champion_wins(
    settings: Store, store: ModelStore, publish: Publish
) -> None:
    versions = [publish(f"run {number}") for number in range(3)]
    winners = []
    with start_processes(settings, 2) as pair:
        for _ in range(5):
            champion = store.champion("digits")
            now = champion.version if champion else 0
            others = [version for version in versions if version != now][:2]
            for process, version in zip(pair, others, strict=True):
                process.call("promote", name="digits", version=version, reason="", by="", expected=now)
            results = [process.result() for process in pair]
            won = [result["result"]["version"] for result in results if "result" in result]
            assert [result["error"] for result in results if "error" in result] == ["ConflictError"], results
            after = store.champion("digits")
            assert after
            assert won == [after.version]
            winners += won
    history = store.history("digits")
    assert [entry.version for entry in history if not entry.attempt] == winners
    for before, entry in zip([0, *winners], [item for item in history if not item.attempt], strict=False):
        assert (entry.previous or 0) == before


def test_no_promotion_without_an_expected_champion_is_lost(
    settings: Store, store: ModelStore, publish: Publish
) -> None:
    rounds, versions = 5, [publish(f"run {number}") for number in range(4)]
    numbers = []
    with start_processes(settings, 2) as pair:
        for turn in range(rounds):
            candidates = [versions[turn % 2], versions[2 + turn % 2]]
            for process, version in zip(pair, candidates, strict=True):
                process.call("promote", name="digits", version=version, reason="", by="")
            numbers += [process.result()["result"]["history"] for process in pair]
    effective = [entry for entry in store.history("digits") if not entry.attempt]
    assert sorted(numbers) == [entry.number for entry in effective]
    assert len(set(numbers)) == 2 * rounds
    assert [entry.previous for entry in effective[1:]] == [entry.version for entry in effective[:-1]]


def test_concurrent_reservations_get_one_version_per_run(settings: Store, store: ModelStore) -> None:
    numbers = []
    with start_processes(settings, 3) as three:
        for turn in range(5):
            for process, run in zip(three, ("same", "same", "other"), strict=True):
                process.call("reserve", name="digits", run=f"{run} {turn}")
            first, second, other = (process.result()["result"] for process in three)
            assert first == second != other
            numbers += [first, other]
    assert sorted(numbers) == list(range(1, 11))
    assert store.reserve("digits", "same 3") == numbers[6]


@pytest.mark.parametrize("place", ["model.onnx", "report.html", "saved_model/variables/variables.index"])
def test_a_killed_publication_is_completed_by_the_next(
    settings: Store,
    store: ModelStore,
    files: dict[str, Path],
    manifest: Callable[[str, int, str], Manifest],
    tmp_path: Path,
    place: str,
) -> None:
    version = store.reserve("digits", "run")
    complete = manifest("digits", version, "run")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    paths = {key: str(path) for key, path in files.items()} | {place: str(pipe)}
    with start_processes(settings, 1) as [writer]:
        writer.call("publish", files=paths, manifest=complete.model_dump(mode="json"))
        wait_until(writer.waits_for_pipe)
        writer.kill()
    assert store.versions("digits") == []
    assert store.reserve("digits", "run") == version
    digest = store.publish("digits", version, files, complete)
    assert store.versions("digits") == [version]
    store.fetch("digits", version, tmp_path / "served", digest=digest)


def test_two_simultaneous_publications_of_a_version(
    settings: Store,
    store: ModelStore,
    files: dict[str, Path],
    manifest: Callable[[str, int, str], Manifest],
    tmp_path: Path,
) -> None:
    version = store.reserve("digits", "run")
    paths = {key: str(path) for key, path in files.items()}
    with start_processes(settings, 2) as pair:
        for process, created in zip(pair, ("2026-01-01", "2026-01-02"), strict=True):
            changed = manifest("digits", version, "run").model_copy(update={"created": created})
            process.call("publish", files=paths, manifest=changed.model_dump(mode="json"))
        digests = {process.result()["result"] for process in pair}
    assert digests == {store.digest("digits", version)}
    store.fetch("digits", version, tmp_path / "served", digest=digests.pop())
