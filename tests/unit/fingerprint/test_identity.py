import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import pytest

from modelyard.components import lifeline, records
from modelyard.components.artifacts import Decision, Identity
from modelyard.components.errors import DataError, StoreError
from modelyard.components.fingerprint import identity
from modelyard.components.fingerprint.identity import data_fingerprint, earlier_champions, identify
from modelyard.components.fingerprint.spec import FingerprintSpec
from modelyard.components.source.settings import Resize, Source
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import open_objects
from tests.versions import classifier_signature, publish

Identify = Callable[..., tuple[str, str, int]]


@pytest.fixture
def settings(tmp_path: Path) -> Store:
    return Store(url=str(tmp_path / "models"))


@pytest.fixture
def store(settings: Store) -> ModelStore:
    return open_store(settings)


@pytest.fixture
def fingerprints(tmp_path: Path, settings: Store) -> Identify:
    """Run the step; give what ingest is asked for, the run's fingerprint, and the version to compare with."""

    def one(
        recipe_sha256: str = "recipe",
        source: Source = Source(kind="digits"),  # noqa: B008
        *,
        skip: bool = False,
        force_after: int = 0,
        root: str = "",
    ) -> tuple[str, str, int]:
        spec = FingerprintSpec(
            name="digits", source=source, recipe_sha256=recipe_sha256, store=settings, root=root
        )
        file = tmp_path / "outputs/identity/data"
        asked = identify(spec, skip, force_after, str(file))
        found = Identity.model_validate_json(file.read_text())
        assert found.data == data_fingerprint(source)
        return asked, found.run, found.champion

    return one


def promoted(
    store: ModelStore, run: str, compared_with: int | None, data: str = "d", recipe: str = "c"
) -> int:
    """Publish a version as `run`, which compared it with another, and make it the champion."""
    signature = classifier_signature((8, 8, 1), "uint8", ("0", "1"))
    decided = Decision(decision="promote", reason="good", champion=compared_with)
    version = publish(
        store, "digits", {}, signature, run=run, data=data, recipe_sha256=recipe, decision=decided
    )
    store.promote("digits", version, reason="good", by="test")
    return version


def npz(tmp_path: Path, content: bytes = b"data", **keys: object) -> Source:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    return Source.model_validate({"kind": "npz", "source": str(path), **keys})


def test_the_same_data_and_recipe_are_the_same_run(fingerprints: Identify) -> None:
    data, run, champion = fingerprints()
    assert fingerprints() == (data, run, champion)
    assert len(data) == len(run) == 64
    assert fingerprints("other recipe")[0] == data
    assert fingerprints("other recipe")[1] != run


def test_other_data_are_another_run(fingerprints: Identify, tmp_path: Path) -> None:
    first = fingerprints(source=npz(tmp_path, b"one"))
    second = fingerprints(source=npz(tmp_path, b"two"))
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_what_makes_other_examples_is_other_data(tmp_path: Path) -> None:
    plain = {"kind": "images", "source": npz(tmp_path).source}
    sources = [
        Source.model_validate(plain | keys)
        for keys in (
            {},
            {"channels": 1},
            {"resize": Resize(height=8, width=8)},
            {"resize": Resize(height=8, width=8, policy="pad")},
            {"sha256": "0" * 64},
            {"kind": "npz"},
            {"kind": "npz", "classes": ["cat", "dog"]},
        )
    ]
    assert len({data_fingerprint(source) for source in sources}) == len(sources)


def test_where_data_lie_and_how_they_are_fetched_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = npz(tmp_path / "elsewhere", timeout=1.0, max_bytes=2**20)
    assert data_fingerprint(moved) == data_fingerprint(npz(tmp_path))


def test_artifacts_of_another_root_are_not_asked_for_and_the_run_is_the_same(fingerprints: Identify) -> None:
    asked, run, _ = zip(
        *(fingerprints(root=root) for root in ("", "gs://a/runs", "gs://b/runs")), strict=True
    )
    assert len(set(asked)) == 3
    assert len(set(run)) == 1


def test_missing_data_leave_no_run(fingerprints: Identify, tmp_path: Path) -> None:
    source = Source(kind="npz", source=str(tmp_path / "gone.npz"))
    with pytest.raises(DataError, match=r"gone\.npz"):
        fingerprints(source=source)
    assert not (tmp_path / "outputs").exists()


def test_the_first_run_has_nothing_to_compare_with(fingerprints: Identify) -> None:
    assert fingerprints()[2] == 0


def test_a_new_run_is_compared_with_the_champion(fingerprints: Identify, store: ModelStore) -> None:
    promoted(store, "an older run", None)
    second = promoted(store, "another run", 1)
    assert fingerprints()[2] == second
    store.rollback("digits", reason="wrong", by="test")
    assert fingerprints()[2] == 1


@pytest.mark.parametrize("compared_with", [None, 1])
def test_the_run_that_made_the_champion_is_compared_as_it_was_then(
    fingerprints: Identify, store: ModelStore, compared_with: int | None
) -> None:
    promoted(store, "an older run", None)
    promoted(store, fingerprints()[1], compared_with)
    assert fingerprints()[2] == (compared_with or 0)
    assert fingerprints("other recipe")[2] == 2


# Skipping


@pytest.fixture
def made(fingerprints: Identify, store: ModelStore) -> str:
    """Make a champion of the digits with `recipe`; return their fingerprint."""
    data, run, _ = fingerprints()
    promoted(store, run, None, data, "recipe")
    return data


def test_a_run_that_is_to_skip_ends_when_the_champion_was_made_of_the_same(
    fingerprints: Identify, made: str, settings: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(records.RUN_ID, "r1")
    assert fingerprints(skip=True)[0] == "unchanged"
    decided = records.read_run(open_objects(settings), "digits", "r1").final_decision()
    assert decided is not None
    assert decided[0] == "unchanged"
    assert decided[1].startswith("version 1, the champion since ")
    monkeypatch.setenv(records.RUN_ID, "r2")
    assert fingerprints()[0] == made
    found = records.read_run(open_objects(settings), "digits", "r2")
    assert found.start is not None
    assert (found.start.data, found.start.champion, found.final_decision()) == (made, 0, None)


def test_a_run_that_is_to_skip_goes_on_when_anything_is_new(
    fingerprints: Identify, store: ModelStore, made: str, tmp_path: Path
) -> None:
    assert fingerprints("other recipe", skip=True)[0] == made
    assert fingerprints(source=npz(tmp_path), skip=True)[0] != "unchanged"
    promoted(store, "another run", 1)
    assert fingerprints(skip=True)[0] == made
    store.rollback("digits", reason="wrong", by="test")
    assert fingerprints(skip=True)[0] == "unchanged"


def test_the_champions_before_count_unless_they_were_rolled_back(store: ModelStore) -> None:
    for number in range(1, 8):
        promoted(store, f"run {number}", None)
    assert earlier_champions(store, "digits", 7) == (6, 5, 4, 3)
    store.rollback("digits", reason="wrong", by="test")
    promoted(store, "run 8", 6)
    assert earlier_champions(store, "digits", 8) == (6, 5, 4, 3)
    assert earlier_champions(store, "digits", 1) == ()


def test_without_a_champion_nothing_is_skipped(fingerprints: Identify) -> None:
    assert fingerprints(skip=True)[0] == fingerprints()[0]


def test_a_champion_that_is_too_old_is_trained_again_once_each_time(
    fingerprints: Identify, store: ModelStore, made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(days: float) -> tuple[str, str, int]:
        monkeypatch.setattr(identity, "datetime", Clock.after(days))
        return fingerprints(skip=True, force_after=10 * 86400)

    assert at(9)[0] == "unchanged"
    first = at(11)
    assert first[0] not in ("unchanged", made)
    assert (at(19), first[2]) == (first, 1)
    assert at(21)[:2] != first[:2]
    promoted(store, first[1], 1, made, "recipe")
    assert at(0)[0] == "unchanged"


class Clock(datetime):
    """A clock that is ahead."""

    ahead = timedelta()

    @classmethod
    def after(cls, days: float) -> type["Clock"]:
        return type("Ahead", (cls,), {"ahead": timedelta(days=days)})

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + cls.ahead


def test_looking_at_a_file_imports_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
from modelyard.components.fingerprint.identity import identify
from modelyard.components.fingerprint.spec import FingerprintSpec
given = {"name": "digits", "source": {"kind": "digits"}, "recipe_sha256": "r", "store": {"url": "models"}}
identify(FingerprintSpec.model_validate(given), True, 9, "identity")
heavy = ("numpy", "google", "httpx", "requests", "sklearn", "tensorflow", "kfp", "pyarrow")
assert not [name for name in heavy if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_a_store_in_which_no_champion_could_move_is_refused_before_the_training(
    fingerprints: Identify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(records.RUN_ID, "20260101-000000-aaaa")

    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lifeline.fcntl, "flock", no_locks)
    with pytest.raises(StoreError, match=r"store\.url"):
        fingerprints()
