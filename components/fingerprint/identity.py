"""The work of the step `fingerprint`: what identifies the data and the run, and the champion to beat."""

import hashlib
import json
from pathlib import Path

from modelyard.components.artifacts import UNCHANGED
from modelyard.components.fingerprint.unchanged import made_of
from modelyard.components.source.location import locate
from modelyard.components.source.settings import Source
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.settings import Store

WITHOUT_EFFECT = {"source", "sha256", "timeout", "max_bytes", "endpoint"}
"""Keys of Source that do not change what ingest makes: what the data is matters, not where it lies."""


def identify(
    name: str,
    source: str,
    recipe: str,
    store: str,
    root: str,
    skip_unchanged: bool,
    force_after: int,
    run: str,
    champion: str,
    data: str,
) -> str:
    """Return what ingest is asked for, or "unchanged"; write the data's and the run's fingerprint.

    Args:
        name: the model's name.
        source: Source as JSON.
        recipe: fingerprint of the configuration and the code that decide the result.
        store: Store as JSON.
        root: where the artifacts of the run are, on a cluster.
        skip_unchanged: end the run when the champion was made of the same data, configuration and code.
        force_after: seconds after whose passing such a champion is trained again all the same; 0: never.
        run: file for the run's fingerprint.
        champion: file for the version to compare with; 0 when there is none.
        data: file for the data's fingerprint.

    Raises:
        ConfigError: `data.source` or `store.url` is no address that modelyard knows.
        DataError: the data is missing or cannot be looked at.
        StoreError: the model store cannot be read.
    """
    found = asked = data_fingerprint(Source.of(source))
    models = open_store(Store.of(store))
    made = made_of(models, name, found, recipe) if skip_unchanged else None
    if made and (times := made.overdue(force_after)):
        _say(f"version {made.version} is the champion for longer than {force_after} s: it is trained again")
        asked = _digest({"data": found, "again": times})
    this = _digest({"data": asked, "recipe": recipe})
    version = champion_of(models, name, this)
    _write(Path(run), this)
    _write(Path(champion), str(version))
    _write(Path(data), found)
    if made and asked == found:
        _say(f"{UNCHANGED}: {made.reason()}")
        return UNCHANGED
    beaten = f"version {version}" if version else "none yet"
    _say(f"data {found[:12]}, run {this[:12]}, champion to compare with: {beaten}")
    return _digest({"data": asked, "root": root}) if root else asked


def data_fingerprint(source: Source) -> str:
    """Return one SHA-256 over what the data is and what makes examples of it; nothing is fetched."""
    made = source.model_dump(mode="json", exclude=WITHOUT_EFFECT)
    return _digest({**made, "identity": locate(source).identity()})


def champion_of(store: ModelStore, name: str, run: str) -> int:
    """Return the version that a run must be compared with; 0 when there is none.

    It is the champion, or, when this very run made the champion, the version that it was compared with then.
    """
    current = store.champion(name)
    if current is None:
        return 0
    if current.run == run:
        return store.manifest(name, current.version).decision.champion or 0
    return current.version


def _digest(value: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _say(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201 - the step's log


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
