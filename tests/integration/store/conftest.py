"""Stores in a folder and in a bucket of the fake-gcs-server."""

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Decision, Manifest
from modelyard.components.store.models import ModelStore, open_store
from modelyard.components.store.objects import Objects
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import open_objects
from tests.integration.conftest import BUCKET
from tests.versions import accuracy_metrics, classifier_signature


@pytest.fixture(params=["folder", "bucket"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(url=f"file://{tmp_path}/models")
    if request.param == "shelf":
        request.getfixturevalue("shelf_storage")
        return Store(url="shelf://models/of/tests")
    endpoint = request.getfixturevalue("emulator")
    return Store(url=f"gs://{BUCKET}/{uuid4().hex}", endpoint=endpoint)


@pytest.fixture
def objects(settings: Store) -> Objects:
    return open_objects(settings)


@pytest.fixture
def store(settings: Store) -> ModelStore:
    return open_store(settings)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "files"
    (folder / "saved_model/variables").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"\x00onnx" * 1000)
    (folder / "saved_model/variables/variables.index").write_bytes(b"")
    (folder / "report.html").write_text("<p>fine</p>")
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def manifest(files: dict[str, Path]) -> Callable[[str, int, str], Manifest]:
    return lambda name, version, run: create_manifest(name, version, run, files)


def create_manifest(name: str, version: int, run: str, files: dict[str, Path]) -> Manifest:
    return Manifest(
        model=name,
        version=version,
        run=run,
        created="2026-01-01T00:00:00+00:00",
        data="d" * 64,
        recipe_sha256="c" * 64,
        config={"name": name},
        files={key: artifacts.sha256(path) for key, path in files.items()},
        signature=classifier_signature((8, 8, 1), "uint8", ("0", "1")),
        metrics=accuracy_metrics(0.9, 0.8, 1.0),
        decision=Decision(decision="promote", reason="good"),
        packages={"numpy": "2"},
    )


@pytest.fixture
def publish(
    store: ModelStore, files: dict[str, Path], manifest: Callable[[str, int, str], Manifest]
) -> Callable[[str], int]:
    """Return a function that publishes the version of `digits` of a run."""

    def publish_run(run: str) -> int:
        version = store.reserve("digits", run)
        store.publish("digits", version, files, manifest("digits", version, run))
        return version

    return publish_run
