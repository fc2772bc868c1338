import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Manifest
from modelyard.components.errors import ConfigError, ConflictError, NotFoundError, StoreError
from modelyard.components.store.models import ModelStore
from modelyard.components.store.objects import Objects

Publish = Callable[[str], int]
MakeManifest = Callable[[str, int, str], Manifest]


def test_an_empty_store_has_no_models(store: ModelStore) -> None:
    assert store.names() == []
    assert store.versions("digits") == []
    assert store.champion("digits") is None
    assert store.history("digits") == []
    assert store.find_rollback("digits", 1) is None


def test_each_run_reserves_one_version(store: ModelStore) -> None:
    assert store.reserve("digits", "first") == 1
    assert store.reserve("digits", "second") == 2
    assert store.reserve("digits", "first") == 1
    assert store.reserve("digits", "second") == 2
    assert store.reserve("other", "first") == 1


def test_a_version_exists_when_it_has_a_manifest(store: ModelStore, publish: Publish) -> None:
    store.reserve("digits", "killed")
    assert store.versions("digits") == []
    assert store.names() == []
    with pytest.raises(NotFoundError, match="no model digits"):
        store.manifest("digits", 1)
    assert publish("complete") == 2
    with pytest.raises(NotFoundError, match="no version 1"):
        store.manifest("digits", 1)
    assert store.versions("digits") == [2]
    assert store.names() == ["digits"]
    assert store.reserve("digits", "killed") == 1


def test_the_layout_is_as_documented(store: ModelStore, publish: Publish, objects: Objects) -> None:
    store.promote("digits", publish("run"), reason="good", by="test")
    assert objects.keys("") == [
        "digits/champion.json",
        "digits/history/000001.json",
        "digits/versions/000001/manifest.json",
        "digits/versions/000001/model.onnx",
        "digits/versions/000001/report.html",
        "digits/versions/000001/run.json",
        "digits/versions/000001/saved_model/variables/variables.index",
    ]


def test_a_published_version_never_changes(
    store: ModelStore, publish: Publish, files: dict[str, Path], manifest: MakeManifest, objects: Objects
) -> None:
    version = publish("run")
    digest = store.digest("digits", version)
    before = {key: objects.read(key)[0] for key in objects.keys("")}
    files["model.onnx"].write_bytes(b"trained again")
    assert store.publish("digits", version, files, manifest("digits", version, "run")) == digest
    assert {key: objects.read(key)[0] for key in objects.keys("")} == before
    assert hashlib.sha256(before["digits/versions/000001/manifest.json"]).hexdigest() == digest


def test_a_concurrent_publication_is_not_overwritten(
    store: ModelStore, files: dict[str, Path], manifest: MakeManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, upload = store.reserve("digits", "run"), store._objects.upload
    first = manifest("digits", version, "run")
    second = first.model_copy(update={"created": "2026-01-02"})

    def publish_and_upload(key: str, path: Path) -> None:
        monkeypatch.setattr(store._objects, "upload", upload)
        store.publish("digits", version, files, second)
        upload(key, path)

    monkeypatch.setattr(store._objects, "upload", publish_and_upload)
    assert store.publish("digits", version, files, first) == store.digest("digits", version)
    assert store.manifest("digits", version) == second


def test_a_manifest_of_other_files_is_refused(
    store: ModelStore, files: dict[str, Path], manifest: MakeManifest
) -> None:
    with pytest.raises(ValueError, match="other files"):
        store.publish("digits", 2, files, manifest("digits", 1, "run"))


def test_only_the_run_that_reserved_a_version_publishes_it(
    store: ModelStore, files: dict[str, Path], manifest: MakeManifest
) -> None:
    with pytest.raises(NotFoundError):
        store.publish("digits", 1, files, manifest("digits", 1, "run-2"))
    store.reserve("digits", "run-1")
    with pytest.raises(ConflictError, match=r"by the run run-1, not by run-2"):
        store.publish("digits", 1, files, manifest("digits", 1, "run-2"))
    assert store.versions("digits") == []


@pytest.mark.parametrize("path", ["../../champion.json", "/etc/passwd", "manifest.json", "run.json"])
def test_a_file_with_a_reserved_or_outside_path_is_refused(
    store: ModelStore, files: dict[str, Path], manifest: MakeManifest, path: str, objects: Objects
) -> None:
    store.reserve("digits", "run")
    files[path] = files["model.onnx"]
    with pytest.raises(StoreError, match="ename the file") as error:
        store.publish("digits", 1, files, manifest("digits", 1, "run"))
    assert path in str(error.value)
    assert objects.keys("") == ["digits/versions/000001/run.json"]


def test_fetch_downloads_every_file_and_the_manifest(
    store: ModelStore, publish: Publish, files: dict[str, Path], tmp_path: Path
) -> None:
    version = publish("run")
    digest = store.digest("digits", version)
    manifest = store.fetch("digits", version, tmp_path / "served", digest=digest)
    assert manifest == store.manifest("digits", version)
    assert artifacts.sha256(tmp_path / "served/manifest.json") == digest
    for path, source in files.items():
        assert (tmp_path / "served" / path).read_bytes() == source.read_bytes()


def test_fetch_downloads_only_the_requested_files(
    store: ModelStore, publish: Publish, tmp_path: Path
) -> None:
    version = publish("run")
    store.fetch("digits", version, tmp_path / "served", paths=["model.onnx"])
    assert sorted(path.name for path in (tmp_path / "served").iterdir()) == ["manifest.json", "model.onnx"]
    with pytest.raises(NotFoundError, match=r"no model\.tflite in version 1 of digits .* has .*model\.onnx"):
        store.fetch("digits", version, tmp_path / "other", paths=["model.tflite"])


def test_a_changed_file_is_an_error_and_nothing_remains(
    store: ModelStore, publish: Publish, objects: Objects, tmp_path: Path
) -> None:
    version = publish("run")
    (tmp_path / "changed").write_bytes(b"evil")
    objects.upload("digits/versions/000001/model.onnx", tmp_path / "changed")
    with pytest.raises(StoreError, match=r"model\.onnx of version 1 of digits.*damaged.*roll back"):
        store.fetch("digits", version, tmp_path / "served")
    with pytest.raises(StoreError, match=r"model\.onnx of version 1 of digits.*damaged.*roll back"):
        store.read_record("digits", version, "model.onnx", Manifest)
    assert not list(tmp_path.glob("served*"))
    store.fetch("digits", version, tmp_path / "served", paths=["report.html"])


def test_a_missing_file_is_an_error(store: ModelStore, manifest: MakeManifest, tmp_path: Path) -> None:
    store.reserve("digits", "run")
    complete = manifest("digits", 1, "run")
    store._objects.create("digits/versions/000001/manifest.json", complete.model_dump_json().encode())
    with pytest.raises(NotFoundError, match=r"report.html of version 1 of digits in .* is missing"):
        store.fetch("digits", 1, tmp_path / "served")
    assert not list(tmp_path.glob("served*"))


def test_a_changed_manifest_does_not_match_its_digest(
    store: ModelStore, publish: Publish, objects: Objects, tmp_path: Path
) -> None:
    version = publish("run")
    digest = store.digest("digits", version)
    key = "digits/versions/000001/manifest.json"
    data, generation = objects.read(key)
    objects.replace(key, data.replace(b'"good"', b'"evil"'), generation)
    with pytest.raises(StoreError, match=rf"not {digest}"):
        store.fetch("digits", version, tmp_path / "served", digest=digest)
    with pytest.raises(StoreError, match=rf"not {digest}"):
        store.read_record("digits", version, "model.onnx", Manifest, digest)
    assert not list(tmp_path.glob("served*"))


@pytest.mark.parametrize("name", ["Digits", "a/b", "..", "-a", "a-", "a_b", "", "a" * 64, "digits\n"])
def test_an_invalid_name_is_refused(store: ModelStore, name: str) -> None:
    for operation in (store.versions, store.champion, store.history, lambda name: store.reserve(name, "run")):
        with pytest.raises(ConfigError, match="lower-case letters, digits and dashes") as error:
            operation(name)
        assert repr(name) in str(error.value)
    assert store.reserve("a" * 63, "run") == 1
