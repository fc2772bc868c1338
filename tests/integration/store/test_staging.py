"""Artifacts are copied between a bucket and a step's folder."""

import shutil
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from modelyard.components.errors import NotFoundError, StoreError
from modelyard.components.store import staging
from modelyard.components.store.bucket import GoogleCloudStorage
from tests.integration.conftest import BUCKET


@pytest.fixture
def uri() -> str:
    return f"gs://{BUCKET}/{uuid4().hex}/train"


def test_a_folder_and_a_file_are_uploaded_and_fetched(uri, emulator, tmp_path):
    source, fetched = tmp_path / "source", tmp_path / "fetched"
    (source / "model/saved_model").mkdir(parents=True)
    (source / "model/saved_model/weights").write_bytes(b"\x00" * 9_000_000)  # needs several requests
    (source / "model/signature.json").write_text("{}")
    (source / "report").write_text("<p>fine</p>")
    staging.put(source, uri, emulator)

    staging.fetch(f"{uri}/model", fetched / "model", emulator)
    staging.fetch(f"{uri}/report", fetched / "report", emulator)
    files = {path.relative_to(source): path for path in source.rglob("*") if path.is_file()}
    assert {path.relative_to(fetched) for path in fetched.rglob("*") if path.is_file()} == set(files)
    assert all((fetched / name).read_bytes() == path.read_bytes() for name, path in files.items())


def test_an_artifact_with_the_same_prefix_is_not_fetched(uri, emulator, tmp_path):
    for name in ("model", "model-old"):
        (tmp_path / "source" / name).mkdir(parents=True)
        (tmp_path / "source" / name / "file").write_text(name)
    staging.put(tmp_path / "source", uri, emulator)
    staging.fetch(f"{uri}/model", tmp_path / "fetched", emulator)
    assert [path.read_text() for path in (tmp_path / "fetched").rglob("*") if path.is_file()] == ["model"]


def test_a_missing_artifact_is_an_error(uri, emulator, tmp_path):
    with pytest.raises(NotFoundError, match="train/model"):
        staging.fetch(f"{uri}/model", tmp_path / "fetched", emulator)


def test_a_path_outside_the_bucket_is_refused(emulator, tmp_path):
    with pytest.raises(StoreError, match="not a valid"):
        staging.fetch(f"gs://{BUCKET}/../../etc/passwd", tmp_path / "fetched", emulator)


def test_the_program_uses_the_mount_point_of_the_steps(uri, emulator, tmp_path, monkeypatch):
    assert staging.mount_path("gs://bucket/runs/7") == Path("/gcs/bucket/runs/7")
    monkeypatch.setattr(GoogleCloudStorage, "mount", str(tmp_path))
    (staging.mount_path(uri) / "model").mkdir(parents=True)
    (staging.mount_path(uri) / "model" / "file").write_text("fine")
    monkeypatch.setattr(sys, "argv", ["staging", "--endpoint", emulator, "put", uri])
    staging.main()
    shutil.rmtree(staging.mount_path(uri))
    monkeypatch.setattr(sys, "argv", ["staging", "--endpoint", emulator, "fetch", uri])
    staging.main()
    assert (staging.mount_path(uri) / "model" / "file").read_text() == "fine"


def test_a_step_without_inputs_needs_no_bucket(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["staging", "--endpoint", "http://127.0.0.1:9", "fetch"])
    staging.main()
