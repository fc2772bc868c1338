"""Runs of this machine, or followed from it: their folders, and what the cache has of them."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from modelyard.components.artifacts import read
from modelyard.components.errors import DataError
from modelyard.pipelines.maintenance.place import Place, began
from modelyard.pipelines.maintenance.thing import Thing, age, latest
from modelyard.pipelines.runners.runs import NAME, RunSummary


def find(place: Place) -> Iterator[Thing]:
    """Yield the runs, and what a killed `gc` left of others."""
    runs = place.home / "runs"
    # one of Kubeflow Pipelines that was followed from here has its model's name in the end
    names = [path.name for path in runs.glob("*") if NAME.match(path.name)]
    kept = why_kept(place, names)
    for name in sorted(names):
        yield Thing(
            "run",
            f"{name} (this machine)",
            _size(runs / name),
            age(place.now - began(name)),
            kept.get(name),
            partial(_remove, place, name),
        )
    for path in sorted((place.home / "removed").glob("*")):
        yield Thing("run", f"{path.name} (the rest of it)", _size(path), "", None, partial(_wipe, path))


def why_kept(place: Place, names: list[str]) -> dict[str, str]:
    """Return why runs are kept: here, or in the bucket of an environment."""
    count = place.policy.runs
    kept = {name: f"younger than {place.policy.younger_than}" for name in names if began(name) > place.oldest}
    kept |= dict.fromkeys(latest(names, count), f"one of the last {count}")
    kept |= dict.fromkeys(place.alive(), "it runs")
    for name in list(kept):
        kept = {**dict.fromkeys(_uses(place.home / "runs" / name), f"{name} uses it"), **kept}
    return kept


def forget(home: Path, name: str) -> None:
    """Take what the cache has of a run: no run that starts after that uses it."""
    for entry in (home / "cache").glob("*.json"):
        with suppress(FileNotFoundError):  # somebody else was faster
            if f"/{name}/" in entry.read_text(encoding="utf-8"):
                entry.unlink()


def _uses(run: Path) -> tuple[str, ...]:
    """Return the runs whose artifacts a run took from the cache."""
    if not (run / "run.json").is_file():
        return ()
    try:
        return read(run / "run.json", RunSummary).uses
    except DataError:  # of an older modelyard
        return ()


def _remove(place: Place, name: str) -> bool:
    forgotten = place.home / "runs" / name / "forgotten"
    if forgotten.parent.is_dir() and not forgotten.exists():
        forget(place.home, name)
        forgotten.touch()
    if forgotten.exists() and place.alive_since_before(forgotten.stat().st_mtime):
        return False
    removed = place.home / "removed" / name
    removed.parent.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        (place.home / "runs" / name).rename(removed)  # at once: nobody sees half a run
    return _wipe(removed)


def _wipe(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
