"""`modelyard gc`: find and remove unused objects.

    removables = GarbageCollector(config, environment, home, time.time()).find()
    to_remove = [removable for removable in removables if removable.keep_reason is None]

Objects are versions of the configuration's model, runs of this machine, and uploads and checkpoints of the
store. Each removal checks again that the object is unused, because a run may have started after `find`.

If `gc` is killed, the next `gc` finishes the removal: a version without a manifest does not exist, a run is
moved before its files are deleted, and the cache entries of a run are deleted before its artifacts.
"""

import json
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from modelyard.components.artifacts import read, tree_bytes
from modelyard.components.errors import DataError, NotFoundError, pluralize
from modelyard.components.store import staging
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.objects import Entry, Objects, delete_all
from modelyard.components.store.storage import find_storage, open_objects
from modelyard.pipelines.compile.uploads import CODE_PREFIX, DATA_PREFIX
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.config.text import parse_duration
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.maintenance.usage import Usage
from modelyard.pipelines.runners.base import RunSummary
from modelyard.pipelines.runners.pods.launcher import PODS, artifacts_uri
from modelyard.pipelines.runners.run_folder import NAME as RUN_NAME
from modelyard.pipelines.runners.run_folder import parse_start_time

UPLOAD = re.compile(rf"(?:{DATA_PREFIX}|{CODE_PREFIX})/[0-9a-f]{{64}}(?:\.zip)?")
CHECKPOINT = re.compile(r"checkpoints/[0-9a-f]{64}/state\.npz")


@dataclass(frozen=True)
class Removable:
    """An object that modelyard created, and its removal.

    Attributes:
        size: in bytes.
        reason: the reason to remove it.
        keep_reason: the reason to keep it; None if it is unused.
        remove: removes it unless it is used again, and returns whether it was removed. It may be called
            repeatedly, even by several processes at the same time.
    """

    kind: Literal["version", "run", "upload", "checkpoint", "record", "report", "traceback"]
    name: str
    size: int
    reason: str
    keep_reason: str | None
    remove: Callable[[], bool]


class GarbageCollector:
    """Finds what can be removed from an environment's store and from this machine."""

    def __init__(
        self, config: Config, environment: Environment, home: Path, now: float, endpoint: str | None = None
    ) -> None:
        """Connect to the cluster and to Kubeflow Pipelines, whose runs and servers may use the store.

        `home` is the folder of this machine's runs and cache, `now` the time in epoch seconds, `endpoint` the
        URL of Kubeflow Pipelines on the command line.

        Raises:
            BackendError: Kubeflow Pipelines does not respond.
            ClusterError: there is no cluster, or it does not respond.
        """
        self.config, self.environment, self.home, self.now = config, environment, home, now
        self._policy = config.retention
        self._cutoff = now - parse_duration(self._policy.younger_than, "retention.younger_than")
        # a run on another machine, which this one cannot see, may use an object of the store
        self._store_cutoff = min(self._cutoff, now - environment.active_deadline)
        self._on_cluster = environment.on_cluster
        self._usage = Usage(config, environment, home, now, endpoint)
        self._cluster_keep_reason = None
        store = config.store.url
        if not self._on_cluster and not find_storage(store, "store.url").unreachable_from_pods(store):
            self._cluster_keep_reason = f"clusters may use {store}: set the environment with -e"

    def find(self) -> list[Removable]:
        """Return the objects; versions and runs come before the uploads that they use.

        Raises:
            BackendError: Kubeflow Pipelines does not respond.
            ClusterError: the cluster does not respond.
            StoreError: the store cannot be read.
        """
        users = [*self._find_versions(), *self._find_runs()]
        to_remove = {user.name for user in users if user.keep_reason is None}
        store_objects = [*self._find_uploads(to_remove), *self._find_checkpoints(), *self._find_records()]
        return [
            *users,
            *store_objects,
            *self._find_files("report", "reports"),
            *self._find_files("traceback", "errors"),
        ]

    # Versions

    def _find_versions(self) -> Iterator[Removable]:
        models, name = open_store(self.config.store), self.config.name
        all_files = models.stored_files(name)
        latest = [files.version for files in all_files if files.complete][::-1][: self._policy.versions]
        keep_reasons = dict.fromkeys(latest, f"one of the last {self._policy.versions}")
        keep_reasons |= self._find_used_versions(models) if all_files else {}
        champions = models.incomplete_champions(name)
        for files in all_files:
            reason = self._format_age(files.mtime) if files.complete else "incomplete: its run was killed"
            if files.version in champions:
                reason = "a former champion whose manifest.json was deleted by a user or a killed gc"
            yield Removable(
                "version",
                f"{name}/{files.version}",
                files.size,
                reason,
                keep_reasons.get(files.version) or self._find_store_keep_reason(files.mtime),
                partial(self._remove_version, models, files.version),
            )

    def _find_used_versions(self, models: ModelStore) -> dict[int, str]:
        """Return the versions in use, with the reason to keep each."""
        name, oldest_start = self.config.name, self._usage.find_oldest_start()
        keep_reasons: dict[int, str] = {}
        for entry in models.history(name):
            if datetime.fromisoformat(entry.at).timestamp() > oldest_start:
                champions = [version for version in (entry.version, entry.previous) if version]
                keep_reasons |= dict.fromkeys(champions, "a champion that an active run may compare with")
        if champion := models.champion(name):
            reference = models.manifest(name, champion.version).decision.champion
            keep_reasons |= {reference: "the champion was compared with it"} if reference else {}
            keep_reasons |= {champion.previous: "the previous champion"} if champion.previous else {}
            keep_reasons[champion.version] = "the champion"
        return keep_reasons | self._usage.find_served_versions(models)

    def _remove_version(self, models: ModelStore, version: int) -> bool:
        served_versions = self._usage.find_served_versions(models)
        return version not in served_versions and models.remove(self.config.name, version)

    # Runs of this machine, with their cache entries and their artifacts in the bucket

    def _find_runs(self) -> Iterator[Removable]:
        runs, removed_folder = self.home / "runs", self.home / "removed"
        names = sorted(path.name for path in runs.glob("*") if RUN_NAME.match(path.name))
        keep_reasons = self._find_keep_reasons(names)
        for name in names:
            age, remove = self._format_age(parse_start_time(name)), partial(self._remove_run, name)
            yield Removable("run", name, _get_size(runs / name), age, keep_reasons.get(name), remove)
        for path in sorted(removed_folder.glob("*")):
            yield Removable("run", path.name, _get_size(path), "gc was killed", None, partial(_delete, path))

    def _find_keep_reasons(self, names: list[str]) -> dict[str, str]:
        """Return the runs to keep, with the reason for each."""
        reasons = {name: self._young_reason for name in names if parse_start_time(name) > self._cutoff}
        latest_runs = names[max(0, len(names) - self._policy.runs) :]
        reasons |= dict.fromkeys(latest_runs, f"one of the last {self._policy.runs}")
        reasons |= dict.fromkeys(self._usage.list_active_local_runs(), "it is running")
        for name in names:
            reasons |= {name: reason} if (reason := self._find_bucket_reason(name)) else {}
        for name in list(reasons):
            reasons = {**dict.fromkeys(self._read_used_runs(name), f"{name} uses its artifacts"), **reasons}
        return reasons

    def _find_bucket_reason(self, name: str) -> str | None:
        """Return the reason to keep a run if its artifacts are not in the bucket of this environment."""
        root = self.environment.artifact_store().url.rstrip("/") if self._on_cluster else None
        try:
            uri = artifacts_uri(self.home / "runs" / name)
        except DataError as error:
            return f"the location of its artifacts is unknown: {error}"
        if uri in (None, f"{root}/{name}"):
            return None
        return f"its artifacts are in {uri}: set its environment with -e"

    def _read_used_runs(self, name: str) -> tuple[str, ...]:
        """Return the runs whose artifacts a run took from the cache."""
        with suppress(DataError, FileNotFoundError):
            return read(self.home / "runs" / name / "run.json", RunSummary).reused_runs
        return ()

    def _remove_run(self, name: str) -> bool:
        if any(self._usage.list_active_local_runs()):
            return False
        for entry in (self.home / "cache").glob("*.json"):
            with suppress(FileNotFoundError):  # another gc removed it
                if f"/{name}/" in entry.read_text(encoding="utf-8"):
                    entry.unlink()
        if any(self._usage.list_active_local_runs()):  # a run that started meanwhile may have used the cache
            return False
        folder, removed_folder = self.home / "runs" / name, self.home / "removed" / name
        if (folder / PODS).is_file():
            bucket = open_objects(self.environment.artifact_store(), staging.SETTING)
            if not delete_all(bucket, bucket.entries(f"{name}/")):
                return False
        removed_folder.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            folder.rename(removed_folder)
        return _delete(removed_folder)

    # Reports that `modelyard report` downloaded, which it can download again, and the tracebacks of bugs

    def _find_files(self, kind: Literal["report", "traceback"], folder: str) -> Iterator[Removable]:
        for path in sorted((self.home / folder).glob("*")):
            with suppress(FileNotFoundError):  # another gc removed it
                mtime, remove = path.stat().st_mtime, partial(_delete, path)
                keep_reason = self._young_reason if mtime > self._cutoff else None
                yield Removable(
                    kind, path.name, _get_size(path), self._format_age(mtime), keep_reason, remove
                )

    # Uploads and checkpoints, of all models in the store

    def _find_uploads(self, to_remove: Collection[str]) -> Iterator[Removable]:
        entries = [*self._objects.entries(f"{DATA_PREFIX}/"), *self._objects.entries(f"{CODE_PREFIX}/")]
        keep_reasons: dict[str, str] = {}
        for user, text in self._iterate_upload_users(to_remove) if entries else ():
            keep_reasons |= dict.fromkeys(UPLOAD.findall(text), f"{user} uses it")
        for entry in entries:
            if UPLOAD.fullmatch(entry.key):
                age, remove = self._format_age(entry.mtime), partial(self._remove_upload, entry)
                keep_reason = keep_reasons.get(entry.key) or self._find_store_keep_reason(entry.mtime)
                yield Removable("upload", entry.key, entry.size, age, keep_reason, remove)

    def _iterate_upload_users(self, to_remove: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield the name and the configuration of each object that may use an upload."""
        models = ModelStore(self._objects)
        for name in models.names():
            for version in models.versions(name):
                with suppress(NotFoundError):  # another gc removed it
                    if f"{name}/{version}" not in to_remove:
                        config = models.manifest(name, version).config
                        yield f"version {version} of {name}", json.dumps(config)
        for pipeline in (self.home / "runs").glob("*/pipeline.yaml"):
            with suppress(FileNotFoundError):
                if pipeline.parent.name not in to_remove:
                    yield f"the run {pipeline.parent.name}", pipeline.read_text(encoding="utf-8")
        for run in self._usage.list_active_kfp_runs():
            yield f"the run {run.display_name}", _format_parameters(run)
        for schedule in self._usage.list_schedules():
            yield f"the schedule {schedule.display_name}", _format_parameters(schedule)

    def _remove_upload(self, entry: Entry) -> bool:
        """Delete an upload unless a run that was retried or submitted after `find` uses it."""
        used = any(entry.key in _format_parameters(run) for run in self._usage.list_active_kfp_runs())
        return not used and self._objects.delete(entry)

    def _find_checkpoints(self) -> Iterator[Removable]:
        for entry in self._objects.entries("checkpoints/"):
            if CHECKPOINT.fullmatch(entry.key):  # train removes its checkpoint at the end
                yield self._create_removable("checkpoint", entry)

    def _find_records(self) -> Iterator[Removable]:
        """Yield the records of the model's runs; decisions are kept, because cached evaluations need them."""
        for entry in self._objects.entries(f"{self.config.name}/runs/"):
            yield self._create_removable("record", entry)

    def _create_removable(self, kind: Literal["checkpoint", "record"], entry: Entry) -> Removable:
        age, keep_reason = self._format_age(entry.mtime), self._find_store_keep_reason(entry.mtime)
        return Removable(kind, entry.key, entry.size, age, keep_reason, partial(self._objects.delete, entry))

    @cached_property
    def _objects(self) -> Objects:
        return open_objects(self.config.store)

    @property
    def _young_reason(self) -> str:
        return f"younger than {self._policy.younger_than}"

    def _find_store_keep_reason(self, mtime: float) -> str | None:
        """Return the reason to keep an object of the store that has no known user, if any."""
        if mtime > self._cutoff:
            return self._young_reason
        if mtime > self._store_cutoff:
            return f"a run of the last {self.environment.active_deadline} s may use it"
        return self._cluster_keep_reason

    def _format_age(self, mtime: float) -> str:
        hours = int((self.now - mtime) // 3600)
        return f"{hours // 24} days old" if hours >= 48 else f"{pluralize(hours, 'hour')} old"


def _format_parameters(run: Any) -> str:
    """Return the arguments of a run or recurring run of Kubeflow Pipelines, as JSON."""
    return json.dumps((run.runtime_config.parameters if run.runtime_config else None) or {})


def _get_size(path: Path) -> int:
    with suppress(FileNotFoundError):  # another gc removed it
        return tree_bytes(path) if path.is_dir() else path.stat().st_size
    return 0


def _delete(path: Path) -> bool:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return not path.exists()
