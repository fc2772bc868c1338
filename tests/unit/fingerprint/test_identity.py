import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from components.artifacts import Decision, Interval, Manifest, Metrics, Signature
from components.errors import DataError
from components.fingerprint.identity import data_fingerprint, identify
from components.source.settings import Resize, Source
from components.store.models import ModelStore, open_store
from components.store.settings import Store

Identify = Callable[..., tuple[str, str, int]]


@pytest.fixture
def settings(tmp_path: Path) -> Store:
    return Store(url=str(tmp_path / "models"))


@pytest.fixture
def store(settings: Store) -> ModelStore:
    return open_store(settings)


@pytest.fixture
def fingerprints(tmp_path: Path, settings: Store) -> Identify:
    """Run the step; give the fingerprints of data and run, and the version to compare with."""

    def one(recipe: str = "recipe", source: Source = Source(kind="digits")) -> tuple[str, str, int]:  # noqa: B008
        run, champion = tmp_path / "outputs/run/data", tmp_path / "outputs/champion/data"
        data = identify("digits", source.text(), recipe, settings.text(), str(run), str(champion))
        return data, run.read_text(), int(champion.read_text())

    return one


def publish(store: ModelStore, run: str, compared_with: int | None) -> int:
    """Publish a version as `run`, which compared it with another, and make it the champion."""
    version = store.reserve("digits", run)
    one = Interval(value=0.9, low=0.8, high=1.0)
    manifest = Manifest(
        model="digits", version=version, run=run, created="2026-01-01T00:00:00+00:00", data="d", code="c",
        config={}, files={}, signature=Signature(shape=(8, 8, 1), dtype="uint8", classes=("0", "1")),
        metrics=Metrics(rows=10, accuracy=one, loss=0.1, per_class=(), confusion=()),
        decision=Decision(decision="promote", reason="good", champion=compared_with), packages={},
    )  # fmt: skip
    store.publish("digits", version, {}, manifest)
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


def test_missing_data_leave_no_run(fingerprints: Identify, tmp_path: Path) -> None:
    source = Source(kind="npz", source=str(tmp_path / "gone.npz"))
    with pytest.raises(DataError, match=r"gone\.npz"):
        fingerprints(source=source)
    assert not (tmp_path / "outputs").exists()


def test_the_first_run_has_nothing_to_compare_with(fingerprints: Identify) -> None:
    assert fingerprints()[2] == 0


def test_a_new_run_is_compared_with_the_champion(fingerprints: Identify, store: ModelStore) -> None:
    publish(store, "an older run", None)
    second = publish(store, "another run", 1)
    assert fingerprints()[2] == second
    store.rollback("digits", reason="wrong", by="test")
    assert fingerprints()[2] == 1


@pytest.mark.parametrize("compared_with", [None, 1])
def test_the_run_that_made_the_champion_is_compared_as_it_was_then(
    fingerprints: Identify, store: ModelStore, compared_with: int | None
) -> None:
    publish(store, "an older run", None)
    publish(store, fingerprints()[1], compared_with)
    assert fingerprints()[2] == (compared_with or 0)
    assert fingerprints("other recipe")[2] == 2


def test_looking_at_a_file_imports_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
from components.fingerprint.identity import identify
identify("digits", '{"kind": "digits"}', "recipe", '{"url": "models"}', "run", "champion")
heavy = ("numpy", "google", "httpx", "requests", "sklearn", "tensorflow", "kfp")
assert not [name for name in heavy if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
