"""`modelyard gc`: find and remove unused objects.

    found = GarbageCollector(config, environment, home, time.time()).find()
    to_remove = [one for one in found if one.kept is None]

It covers versions of the configuration's model, runs of this machine, and uploads and checkpoints of the
store. Each removal checks again that the object is unused, as a run may have started after `find`. If `gc`
is killed, the next `gc` finishes the removal: a version without a manifest does not exist, a run is moved
away before its files are deleted, and cache entries of a run are deleted before its artifacts.
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

from modelyard.components import lifeline
from modelyard.components.artifacts import read, tree_bytes
from modelyard.components.deploy.platforms.base import ServingPlatform
from modelyard.components.errors import DataError, NotFoundError
from modelyard.components.kubernetes.cluster import connect
from modelyard.components.store import staging
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.objects import Entry, Objects, delete_all
from modelyard.components.store.storage import find_storage, open_objects
from modelyard.pipelines.compile.uploads import CODE, DATA
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.config.text import parse_duration
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.base import RunSummary
from modelyard.pipelines.runners.pods.launcher import PODS, artifacts_uri
from modelyard.pipelines.runners.pods.pod import list_active_runs
from modelyard.pipelines.runners.run_folder import NAME as RUN_NAME
from modelyard.pipelines.serving.platforms import find_platform

UPLOAD = re.compile(rf"(?:{DATA}|{CODE})/[0-9a-f]{{64}}(?:\.zip)?")
CHECKPOINT = re.compile(r"checkpoints/[0-9a-f]{64}/state\.npz")
ENDED_RUN = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")  # of Kubeflow Pipelines
CLOCK_SKEW = 300.0  # seconds by which the clocks of two machines may differ
TIME_ZONES = 86400.0  # seconds by which the local times in the names of two machines' runs may differ


@dataclass(frozen=True)
class Removable:
    """An object that modelyard created, and its removal.

    Attributes:
        kind: its kind.
        name: its name.
        size: in bytes.
        why: the reason to remove it.
        kept: the reason to keep it; None when it is unused.
        remove: removes it unless it is used again, and returns whether it is gone. It may be called again,
            and by several processes at once.
    """

    kind: Literal["version", "run", "upload", "checkpoint", "record", "report", "traceback"]
    name: str
    size: int
    why: str
    kept: str | None
    remove: Callable[[], bool]


class GarbageCollector:
    """Finds what can be removed from an environment's store and from this machine."""

    def __init__(
        self, config: Config, environment: Environment, home: Path, now: float, endpoint: str | None = None
    ) -> None:
        """Connect to the services that use the store.

        Args:
            config: names the model and the policy.
            environment: where runs and servers are.
            home: the folder of this machine's runs and cache.
            now: the time, in epoch seconds.
            endpoint: the URL of Kubeflow Pipelines from the command line.

        Raises:
            BackendError: Kubeflow Pipelines does not answer.
            ClusterError: there is no cluster, or it does not answer.
        """
        self.config, self.environment, self.home, self.now = config, environment, home, now
        self._policy = config.retention
        self._oldest = now - parse_duration(self._policy.younger_than, "retention.younger_than")
        # an object of the store may belong to a run on another machine, which cannot be seen
        self._oldest_in_store = min(self._oldest, now - environment.active_deadline)
        self._remote = environment.on_cluster
        self._backend = self._connect_pipelines(endpoint) if self._remote else None
        store = config.store.url
        self._unseen = (
            f"clusters may use {store}: name the environment with -e"
            if not self._remote and not find_storage(store, "store.url").unreachable_from_pods(store)
            else None
        )

    def find(self) -> list[Removable]:
        """Return the objects, users before the objects that they use.

        Raises:
            BackendError: Kubeflow Pipelines does not answer any more.
            ClusterError: the cluster does not answer any more.
            StoreError: the store cannot be read.
        """
        users = [*self._versions(), *self._runs()]
        to_remove = {one.name for one in users if one.kept is None}
        in_store = [*self._uploads(to_remove), *self._checkpoints(), *self._records()]
        return [*users, *in_store, *self._files("report", "reports"), *self._files("traceback", "errors")]

    # Versions

    def _versions(self) -> Iterator[Removable]:
        models, name = open_store(self.config.store), self.config.name
        stored = models.stored_files(name)
        latest = [one.version for one in stored if one.complete][::-1][: self._policy.versions]
        used = dict.fromkeys(latest, f"one of the last {self._policy.versions}")
        used |= self._used_versions(models) if stored else {}
        champions = models.incomplete_champions(name)
        for one in stored:
            killed = "left by a run that was killed"
            if one.version in champions:
                killed = (
                    "a former champion without manifest.json, which a gc that was killed, or a user, deleted"
                )
            yield Removable(
                "version",
                f"{name}/{one.version}",
                one.size,
                self._age(one.changed) if one.complete else killed,
                used.get(one.version) or self._kept_in_store(one.changed),
                partial(self._remove_version, models, one.version),
            )

    def _used_versions(self, models: ModelStore) -> dict[int, str]:
        """Return why a version is in use."""
        name, since = self.config.name, self._oldest_start()
        used: dict[int, str] = {}
        for entry in models.history(name):
            if datetime.fromisoformat(entry.at).timestamp() > since:
                champions = [version for version in (entry.version, entry.previous) if version]
                used |= dict.fromkeys(champions, "a champion with which a run in flight may compare")
        if champion := models.champion(name):
            compared = models.manifest(name, champion.version).decision.champion
            used |= {compared: "what the champion was compared with"} if compared else {}
            used |= {champion.previous: "the previous champion"} if champion.previous else {}
            used[champion.version] = "the champion"
        return used | self._served_versions(models)

    def _oldest_start(self) -> float:
        """Return when the oldest run in flight may have started; one that is retried keeps its champion."""
        pods = list_active_runs(self.environment) if self._remote else ()
        names = (*self._active_local_runs(), *pods)
        times = [self.now - self.environment.active_deadline]
        times += [start_time(name) - TIME_ZONES for name in names]
        times += [run.created_at.timestamp() - CLOCK_SKEW for run in self._active_kfp_runs()]
        return min(times)

    def _served_versions(self, models: ModelStore) -> dict[int, str]:
        """Return where a version is served: here, and in other environments as they noted in the store."""
        platform, served = self._platform, dict[int, str]()
        for record in models.served_versions(self.config.name):
            if record.platform != platform.id:
                why = f"served in {record.where} of another environment, as noted at {record.at}"
                served |= dict.fromkeys(record.versions, why)
        return served | dict.fromkeys(platform.status().loaded, f"served in {platform.location}")

    def _remove_version(self, models: ModelStore, version: int) -> bool:
        served = self._served_versions(models)
        return version not in served and models.remove(self.config.name, version)

    # Runs of this machine, with what the cache has of them and their artifacts in the bucket

    def _runs(self) -> Iterator[Removable]:
        runs, removed = self.home / "runs", self.home / "removed"
        names = sorted(path.name for path in runs.glob("*") if RUN_NAME.match(path.name))
        kept = self._kept_runs(names)
        for name in names:
            age = self._age(start_time(name))
            remove = partial(self._remove_run, name)
            yield Removable("run", name, _size(runs / name), age, kept.get(name), remove)
        for path in sorted(removed.glob("*")):
            why = "left by a gc that was killed"
            yield Removable("run", path.name, _size(path), why, None, partial(_delete, path))

    def _kept_runs(self, names: list[str]) -> dict[str, str]:
        """Return why runs are kept."""
        kept = {name: self._young for name in names if start_time(name) > self._oldest}
        latest = names[max(0, len(names) - self._policy.runs) :]
        kept |= dict.fromkeys(latest, f"one of the last {self._policy.runs}")
        kept |= dict.fromkeys(self._active_local_runs(), "it is running")
        for name in names:
            kept |= {name: why} if (why := self._artifacts_elsewhere(name)) else {}
        for name in list(kept):
            kept = {**dict.fromkeys(self._cached_from(name), f"{name} uses its artifacts"), **kept}
        return kept

    def _artifacts_elsewhere(self, name: str) -> str | None:
        """Return why a run in pods stays whose artifacts are not in this environment's bucket."""
        root = self.environment.artifact_store().url.rstrip("/") if self._remote else None
        try:
            found = artifacts_uri(self.home / "runs" / name)
        except DataError as error:
            return f"where its artifacts are is unknown: {error}"
        elsewhere = found not in (None, f"{root}/{name}")
        return f"its artifacts are in {found}: name its environment with -e" if elsewhere else None

    def _cached_from(self, name: str) -> tuple[str, ...]:
        """Return the runs whose artifacts a run took from the cache."""
        with suppress(DataError, FileNotFoundError):
            return read(self.home / "runs" / name / "run.json", RunSummary).uses
        return ()

    def _remove_run(self, name: str) -> bool:
        if any(self._active_local_runs()):
            return False
        for entry in (self.home / "cache").glob("*.json"):
            with suppress(FileNotFoundError):  # another gc was faster
                if f"/{name}/" in entry.read_text(encoding="utf-8"):
                    entry.unlink()
        if any(self._active_local_runs()):  # it may have used the cache before
            return False
        folder, removed = self.home / "runs" / name, self.home / "removed" / name
        if (folder / PODS).is_file():
            bucket = open_objects(self.environment.artifact_store(), staging.SETTING)
            if not delete_all(bucket, bucket.entries(f"{name}/")):
                return False
        removed.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            folder.rename(removed)
        return _delete(removed)

    # Reports that `modelyard report` fetched, which it fetches again, and the tracebacks of bugs

    def _files(self, kind: Literal["report", "traceback"], folder: str) -> Iterator[Removable]:
        for path in sorted((self.home / folder).glob("*")):
            with suppress(FileNotFoundError):  # another gc was faster
                changed, remove = path.stat().st_mtime, partial(_delete, path)
                kept = self._young if changed > self._oldest else None
                yield Removable(kind, path.name, _size(path), self._age(changed), kept, remove)

    # Uploads and checkpoints, of all models in the store

    def _uploads(self, to_remove: Collection[str]) -> Iterator[Removable]:
        objects = open_objects(self.config.store)
        entries = [*objects.entries(f"{DATA}/"), *objects.entries(f"{CODE}/")]
        users: dict[str, str] = {}
        for user, text in self._upload_users(ModelStore(objects), to_remove) if entries else ():
            users |= dict.fromkeys(UPLOAD.findall(text), f"{user} uses it")
        for entry in entries:
            if UPLOAD.fullmatch(entry.key):
                kept = users.get(entry.key) or self._kept_in_store(entry.changed)
                remove = partial(self._remove_upload, objects, entry)
                yield Removable("upload", entry.key, entry.size, self._age(entry.changed), kept, remove)

    def _upload_users(self, models: ModelStore, to_remove: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield the name and the configuration of whatever may use an upload."""
        for name in models.names():
            for version in models.versions(name):
                with suppress(NotFoundError):  # another gc was faster
                    if f"{name}/{version}" not in to_remove:
                        yield (
                            f"version {version} of {name}",
                            json.dumps(models.manifest(name, version).config),
                        )
        for pipeline in (self.home / "runs").glob("*/pipeline.yaml"):
            with suppress(FileNotFoundError):
                if pipeline.parent.name not in to_remove:
                    yield f"the run {pipeline.parent.name}", pipeline.read_text(encoding="utf-8")
        for run in self._active_kfp_runs():
            yield f"the run {run.display_name}", _parameters(run)
        for schedule in self._schedules():
            yield f"the schedule {schedule.display_name}", _parameters(schedule)

    def _remove_upload(self, objects: Objects, entry: Entry) -> bool:
        """Delete an upload, unless a run uses it that was retried, or that was submitted again."""
        used = any(entry.key in _parameters(run) for run in self._active_kfp_runs())
        return not used and objects.delete(entry)

    def _checkpoints(self) -> Iterator[Removable]:
        for entry in self._objects.entries("checkpoints/"):
            if CHECKPOINT.fullmatch(entry.key):  # a training that ends removes its own
                yield self._by_age("checkpoint", entry)

    def _records(self) -> Iterator[Removable]:
        """Yield the records of the model's runs; its decisions stay, as cached evaluations rely on them."""
        yield from (
            self._by_age("record", entry) for entry in self._objects.entries(f"{self.config.name}/runs/")
        )

    def _by_age(self, kind: Literal["checkpoint", "record"], entry: Entry) -> Removable:
        age, kept = self._age(entry.changed), self._kept_in_store(entry.changed)
        return Removable(kind, entry.key, entry.size, age, kept, partial(self._objects.delete, entry))

    @cached_property
    def _objects(self) -> Objects:
        return open_objects(self.config.store)

    # What is in use

    def _active_local_runs(self) -> Iterator[str]:
        for path in (self.home / "runs").glob("*/lifeline"):
            if lifeline.is_held(path):
                yield path.parent.name

    def _connect_pipelines(self, endpoint: str | None) -> Any:
        """Return Kubeflow Pipelines' API; None when the cluster has none."""
        from modelyard.pipelines.runners.kfp import client

        found = client.find_endpoint(self.environment, endpoint)
        if found.namespace and connect(found.namespace).get("Service", client.SERVICE) is None:
            return None
        return client.connect(self.environment, endpoint)

    def _active_kfp_runs(self) -> Iterator[Any]:
        where = [{"operation": "NOT_EQUALS", "key": "state", "string_value": state} for state in ENDED_RUN]
        if self._backend:
            request = self._backend.runs.run_service_list_runs
            yield from _all(
                request, "runs", filter=json.dumps({"predicates": where}), **self._backend.scoped()
            )

    def _schedules(self) -> Iterator[Any]:
        if self._backend:
            request = self._backend.recurring_runs.recurring_run_service_list_recurring_runs
            yield from _all(request, "recurring_runs", **self._backend.scoped())

    @cached_property
    def _platform(self) -> ServingPlatform:
        return find_platform(self.config.name, self.environment, self.config.store)

    @property
    def _young(self) -> str:
        return f"younger than {self._policy.younger_than}"

    def _kept_in_store(self, changed: float) -> str | None:
        """Return why an object of the store stays that nothing is known to use."""
        if changed > self._oldest:
            return self._young
        if changed > self._oldest_in_store:
            return f"a run of the last {self.environment.active_deadline} s may use it"
        return self._unseen

    def _age(self, changed: float) -> str:
        hours = int((self.now - changed) // 3600)
        return f"{hours // 24} days old" if hours >= 48 else f"{hours} hours old"


def start_time(run: str) -> float:
    """Return when a run of `modelyard run` started, by its name, in epoch seconds."""
    return datetime.strptime(run[:15], "%Y%m%d-%H%M%S").timestamp()


def _all(request: Callable[..., Any], items: str, **arguments: Any) -> Iterator[Any]:
    """Yield all items of a list of Kubeflow Pipelines, whose client takes long to import."""
    from modelyard.pipelines.runners.kfp.client import list_items

    return list_items(request, items, **arguments)


def _parameters(run: Any) -> str:
    """Return the arguments of a run or a recurring run of Kubeflow Pipelines, whoever made it."""
    return json.dumps((run.runtime_config.parameters if run.runtime_config else None) or {})


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):  # another gc was faster
        return tree_bytes(path) if path.is_dir() else path.stat().st_size
    return 0


def _delete(path: Path) -> bool:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return not path.exists()
