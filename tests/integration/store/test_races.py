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
    with start_processes(settings, 2) as processes:
        for _ in range(5):
            champion = store.champion("digits")
            current = champion.version if champion else 0
            others = [version for version in versions if version != current][:2]
            for process, version in zip(processes, others, strict=True):
                process.call("promote", name="digits", version=version, reason="", by="", expected=current)
            results = [process.result() for process in processes]
            promoted = [result["result"]["version"] for result in results if "result" in result]
            assert [result["error"] for result in results if "error" in result] == ["ConflictError"], results
            after = store.champion("digits")
            assert after
            assert promoted == [after.version]
            winners += promoted
    history = store.history("digits")
    assert [entry.version for entry in history if not entry.attempt] == winners
    for before, entry in zip([0, *winners], [item for item in history if not item.attempt], strict=False):
        assert (entry.previous or 0) == before


def test_no_promotion_without_an_expected_champion_is_lost(
    settings: Store, store: ModelStore, publish: Publish
) -> None:
    rounds, versions = 5, [publish(f"run {number}") for number in range(4)]
    numbers = []
    with start_processes(settings, 2) as processes:
        for number in range(rounds):
            candidates = [versions[number % 2], versions[2 + number % 2]]
            for process, version in zip(processes, candidates, strict=True):
                process.call("promote", name="digits", version=version, reason="", by="")
            numbers += [process.result()["result"]["history"] for process in processes]
    effective = [entry for entry in store.history("digits") if not entry.attempt]
    assert sorted(numbers) == [entry.number for entry in effective]
    assert len(set(numbers)) == 2 * rounds
    assert [entry.previous for entry in effective[1:]] == [entry.version for entry in effective[:-1]]


def test_concurrent_reservations_get_one_version_per_run(settings: Store, store: ModelStore) -> None:
    numbers = []
    with start_processes(settings, 3) as processes:
        for number in range(5):
            for process, run in zip(processes, ("same", "same", "other"), strict=True):
                process.call("reserve", name="digits", run=f"{run} {number}")
            first, second, other = (process.result()["result"] for process in processes)
            assert first == second != other
            numbers += [first, other]
    assert sorted(numbers) == list(range(1, 11))
    assert store.reserve("digits", "same 3") == numbers[6]


@pytest.mark.parametrize(
    "blocked_file", ["model.onnx", "report.html", "saved_model/variables/variables.index"]
)
def test_a_killed_publication_is_completed_by_the_next_publication(
    settings: Store,
    store: ModelStore,
    files: dict[str, Path],
    manifest: Callable[[str, int, str], Manifest],
    tmp_path: Path,
    blocked_file: str,
) -> None:
    version = store.reserve("digits", "run")
    complete = manifest("digits", version, "run")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    paths = {key: str(path) for key, path in files.items()} | {blocked_file: str(pipe)}
    with start_processes(settings, 1) as [writer]:
        writer.call("publish", files=paths, manifest=complete.model_dump(mode="json"))
        wait_until(writer.waits_for_pipe)
        writer.kill()
    assert store.versions("digits") == []
    assert store.reserve("digits", "run") == version
    digest = store.publish("digits", version, files, complete)
    assert store.versions("digits") == [version]
    store.fetch("digits", version, tmp_path / "served", digest=digest)


def test_two_concurrent_publications_of_a_version_have_the_same_digest(
    settings: Store,
    store: ModelStore,
    files: dict[str, Path],
    manifest: Callable[[str, int, str], Manifest],
    tmp_path: Path,
) -> None:
    version = store.reserve("digits", "run")
    paths = {key: str(path) for key, path in files.items()}
    with start_processes(settings, 2) as processes:
        for process, created in zip(processes, ("2026-01-01", "2026-01-02"), strict=True):
            version_manifest = manifest("digits", version, "run").model_copy(update={"created": created})
            process.call("publish", files=paths, manifest=version_manifest.model_dump(mode="json"))
        digests = {process.result()["result"] for process in processes}
    assert digests == {store.digest("digits", version)}
    store.fetch("digits", version, tmp_path / "served", digest=digests.pop())
