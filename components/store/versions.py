"""The versions of models in a store: numbers, files, manifests. With a manifest, a version is immutable."""

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelyard.components import artifacts
from modelyard.components.artifacts import Manifest
from modelyard.components.errors import ConfigError, ConflictError, DamagedError, NotFoundError, StoreError
from modelyard.components.store.objects import Objects, check_key
from modelyard.components.store.records import (
    R,
    Reservation,
    now,
    parse_record,
    read_record,
    read_records,
    to_bytes,
)
from modelyard.components.store.settings import MODEL_NAME

MANIFEST = "manifest.json"
RUN = "run.json"


class Versions:
    """The versions in a store; the base of ModelStore."""

    def __init__(self, objects: Objects) -> None:
        self.url = objects.url
        self._objects = objects

    def names(self) -> list[str]:
        """Return the names of the models that have a version or a champion, sorted."""
        names = [name for name in self._objects.folders("") if re.fullmatch(MODEL_NAME, name)]
        return [name for name in names if self.versions(name) or self._has_champion(name)]

    def versions(self, name: str) -> list[int]:
        """Return the complete versions of a model, which have a manifest, oldest first."""
        keys = self._objects.keys(f"{model_folder(name)}/versions/")
        manifests = (re.fullmatch(rf"{name}/versions/(\d{{6,}})/{MANIFEST}", key) for key in keys)
        return sorted(int(match[1]) for match in manifests if match)

    def latest(self, name: str) -> int:
        """Return a model's newest version.

        Raises:
            NotFoundError: there is no such model, or no version of it has a manifest.
        """
        if versions := self.versions(name):
            return versions[-1]
        self.check_model(name)
        raise NotFoundError(
            f"No version of {name} in {self.url} has a {MANIFEST}. Restore the manifests from a backup, or "
            "publish a new version with `modelyard run`."
        )

    def check_model(self, name: str) -> None:
        """Raise NotFoundError unless a model has a version or a champion."""
        if not (self.versions(name) or self._has_champion(name)):
            raise NotFoundError(
                f"There is no model {name} in {self.url}; its models: {', '.join(self.names()) or 'none'}. "
                "Choose another store with --store or MODELYARD_STORE__URL."
            )

    def reserve(self, name: str, run: str) -> int:
        """Return the version of the run with this fingerprint: its earlier number, or else the next one."""
        reservations = self._list_reservations(name)
        for number, owner in reservations.items():
            if owner == run:
                return number
        version = max(reservations, default=0)
        while True:
            version += 1
            try:
                self._objects.create(self._run_key(name, version), to_bytes(Reservation(run=run, at=now())))
                return version
            except ConflictError:
                if self._read_reservations(name, [version]).get(version) == run:
                    return version

    def publish(self, name: str, version: int, files: Mapping[str, Path], manifest: Manifest) -> str:
        """Write a version's files, then its manifest; return the manifest's digest.

        A version with a manifest is not changed. Without one, files of a killed publication or a deleted
        version are overwritten. If two processes publish different files for the same run at the same time,
        `fetch` refuses the mixture.

        `files` maps the relative paths of the manifest to the files.

        Raises:
            ConflictError: another run reserved the version.
            NotFoundError: the version is not reserved.
        """
        self._check_manifest(name, version, files, manifest)
        folder = version_folder(name, version)
        while not self._objects.find(f"{folder}/{MANIFEST}"):
            if self._upload_files(folder, files):
                with contextlib.suppress(ConflictError):
                    self._objects.create(f"{folder}/{MANIFEST}", to_bytes(manifest))
        return self.digest(name, version)

    def manifest(self, name: str, version: int) -> Manifest:
        """Return the manifest of a version.

        Raises:
            NotFoundError: there is no such version, or it has no manifest yet.
        """
        return self._read_manifest(name, version)[0]

    def digest(self, name: str, version: int) -> str:
        """Return the SHA-256 of a version's manifest, which identifies all files of the version.

        Raises:
            NotFoundError: there is no such version, or it has no manifest yet.
        """
        return _sha256(self._read_manifest(name, version)[1])

    def fetch(
        self,
        name: str,
        version: int,
        into: Path,
        paths: Sequence[str] | None = None,
        digest: str | None = None,
    ) -> Manifest:
        """Copy a version, including its manifest, to a folder, and verify all files.

        `into` is created or replaced after the verification. `paths` are relative paths of files; None: all.
        `digest` is the required SHA-256 of the manifest; None: any.

        Raises:
            NotFoundError: there is no such version, or no such file in it.
            DamagedError: a file does not match the manifest, or the manifest does not match `digest`.
        """
        manifest, data = self._read_verified_manifest(name, version, digest)
        with artifacts.replace_folder(into) as partial:
            (partial / MANIFEST).write_bytes(data)
            for path in manifest.files if paths is None else paths:
                key, target = self._get_file_key(manifest, path), partial / path
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    self._objects.download(key, target)
                except NotFoundError as error:
                    raise NotFoundError(self._describe_missing(manifest, path)) from error
                self._verify_digest(manifest, path, artifacts.sha256(target))
        return manifest

    def read_record(
        self, name: str, version: int, path: str, kind: type[R], digest: str | None = None
    ) -> tuple[Manifest, R]:
        """Return the manifest of a version, and the record in one of its files; see `fetch`."""
        manifest, _ = self._read_verified_manifest(name, version, digest)
        key = self._get_file_key(manifest, path)
        data, _ = self._objects.read(key)
        self._verify_digest(manifest, path, _sha256(data))
        return manifest, parse_record(self._objects, key, data, kind)

    def verify(self, name: str, version: int) -> None:
        """Read all files of a version, one after the other, and compare them with its manifest.

        Raises:
            NotFoundError: there is no such version.
            DamagedError: a file is missing or damaged.
        """
        manifest = self.manifest(name, version)
        with tempfile.TemporaryDirectory(prefix="modelyard-") as scratch:
            file = Path(scratch) / "file"
            for path in manifest.files:
                try:
                    self._objects.download(self._get_file_key(manifest, path), file)
                except NotFoundError as error:
                    raise DamagedError(self._describe_missing(manifest, path)) from error
                self._verify_digest(manifest, path, artifacts.sha256(file))

    def _upload_files(self, folder: str, files: Mapping[str, Path]) -> bool:
        """Upload files until the version has a manifest; return whether all are uploaded."""
        for path, file in files.items():
            if self._objects.find(f"{folder}/{MANIFEST}"):  # of another process
                return False
            self._objects.upload(f"{folder}/{path}", file)
        return True

    def _list_reservations(self, name: str) -> dict[int, str]:
        """Return the run of each number that is reserved.

        A listing may miss objects that are written during it, so each number up to the last is read. On a
        disk, the last may be a folder without run.json: that number is still free. Numbers are reserved in
        order, so missing numbers below the highest reserved one are read again.
        """
        folders = self._objects.folders(f"{model_folder(name)}/versions/")
        last = max((int(folder) for folder in folders if re.fullmatch(r"\d{6,}", folder)), default=0)
        reservations = self._read_reservations(name, range(1, last + 1))
        numbers = range(1, max(reservations, default=0))
        missing = [number for number in numbers if number not in reservations]
        return reservations | self._read_reservations(name, missing)

    def _read_reservations(self, name: str, numbers: Sequence[int]) -> dict[int, str]:
        """Return the run of each reserved number, an empty string if run.json is damaged."""
        keys = [self._run_key(name, number) for number in numbers]
        reservations = read_records(self._objects, keys, Reservation, [])
        runs = {
            number: reservation.run if reservation else self._find_owner(name, number)
            for number, reservation in zip(numbers, reservations, strict=True)
        }
        return {number: run for number, run in runs.items() if run is not None}

    def _find_owner(self, name: str, number: int) -> str | None:
        """Return the run of a number whose run.json is damaged or missing; None if the number is free."""
        owner = None
        kinds: tuple[tuple[str, type[Reservation | Manifest]], ...] = (
            (RUN, Reservation),
            (MANIFEST, Manifest),
        )
        for file, kind in kinds:
            try:
                return read_record(self._objects, f"{version_folder(name, number)}/{file}", kind).run
            except NotFoundError:
                continue
            except DamagedError:
                owner = ""
        return owner

    def _has_champion(self, name: str) -> bool:
        return self._objects.find(f"{model_folder(name)}/champion.json") is not None

    def _run_key(self, name: str, version: int) -> str:
        return f"{version_folder(name, version)}/{RUN}"

    def _check_manifest(self, name: str, version: int, files: Mapping[str, Path], manifest: Manifest) -> None:
        if (manifest.model, manifest.version, set(manifest.files)) != (name, version, set(files)):
            raise ValueError(f"the manifest of {manifest.model} {manifest.version} is for other files")
        for path in files:
            if check_key(path) in (MANIFEST, RUN):
                raise StoreError(f"The model store reserves the file name {path}. Rename the file.")
        owner = self._read_reservations(name, [version]).get(version)
        if owner is None:
            raise NotFoundError(
                f"Version {version} of {name} in {self.url} is not reserved. Reserve it first."
            )
        if owner != manifest.run:
            raise ConflictError(
                f"Version {version} of {name} in {self.url} is reserved by the run {owner or '?'}, not by "
                f"{manifest.run}. Reserve a version for this run, then publish it."
            )

    def _read_manifest(self, name: str, version: int) -> tuple[Manifest, bytes]:
        key = f"{version_folder(name, version)}/{MANIFEST}"
        try:
            data, _ = self._objects.read(key)
        except NotFoundError as error:
            self.check_model(name)
            versions = self._list_versions(name) or "none"
            files = set(self._objects.keys(f"{version_folder(name, version)}/"))
            if files - {self._run_key(name, version)}:
                raise NotFoundError(
                    f"Version {version} of {name} in {self.url} has files, but no {MANIFEST}: it was "
                    "deleted, or the publication was interrupted. Restore it from a backup, or use another "
                    f"version ({versions})."
                ) from error
            raise NotFoundError(
                f"{name} has no version {version} in {self.url}; versions: {versions}."
            ) from error
        return parse_record(self._objects, key, data, Manifest), data

    def _read_verified_manifest(self, name: str, version: int, digest: str | None) -> tuple[Manifest, bytes]:
        manifest, data = self._read_manifest(name, version)
        if digest is not None and digest != (actual := _sha256(data)):
            raise DamagedError(
                f"{MANIFEST} of version {version} of {name} in {self.url} has the SHA-256 {actual}, not "
                f"{digest}: it was changed. Promote or roll back to another version."
            )
        return manifest, data

    def _list_versions(self, name: str) -> str:
        return ", ".join(map(str, self.versions(name)))

    def _describe(self, manifest: Manifest) -> str:
        return f"version {manifest.version} of {manifest.model} in {self.url}"

    def _describe_missing(self, manifest: Manifest, path: str) -> str:
        return f"{path} of {self._describe(manifest)} is missing. Promote or roll back to another version."

    def _get_file_key(self, manifest: Manifest, path: str) -> str:
        if path not in manifest.files:
            raise NotFoundError(
                f"There is no {path} in {self._describe(manifest)}; it has {', '.join(manifest.files)}."
            )
        return f"{version_folder(manifest.model, manifest.version)}/{check_key(path)}"

    def _verify_digest(self, manifest: Manifest, path: str, actual: str) -> None:
        if actual != manifest.files[path]:
            raise DamagedError(
                f"{path} of {self._describe(manifest)} is damaged: its SHA-256 is {actual}, and the manifest "
                f"has {manifest.files[path]}. Promote or roll back to another version."
            )


def model_folder(name: str) -> str:
    """Return a model's name; raise ConfigError unless it is valid as folder, host name and label."""
    if not re.fullmatch(MODEL_NAME, name):
        raise ConfigError(
            f"{name!r} is not a valid model name. Use 1 to 63 lower-case letters, digits and dashes, with no "
            "dash at either end, such as `digits` or `cifar10-cnn`."
        )
    return name


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def version_folder(name: str, version: int) -> str:
    """Return the folder of a version, without `/` at its end."""
    return f"{model_folder(name)}/versions/{version:06d}"
