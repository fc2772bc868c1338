"""The work of the step `fingerprint`: the fingerprints of data and run, and the champion to compare with.

With `skip_unchanged` it ends a run in which nothing is new: when the champion was made of the same data,
configuration and code. With `force_after` such a champion is trained again when it is old. That run must not
find the old data in the cache, so its data get another key. The key counts how many times the age has passed,
so that the champion is trained once each time, and the runs in between find that training in the cache.
"""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

from modelyard.components import records
from modelyard.components.artifacts import UNCHANGED, Identity
from modelyard.components.fingerprint.spec import FingerprintSpec
from modelyard.components.records import RunStart
from modelyard.components.source.location import locate
from modelyard.components.source.settings import Source
from modelyard.components.step import log
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.records import find_rollback
from modelyard.components.store.storage import open_objects

CHAMPIONS = 5
"""How many champions a candidate is compared with, so that small losses do not add up."""
WITHOUT_EFFECT = {"source", "sha256", "timeout", "max_bytes", "endpoint", "user_project"}
"""Keys of Source that do not change what ingest makes: what the data is matters, not where it is."""


def identify(spec: FingerprintSpec, skip_unchanged: bool, force_after: int, identity: str) -> str:
    """Return the key of the data for ingest, or "unchanged"; write the identity of the run, and a record.

    Args:
        spec: the data, the model, and what identifies configuration and code.
        skip_unchanged: end the run when the champion was made of the same data, configuration and code.
        force_after: age in seconds after which such a champion is trained again; 0: never.
        identity: file for Identity as JSON.

    Raises:
        ConfigError: `data.source` or `store.url` has an unknown scheme.
        DataError: the data is missing or cannot be inspected.
        StoreError: the model store cannot be read, or the run cannot be recorded there.
    """
    data_sha256 = cache_key = data_fingerprint(spec.source)
    models = open_store(spec.store)
    unchanged = (
        champion_made_of(models, spec.name, data_sha256, spec.recipe_sha256) if skip_unchanged else None
    )
    if unchanged and force_after:
        version, since = unchanged
        if times := int((datetime.now(UTC) - since).total_seconds() // force_after):
            log(f"version {version} has been the champion for more than {force_after} s: it is trained again")
            cache_key = _digest({"data": data_sha256, "again": times})
    run_sha256 = _digest({"data": cache_key, "recipe": spec.recipe_sha256})
    champion_version = version_to_compare(models, spec.name, run_sha256)
    file = Path(identity)
    file.parent.mkdir(parents=True, exist_ok=True)
    earlier = earlier_champions(models, spec.name, champion_version) if champion_version else ()
    found = Identity(run=run_sha256, data=data_sha256, champion=champion_version, earlier=earlier)
    file.write_text(found.model_dump_json(), encoding="utf-8")
    why = None
    if unchanged and cache_key == data_sha256:
        version, since = unchanged
        why = (
            f"version {version}, the champion since {since:%Y-%m-%d %H:%M} UTC, was made of the same data, "
            "configuration and code"
        )
    if run_id := records.run_id():
        start = RunStart(
            run_id=run_id,
            model=spec.name,
            fingerprint=run_sha256,
            data=data_sha256,
            champion=champion_version,
            started=records.now(),
            unchanged=why,
        )
        objects, key = open_objects(spec.store), records.run_key(spec.name, run_id)
        records.write(objects, key, start)
        objects.replace(key, *objects.read(key))  # what a promotion does must be possible before the training
    if why:
        log(f"{UNCHANGED}: {why}")
        return UNCHANGED
    champion_text = f"version {champion_version}" if champion_version else "none yet"
    log(f"data {data_sha256[:12]}, run {run_sha256[:12]}, champion to compare with: {champion_text}")
    return _digest({"data": cache_key, "root": spec.root}) if spec.root else cache_key


def data_fingerprint(source: Source) -> str:
    """Return one SHA-256 of what the data is and how examples are made of it; nothing is downloaded."""
    made = source.model_dump(mode="json", exclude=WITHOUT_EFFECT)
    return _digest({**made, "identity": locate(source).identity()})


def version_to_compare(store: ModelStore, name: str, run: str) -> int:
    """Return the version that a run must be compared with; 0 when there is none.

    It is the champion, or, when this very run made the champion, the version that it was compared with then.
    """
    current = store.champion(name)
    if current is None:
        return 0
    if current.run == run:
        return store.manifest(name, current.version).decision.champion or 0
    return current.version


def earlier_champions(store: ModelStore, name: str, version: int) -> tuple[int, ...]:
    """Return the versions that were champion before `version` became it for the last time, the latest first.

    With `version` they are at most five. What was rolled back does not count.
    """
    entries = [entry for entry in store.history(name) if not entry.attempt]
    last = max((place for place, entry in enumerate(entries) if entry.version == version), default=-1)
    known = entries[: last + 1]
    versions = dict.fromkeys(entry.version for entry in reversed(known) if entry.version != version)
    good = [one for one in versions if find_rollback(known, one) is None]
    return tuple(good[: CHAMPIONS - 1])


def champion_made_of(
    store: ModelStore, name: str, data: str, recipe_sha256: str
) -> tuple[int, datetime] | None:
    """Return the champion's version and since when it is the champion, if it was made of these; else None.

    Args:
        store: the model store.
        name: the model's name.
        data: the data's fingerprint.
        recipe_sha256: fingerprint of the configuration and the code that decide the result.
    """
    champion = store.champion(name)
    if champion is None:
        return None
    manifest = store.manifest(name, champion.version)
    if (manifest.data, manifest.recipe_sha256) != (data, recipe_sha256):
        return None
    return champion.version, datetime.fromisoformat(store.entry(name, champion.history).at)


def _digest(value: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
