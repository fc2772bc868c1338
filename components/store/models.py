"""Models in the store: immutable versions, a champion pointer that moves by compare-and-swap, a history.

    <store>/<model>/versions/000007/run.json       reserves the number for a run, by the run's fingerprint
    <store>/<model>/versions/000007/…              the files; manifest.json is written last
    <store>/<model>/history/000012.json            an entry of the history, written before the pointer
    <store>/<model>/champion.json                  the version that is served
    <store>/<model>/served/<platform>.json         the versions that a serving platform has loaded

    models = open_store(Store(url="gs://bucket/models"))
    version = models.reserve("digits", run)
    models.publish("digits", version, files, manifest)
    models.promote("digits", version, reason="better by 2 %", by="pipeline", expected=6)
    models.fetch("digits", version, into=Path("served"))

Several processes can call methods at the same time. A call can be repeated after its process was killed.
"""

import re
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from modelyard.components.errors import ConflictError, DamagedError, NotFoundError
from modelyard.components.store.objects import Entry, delete_all
from modelyard.components.store.records import (
    REMEDIES,
    Action,
    Champion,
    HistoryEntry,
    ServedVersions,
    find_rollback,
    mark_attempts,
    now,
    parse_record,
    read_record,
    read_records,
    rollback_target,
    to_bytes,
    write_record,
)
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import open_objects
from modelyard.components.store.versions import MANIFEST, RUN, Versions, model_folder, version_folder

CONFLICT_RETRIES = 100
GRACE_SECONDS = 3600.0  # maximum time between two files of a publication


@dataclass(frozen=True)
class VersionFiles:
    """The files in the folder of a version: total bytes, and the time of the last change in epoch seconds.

    If the version is not complete, its publication was killed or is in progress.
    """

    version: int
    size: int
    mtime: float
    complete: bool


def open_store(settings: Store) -> "ModelStore":
    """Return the model store of the section `store`; nothing is written.

    Raises:
        ConfigError: `store.url` is not supported.
        StoreError: there are no credentials for it.
    """
    return ModelStore(open_objects(settings))


class ModelStore(Versions):
    """The models of a store. Every method raises StoreError if the store cannot be used."""

    def champion(self, name: str) -> Champion | None:
        """Return the champion pointer, or None before the first promotion; this reads one object.

        Raises:
            DamagedError: champion.json is damaged, or missing although there was one.
        """
        return self._read_pointer(name)[0]

    def require_champion(self, name: str) -> Champion:
        """Return the champion pointer.

        Raises:
            NotFoundError: there is no such model, or no version of it was ever promoted.
        """
        if champion := self.champion(name):
            return champion
        latest = f"{name} {self.latest(name)}"  # raises when there is no such model
        raise NotFoundError(
            f"{name} has no champion in {self.url}: none of its versions ({self._list_versions(name)}) was "
            f"promoted. Promote one: `modelyard models promote {latest}`, or `modelyard deploy {latest} -e "
            "CLUSTER`."
        )

    def promote(
        self,
        name: str,
        version: int,
        *,
        reason: str,
        by: str,
        action: Action = "promote",
        expected: int | None = None,
    ) -> Champion:
        """Make `version` the champion, unless it is the champion already; return the pointer.

        The history records `action`, `reason`, which is a sentence, and `by`, a user or step. `expected` is
        the version that must be the champion now; 0 for no champion, None for any. With None, a damaged
        champion.json is written again.

        Raises:
            NotFoundError: there is no such version.
            ConflictError: the champion is not the expected one.
            DamagedError: champion.json is damaged, and a champion is expected.
        """
        draft = self._create_entry(name, version, action, reason, by)
        for _ in range(CONFLICT_RETRIES):
            current, generation, damaged = self._read_or_recover_pointer(name, expected)
            current_version = current.version if current else 0
            if current and current_version == version:
                if damaged and not self._write_pointer(name, current, generation):
                    continue
                return current
            if expected not in (None, current_version):
                raise ConflictError(
                    f"The champion of {name} was expected to be {_describe_version(expected)}, and is "
                    f"{_describe_version(current_version)}, so version {version} was not promoted. Compare "
                    "this version with the new champion, then retry."
                )
            entry = self._append(name, draft, current)
            entries = self._read_entries(name, []) if action == "rollback" else []
            pointer = self._create_pointer(entry, entries)
            if self._write_pointer(name, pointer, generation):
                self._check_not_removed(name, pointer, current)
                return pointer
        raise ConflictError(
            f"The champion of {name} was changed {CONFLICT_RETRIES} times in a row by other processes, so "
            f"version {version} was not promoted. See `modelyard models history`, then promote again."
        )

    def rollback(self, name: str, to: int | None = None, *, reason: str, by: str) -> Champion:
        """Make an earlier version the champion again: `to`, or the previous champion.

        Raises:
            NotFoundError: there is no champion, no previous champion, or no version `to`.
            ConflictError: the champion changed at the same time.
        """
        current = self.require_champion(name)
        target = current.previous if to is None else to
        if target is None:
            raise NotFoundError(
                f"Version {current.version} of {name} has no previous champion to roll back to. "
                f"Choose a version with --to; versions: {self._list_versions(name)}."
            )
        return self.promote(name, target, reason=reason, by=by, action="rollback", expected=current.version)

    def record_attempt(self, name: str, version: int, *, reason: str, by: str) -> None:
        """Record in the history that `version` was not promoted, and why; the champion does not change.

        Raises:
            NotFoundError: there is no such version.
        """
        try:
            current = self.champion(name)
        except DamagedError:
            current = self._recover_pointer(name)
        draft = self._create_entry(name, version, "promote", reason, by).model_copy(update={"attempt": True})
        self._append(name, draft, current)

    def history(self, name: str) -> list[HistoryEntry]:
        """Return the promotions and rollbacks of a model, oldest first, including attempts.

        Raises:
            DamagedError: an entry or champion.json is damaged.
        """
        champion = self.champion(name)
        return mark_attempts(self._read_entries(name), champion.history if champion else 0)

    def readable_history(self, name: str) -> tuple[list[HistoryEntry], list[str]]:
        """Return the entries of the history that can be read, and a message for each damaged file.

        If champion.json is damaged, it is assumed to have named the newest entry that is not recorded as an
        attempt.
        """
        errors: list[str] = []
        entries = self._read_entries(name, errors)
        try:
            champion = self.champion(name)
            head = champion.history if champion else 0
        except DamagedError as error:
            head = max((entry.number for entry in entries if not entry.attempt), default=0)
            errors = [str(error), *errors]
        return mark_attempts(entries, head), errors

    def read_history_entry(self, name: str, number: int) -> HistoryEntry:
        """Return one entry of a model's history; this reads one object.

        Raises:
            NotFoundError: there is no entry with this number.
        """
        return read_record(self._objects, _history_key(model_folder(name), number), HistoryEntry)

    def find_rollback(self, name: str, version: int) -> HistoryEntry | None:
        """Return the rollback from `version`; None without one, or if the version became champion again."""
        return find_rollback(_remove_attempts(self.history(name)), version)

    def record_served(self, name: str, platform: str, location: str, versions: Collection[int]) -> None:
        """Record the versions that a serving platform has loaded, unless the record already lists them.

        `platform` is the ID of the platform, and `location` a description such as its namespace.
        """
        key = f"{model_folder(name)}/served/{platform}.json"
        record = ServedVersions(
            platform=platform, location=location, versions=tuple(sorted(versions)), at=now()
        )
        with suppress(DamagedError, NotFoundError):
            if read_record(self._objects, key, ServedVersions).versions == record.versions:
                return
        write_record(self._objects, key, record)

    def served_versions(self, name: str, errors: list[str] | None = None) -> list[ServedVersions]:
        """Return the versions that serving platforms recorded as loaded.

        With a list `errors`, a message for each damaged record is added to it. Without one, a damaged record
        raises DamagedError.
        """
        keys = self._objects.keys(f"{model_folder(name)}/served/")
        return [record for record in read_records(self._objects, keys, ServedVersions, errors) if record]

    def stored_files(self, name: str) -> list[VersionFiles]:
        """Return the files of each version number, oldest first; numbers without files are omitted."""
        files_by_version: dict[int, list[tuple[str, Entry]]] = {}
        for entry in self._objects.entries(f"{model_folder(name)}/versions/"):
            match = re.fullmatch(rf"{name}/versions/(\d{{6,}})/(.+)", entry.key)
            if match and match[2] != RUN:
                files_by_version.setdefault(int(match[1]), []).append((match[2], entry))
        return [
            VersionFiles(
                version,
                sum(entry.size for _, entry in files),
                max(entry.mtime for _, entry in files),
                any(path == MANIFEST for path, _ in files),
            )
            for version, files in sorted(files_by_version.items())
        ]

    def incomplete_champions(self, name: str) -> list[int]:
        """Return the versions without a manifest that are the champion, or former champions with files.

        They are damaged, or `remove` was killed. Any other version without a manifest is an unfinished
        publication.
        """
        entries, _ = self.readable_history(name)
        stored_versions = {files.version for files in self.stored_files(name)}
        champions = {entry.version for entry in _remove_attempts(entries)} & stored_versions
        with suppress(DamagedError):
            if champion := self.champion(name):
                champions.add(champion.version)
        return sorted(champions - set(self.versions(name)))

    def remove(self, name: str, version: int, grace: float = GRACE_SECONDS) -> bool:
        """Delete the files of a version; return whether all of them are deleted.

        The manifest is deleted first. If a call is killed, the next call deletes the remaining files. The
        number remains reserved for its run. A version that becomes champion meanwhile, or is published again,
        is not deleted. Files without a manifest count as a publication in progress for `grace` seconds.
        """
        folder = version_folder(name, version)
        entries = {entry.key: entry for entry in self._objects.entries(f"{folder}/")}
        entries.pop(f"{folder}/{RUN}", None)
        if manifest := entries.pop(f"{folder}/{MANIFEST}", None):
            removable = self._delete_manifest(name, version, manifest)
        else:
            removable = all(entry.mtime <= time.time() - grace for entry in entries.values())
        return removable and delete_all(self._objects, entries.values())

    def _delete_manifest(self, name: str, version: int, manifest: Entry) -> bool:
        """Delete a manifest, and restore it if the version is in use; return whether it is deleted."""
        try:
            data, _ = self._objects.read(manifest.key)
        except NotFoundError:  # another process deletes it, and restores it if necessary
            data = b""
        if not self._objects.delete(manifest):
            return False
        try:
            champion = self.champion(name)
            in_use = champion is not None and version in (champion.version, champion.previous)
        except DamagedError:
            in_use = True
        if in_use and data:
            with suppress(ConflictError):
                self._objects.create(manifest.key, data)
        return not in_use

    def _read_pointer(self, name: str) -> tuple[Champion | None, str]:
        key = self._pointer_key(name)
        try:
            data, generation = self._objects.read(key)
        except NotFoundError:
            if not any(entry.after for entry in self._read_entries(name, [])):
                return None, ""
            try:
                data, generation = self._objects.read(key)  # another process may have created it
            except NotFoundError as error:
                raise DamagedError(
                    f"{self.url}/{key} is missing, and the history has promotions. {REMEDIES['Champion']}"
                ) from error
        return parse_record(self._objects, key, data, Champion), generation

    def _read_or_recover_pointer(self, name: str, expected: int | None) -> tuple[Champion | None, str, bool]:
        """Return the pointer, its generation, and whether champion.json is damaged.

        A damaged pointer is recovered from the history, unless a champion is expected (DamagedError).
        """
        try:
            return *self._read_pointer(name), False
        except DamagedError:
            if expected is not None:
                raise
        generation = ""
        with suppress(NotFoundError):
            _, generation = self._objects.read(self._pointer_key(name))
        return self._recover_pointer(name), generation, True

    def _recover_pointer(self, name: str) -> Champion | None:
        """Return the pointer that champion.json contained before it was damaged, or None without a history.

        This is the pointer of the newest entry that is not recorded as an attempt. If a process was killed
        after it wrote the entry and before it wrote the pointer, this is one entry too new.
        """
        entries = self._read_entries(name, [])
        promotions = [entry for entry in entries if not entry.attempt]
        return self._create_pointer(promotions[-1], entries) if promotions else None

    def _pointer_key(self, name: str) -> str:
        return f"{model_folder(name)}/champion.json"

    def _create_entry(self, name: str, version: int, action: Action, reason: str, by: str) -> HistoryEntry:
        """Return the history entry of an existing version, without the number of the entry."""
        manifest, digest = self.manifest(name, version), self.digest(name, version)
        return HistoryEntry(
            action=action,
            version=version,
            digest=digest,
            run=manifest.run,
            reason=reason,
            by=by,
            at=now(),
        )

    def _append(self, name: str, draft: HistoryEntry, current: Champion | None) -> HistoryEntry:
        """Write the entry after `current` under the first free number; return it."""
        number = after = current.history if current else 0
        while True:
            number += 1
            links = {"number": number, "after": after, "token": uuid4().hex}
            entry = draft.model_copy(update={**links, "previous": current.version if current else None})
            with suppress(ConflictError):
                self._objects.create(
                    _history_key(name, number), to_bytes(entry, None if entry.attempt else {"attempt"})
                )
                return entry

    def _create_pointer(self, entry: HistoryEntry, entries: Sequence[HistoryEntry]) -> Champion:
        """Return the pointer that names `entry` of the history `entries`."""
        previous = entry.previous
        if entry.action == "rollback":
            before = _remove_attempts(mark_attempts(entries, entry.after))
            previous = rollback_target(before, entry.version)
        return Champion(
            version=entry.version,
            previous=previous,
            digest=entry.digest,
            run=entry.run,
            reason=entry.reason,
            history=entry.number,
        )

    def _write_pointer(self, name: str, pointer: Champion, generation: str) -> bool:
        """Replace the pointer if it still has `generation`; return whether it was replaced."""
        key = self._pointer_key(name)
        try:
            if generation:
                self._objects.replace(key, to_bytes(pointer), generation)
            else:
                self._objects.create(key, to_bytes(pointer))
        except ConflictError:
            return False
        return True

    def _check_not_removed(self, name: str, pointer: Champion, before: Champion | None) -> None:
        """Restore the previous pointer and raise NotFoundError if the version was deleted meanwhile.

        `remove` reads the pointer after it deleted the manifest, and restores the manifest if necessary. So
        one of the two processes always detects the other.
        """
        try:
            self.manifest(name, pointer.version)
        except NotFoundError:
            current, generation = self._read_pointer(name)
            if current == pointer and before:
                self._write_pointer(name, before, generation)
            raise

    def _read_entries(self, name: str, errors: list[str] | None = None) -> list[HistoryEntry]:
        """Return the entries of the history in order; `mark_attempts` is not applied.

        `errors` receives a message for each damaged entry; without it, a damaged entry raises DamagedError.
        """
        keys = self._objects.keys(f"{model_folder(name)}/history/")
        entries = [entry for entry in read_records(self._objects, keys, HistoryEntry, errors) if entry]
        return sorted(entries, key=lambda entry: entry.number)


def _history_key(folder: str, number: int) -> str:
    return f"{folder}/history/{number:06d}.json"


def _remove_attempts(entries: Sequence[HistoryEntry]) -> list[HistoryEntry]:
    return [entry for entry in entries if not entry.attempt]


def _describe_version(version: int | None) -> str:
    return f"version {version}" if version else "none"
