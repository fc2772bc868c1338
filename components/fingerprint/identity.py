"""The step `fingerprint`: the fingerprints of data and run, and the champion to compare with.

With `skip_unchanged`, a run ends if the champion has the same data, configuration and code. `force_after` is
the age in seconds after which the model is trained again, once per interval of this length: the cache
key includes the number of elapsed intervals, so other runs in the same interval use the cached training.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from modelyard.components import artifacts, records
from modelyard.components.artifacts import UNCHANGED, Identity
from modelyard.components.fingerprint.spec import FingerprintSpec
from modelyard.components.records import RunStart
from modelyard.components.source.location import locate
from modelyard.components.source.settings import Source
from modelyard.components.step import log
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.records import HistoryEntry, find_rollback, write_record
from modelyard.components.store.storage import open_objects

MAX_CHAMPIONS = 5
"""Maximum number of champions that a candidate is compared with, so that small losses do not add up."""
IGNORED_KEYS = {"source", "sha256", "timeout", "max_bytes", "endpoint", "user_project"}
"""Keys of Source without effect on the examples: the content of the data matters, not its location."""


def identify(spec: FingerprintSpec, skip_unchanged: bool, force_after: int, identity: str) -> str:
    """Return the cache key for ingest, or "unchanged"; write the run's identity and the record of its start.

    The arguments are those of the component `fingerprint`; `identity` is the path of its output.

    Raises:
        ConfigError: `data.source` or `store.url` has an unknown scheme.
        DataError: the data is missing or cannot be inspected.
        StoreError: the model store cannot be read, or the run cannot be recorded in it.
    """
    data_sha256 = cache_key = fingerprint_data(spec.source)
    models = open_store(spec.store)
    unchanged = find_unchanged_champion(models, spec, data_sha256) if skip_unchanged else None
    age = (datetime.now(UTC) - unchanged.since).total_seconds() if unchanged else 0.0
    if unchanged and 0 < force_after <= age:
        log(
            f"version {unchanged.version} has been the champion for more than {force_after} s; training again"
        )
        cache_key = _digest({"data": data_sha256, "again": int(age // force_after)})
        unchanged = None
    run_sha256 = _digest({"data": cache_key, "recipe": spec.recipe_sha256})
    champion = find_version_to_compare(models, spec.name, run_sha256)
    history = models.history(spec.name) if champion else []
    earlier = find_earlier_champions(history, champion)
    digests = {entry.version: entry.digest for entry in history}
    manifests = tuple(digests.get(version, "") for version in (champion, *earlier) if version)
    result = Identity(
        run=run_sha256, data=data_sha256, champion=champion, earlier=earlier, manifests=manifests
    )
    artifacts.write_text(Path(identity), result.model_dump_json())
    reason = unchanged and (
        f"version {unchanged.version}, the champion since {unchanged.since:%Y-%m-%d %H:%M} UTC, has the same "
        "data, configuration and code"
    )
    if run_id := records.run_id():
        _record_start(spec, run_id, result, reason)
    if reason:
        log(f"{UNCHANGED}: {reason}")
        return UNCHANGED
    champion_name = f"version {champion}" if champion else "none yet"
    log(f"data {data_sha256[:12]}, run {run_sha256[:12]}, champion to compare with: {champion_name}")
    return _digest({"data": cache_key, "root": spec.root}) if spec.root else cache_key


def _record_start(spec: FingerprintSpec, run_id: str, identity: Identity, unchanged: str | None) -> None:
    start = RunStart(
        run_id=run_id,
        model=spec.name,
        fingerprint=identity.run,
        data=identity.data,
        champion=identity.champion,
        started=records.now(),
        unchanged=unchanged,
    )
    objects, key = open_objects(spec.store), records.run_key(spec.name, run_id)
    write_record(objects, key, start)
    objects.replace(key, *objects.read(key))  # as a promotion does; if it fails, fail before training


def fingerprint_data(source: Source) -> str:
    """Return the SHA-256 of the identity and the settings of a source; nothing is downloaded."""
    settings = source.model_dump(mode="json", exclude=IGNORED_KEYS)
    return _digest({**settings, "identity": locate(source).identity()})


def find_version_to_compare(store: ModelStore, name: str, run: str) -> int:
    """Return the version that a run is compared with; 0 if there is none.

    It is the champion, or, if the same run trained the champion, the version that the run was compared with.
    """
    current = store.champion(name)
    if current is None:
        return 0
    if current.run == run:
        return store.manifest(name, current.version).decision.champion or 0
    return current.version


def find_earlier_champions(history: Sequence[HistoryEntry], version: int) -> tuple[int, ...]:
    """Return the champions of a history before `version` last became champion, the latest first.

    There are at most MAX_CHAMPIONS, including `version`. Versions that were rolled back are excluded.
    """
    entries = [entry for entry in history if not entry.attempt]
    last_index = max((index for index, entry in enumerate(entries) if entry.version == version), default=-1)
    entries = entries[: last_index + 1]
    versions = dict.fromkeys(entry.version for entry in reversed(entries) if entry.version != version)
    valid = [earlier for earlier in versions if find_rollback(entries, earlier) is None]
    return tuple(valid[: MAX_CHAMPIONS - 1])


class UnchangedChampion(NamedTuple):
    """A champion with the same data, configuration and code as the run; `since` is its promotion."""

    version: int
    since: datetime


def find_unchanged_champion(
    store: ModelStore, spec: FingerprintSpec, data_sha256: str
) -> UnchangedChampion | None:
    """Return the champion if it has this fingerprint of the data, and the recipe of the spec."""
    champion = store.champion(spec.name)
    if champion is None:
        return None
    manifest = store.manifest(spec.name, champion.version)
    if (manifest.data, manifest.recipe_sha256) != (data_sha256, spec.recipe_sha256):
        return None
    entry = store.read_history_entry(spec.name, champion.history)
    return UnchangedChampion(champion.version, datetime.fromisoformat(entry.at))


def _digest(value: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
