import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from modelyard.components import lifeline, records
from modelyard.components.artifacts import Decision, Identity
from modelyard.components.errors import DataError, StoreError
from modelyard.components.fingerprint import identity
from modelyard.components.fingerprint.identity import find_earlier_champions, fingerprint_data, identify
from modelyard.components.fingerprint.spec import FingerprintSpec
from modelyard.components.source.settings import Resize, Source
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import open_objects
from tests.versions import classifier_signature, publish


class Fingerprints(NamedTuple):
    """The outputs of the step: the cache key, the fingerprint of the run, and the version to compare with."""

    cache_key: str
    run: str
    champion: int


Identify = Callable[..., Fingerprints]


@pytest.fixture
def settings(tmp_path: Path) -> Store:
    return Store(url=str(tmp_path / "models"))


@pytest.fixture
def store(settings: Store) -> ModelStore:
    return open_store(settings)


@pytest.fixture
def fingerprints(tmp_path: Path, settings: Store) -> Identify:
    """Return a function that runs the step."""

    def run_step(
        recipe_sha256: str = "recipe",
        source: Source = Source(kind="digits"),  # noqa: B008
        *,
        skip: bool = False,
        force_after: int = 0,
        root: str = "",
    ) -> Fingerprints:
        spec = FingerprintSpec(
            name="digits", source=source, recipe_sha256=recipe_sha256, store=settings, root=root
        )
        file = tmp_path / "outputs/identity/data"
        cache_key = identify(spec, skip, force_after, str(file))
        result = Identity.model_validate_json(file.read_text())
        assert result.data == fingerprint_data(source)
        return Fingerprints(cache_key, result.run, result.champion)

    return run_step


def publish_and_promote(
    store: ModelStore, run: str, compared_with: int | None, data: str = "d", recipe: str = "c"
) -> int:
    """Publish a version of `run`, which compared it with another version, and promote it."""
    signature = classifier_signature((8, 8, 1), "uint8", ("0", "1"))
    decision = Decision(decision="promote", reason="good", champion=compared_with)
    version = publish(
        store, "digits", {}, signature, run=run, data=data, recipe_sha256=recipe, decision=decision
    )
    store.promote("digits", version, reason="good", by="test")
    return version


def write_source(tmp_path: Path, content: bytes = b"data", **keys: object) -> Source:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    return Source.model_validate({"kind": "npz", "source": str(path), **keys})


def test_equal_data_and_recipe_have_equal_fingerprints(fingerprints: Identify) -> None:
    data, run, champion = fingerprints()
    assert fingerprints() == (data, run, champion)
    assert len(data) == len(run) == 64
    assert fingerprints("other recipe").cache_key == data
    assert fingerprints("other recipe").run != run


def test_other_data_change_the_fingerprints(fingerprints: Identify, tmp_path: Path) -> None:
    first = fingerprints(source=write_source(tmp_path, b"one"))
    second = fingerprints(source=write_source(tmp_path, b"two"))
    assert first.cache_key != second.cache_key
    assert first.run != second.run


def test_settings_of_examples_change_the_data_fingerprint(tmp_path: Path) -> None:
    plain = {"kind": "images", "source": write_source(tmp_path).source}
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
    assert len({fingerprint_data(source) for source in sources}) == len(sources)


def test_location_and_limits_do_not_change_the_data_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    moved = write_source(tmp_path / "other", timeout=1.0, max_bytes=2**20)
    assert fingerprint_data(moved) == fingerprint_data(write_source(tmp_path))


def test_another_root_changes_the_cache_key_only(fingerprints: Identify) -> None:
    cache_key, run, _ = zip(
        *(fingerprints(root=root) for root in ("", "gs://a/runs", "gs://b/runs")), strict=True
    )
    assert len(set(cache_key)) == 3
    assert len(set(run)) == 1


def test_missing_data_are_an_error_and_nothing_is_written(fingerprints: Identify, tmp_path: Path) -> None:
    source = Source(kind="npz", source=str(tmp_path / "missing.npz"))
    with pytest.raises(DataError, match=r"missing\.npz"):
        fingerprints(source=source)
    assert not (tmp_path / "outputs").exists()


def test_the_first_run_is_compared_with_no_version(fingerprints: Identify) -> None:
    assert fingerprints().champion == 0


def test_a_new_run_is_compared_with_the_champion(fingerprints: Identify, store: ModelStore) -> None:
    publish_and_promote(store, "an older run", None)
    second = publish_and_promote(store, "another run", 1)
    assert fingerprints().champion == second
    store.rollback("digits", reason="wrong", by="test")
    assert fingerprints().champion == 1


@pytest.mark.parametrize("compared_with", [None, 1])
def test_the_run_of_the_champion_is_compared_with_the_same_version_again(
    fingerprints: Identify, store: ModelStore, compared_with: int | None
) -> None:
    publish_and_promote(store, "an older run", None)
    publish_and_promote(store, fingerprints().run, compared_with)
    assert fingerprints().champion == (compared_with or 0)
    assert fingerprints("other recipe").champion == 2


# Skipping


@pytest.fixture
def champion_data(fingerprints: Identify, store: ModelStore) -> str:
    """Promote a version of the digits with `recipe`; return the fingerprint of the data."""
    data, run, _ = fingerprints()
    publish_and_promote(store, run, None, data, "recipe")
    return data


def test_skip_unchanged_ends_a_run_with_unchanged_inputs(
    fingerprints: Identify, champion_data: str, settings: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(records.RUN_ID, "r1")
    assert fingerprints(skip=True).cache_key == "unchanged"
    decision = records.read_run(open_objects(settings), "digits", "r1").final_decision()
    assert decision is not None
    assert decision[0] == "unchanged"
    assert decision[1].startswith("version 1, the champion since ")
    monkeypatch.setenv(records.RUN_ID, "r2")
    assert fingerprints().cache_key == champion_data
    result = records.read_run(open_objects(settings), "digits", "r2")
    assert result.start is not None
    assert (result.start.data, result.start.champion, result.final_decision()) == (champion_data, 0, None)


def test_skip_unchanged_continues_a_run_with_changed_inputs(
    fingerprints: Identify, store: ModelStore, champion_data: str, tmp_path: Path
) -> None:
    assert fingerprints("other recipe", skip=True).cache_key == champion_data
    assert fingerprints(source=write_source(tmp_path), skip=True).cache_key != "unchanged"
    publish_and_promote(store, "another run", 1)
    assert fingerprints(skip=True).cache_key == champion_data
    store.rollback("digits", reason="wrong", by="test")
    assert fingerprints(skip=True).cache_key == "unchanged"


def test_earlier_champions_exclude_rolled_back_versions(store: ModelStore) -> None:
    for number in range(1, 8):
        publish_and_promote(store, f"run {number}", None)
    assert find_earlier_champions(store.history("digits"), 7) == (6, 5, 4, 3)
    store.rollback("digits", reason="wrong", by="test")
    publish_and_promote(store, "run 8", 6)
    assert find_earlier_champions(store.history("digits"), 8) == (6, 5, 4, 3)
    assert find_earlier_champions(store.history("digits"), 1) == ()


def test_a_champion_of_the_same_number_in_another_store_is_another_identity(
    fingerprints: Identify, store: ModelStore, settings: Store, tmp_path: Path
) -> None:
    file, identities = tmp_path / "outputs/identity/data", set()
    for run in ("run 1", "run 2"):
        publish_and_promote(store, run, None)
        assert fingerprints().champion == 1
        identities.add(file.read_text())
        shutil.rmtree(settings.url)
    assert len(identities) == 2


def test_without_a_champion_nothing_is_skipped(fingerprints: Identify) -> None:
    assert fingerprints(skip=True).cache_key == fingerprints().cache_key


def test_force_after_trains_an_old_champion_once_per_interval(
    fingerprints: Identify, store: ModelStore, champion_data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fingerprints_after(days: float) -> Fingerprints:
        monkeypatch.setattr(identity, "datetime", Clock.after(days))
        return fingerprints(skip=True, force_after=10 * 86400)

    assert fingerprints_after(9).cache_key == "unchanged"
    first = fingerprints_after(11)
    assert first.cache_key not in ("unchanged", champion_data)
    assert (fingerprints_after(19), first.champion) == (first, 1)
    assert fingerprints_after(21)[:2] != first[:2]
    publish_and_promote(store, first.run, 1, champion_data, "recipe")
    assert fingerprints_after(0).cache_key == "unchanged"


class Clock(datetime):
    """A clock that is ahead by some days."""

    ahead = timedelta()

    @classmethod
    def after(cls, days: float) -> type["Clock"]:
        return type("Ahead", (cls,), {"ahead": timedelta(days=days)})

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + cls.ahead


def test_fingerprint_of_the_digits_imports_no_heavy_packages(tmp_path: Path) -> None:
    code = """
import sys
from modelyard.components.fingerprint.identity import identify
from modelyard.components.fingerprint.spec import FingerprintSpec
spec = {"name": "digits", "source": {"kind": "digits"}, "recipe_sha256": "r", "store": {"url": "models"}}
identify(FingerprintSpec.model_validate(spec), True, 9, "identity")
heavy = ("numpy", "google", "httpx", "requests", "sklearn", "tensorflow", "kfp", "pyarrow")
assert not [name for name in heavy if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_a_store_without_locks_is_refused_before_the_training(
    fingerprints: Identify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(records.RUN_ID, "20260101-000000-aaaa")

    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lifeline.fcntl, "flock", no_locks)
    with pytest.raises(StoreError, match=r"store\.url"):
        fingerprints()
