"""Local data and code for pods are uploaded to a bucket and fetched by the steps."""

import dataclasses
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from modelyard.components.artifacts import tree_sha256
from modelyard.components.errors import ConfigError, DataError, TrainError
from modelyard.components.fingerprint.identity import fingerprint_data
from modelyard.components.ingest import image_files
from modelyard.components.source.location import locate
from modelyard.components.store.objects import Objects
from modelyard.components.store.storage import open_objects
from modelyard.components.train import code_archive
from modelyard.components.train.code_archive import fetch_code, unpack
from modelyard.components.train.settings import CodeLocation
from modelyard.pipelines.compile import uploads
from modelyard.pipelines.compile.compiler import create_arguments
from modelyard.pipelines.compile.uploads import Uploads, prepare_uploads
from modelyard.pipelines.config.config import Config, load
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.steps import IMAGES, deploy_spec
from tests.integration.conftest import BUCKET

QUIET = Console(quiet=True)


def recipe(config: Config, environment: Environment) -> str:
    """Return the hash of configuration and code."""
    return str(deploy_spec(create_arguments(config, environment))["recipe_sha256"])


@pytest.fixture
def environment(emulator: str) -> Environment:
    """A cluster whose pods reach the emulator at the same URL."""
    base = f"gs://{BUCKET}/{uuid4().hex}"
    return Environment.model_validate(
        {
            "kind": "kubernetes",
            "store": f"{base}/models",
            "pipeline_root": f"{base}/runs",
            "storage_endpoint": emulator,
            "images": {image: f"modelyard/{image}:0123456789abcdef" for image in IMAGES},
        }
    )


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Images in class folders, and a hidden file."""
    for name, number in (("cat", 1), ("cat", 2), ("dog", 3)):
        path = tmp_path / "images" / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(path)
    (tmp_path / "images" / ".DS_Store").write_text("")
    return tmp_path / "images"


@pytest.fixture
def code_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "networks"
    (folder / "deep").mkdir(parents=True)
    (folder / "small.py").write_text("def build(input_shape, classes): ...\n")
    (folder / "deep" / "blocks.py").write_text("WIDTH = 64\n")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "small.cpython-311.pyc").write_bytes(b"\0")
    return folder


def config(environment: Environment, *settings: str) -> Config:
    return load(overrides=settings, environ={}, store=environment.model_store())


def objects(environment: Environment) -> Objects:
    store = environment.model_store()
    assert store
    return open_objects(store)


def code_setting(code_folder: Path) -> str:
    return f"model={{build: 'small:build', code: {code_folder}}}"


def data_setting(image_folder: Path) -> str:
    return f"data={{kind: images, source: {image_folder}}}"


def upload(environment: Environment, *settings: str) -> Uploads:
    uploads = prepare_uploads(config(environment, *settings), environment)
    uploads.send(QUIET)
    return uploads


def test_a_local_run_uploads_nothing(image_folder: Path, code_folder: Path) -> None:
    local_config = load(overrides=[data_setting(image_folder), code_setting(code_folder)], environ={})
    uploads = prepare_uploads(local_config, Environment(kind="local"))
    assert (uploads.config, uploads.files) == (local_config, ())


def test_local_data_and_code_are_uploaded_and_configured(
    environment: Environment, image_folder: Path, code_folder: Path
) -> None:
    uploads = upload(
        environment, data_setting(image_folder), code_setting(code_folder), "store.user_project=payer"
    )
    names = [file.name for file in uploads.files]
    code = uploads.config.code()
    assert code
    assert [uploads.config.data.user_project, code.user_project] == ["payer", "payer"]
    assert [file.key for file in uploads.files] == ["data.source", "model.code"]
    assert objects(environment).keys("") == sorted(names)
    assert [uploads.config.data.source, uploads.config.model.code] == [
        f"{environment.store}/{name}" for name in names
    ]
    assert names[1] == f"uploads/code/{tree_sha256(code_folder)}.zip"
    pipeline_arguments = create_arguments(uploads.config, environment)
    assert str(image_folder.parent) not in json.dumps(pipeline_arguments)
    assert deploy_spec(pipeline_arguments)["code_sha256"] == tree_sha256(code_folder)


def test_ingest_reads_the_same_examples_from_the_archive_and_the_folder(
    environment: Environment, image_folder: Path, tmp_path: Path
) -> None:
    remote = upload(environment, data_setting(image_folder)).config.source()
    fetched = image_files.read(locate(remote).fetch(tmp_path / "scratch"), remote)
    local_config = image_files.read(image_folder, remote)
    assert (fetched.names, fetched.splits, fetched.shape) == (
        local_config.names,
        local_config.splits,
        local_config.shape,
    )
    for first, other in zip(fetched.batches, local_config.batches, strict=True):
        assert first[0] == other[0]
        np.testing.assert_array_equal(first[1], other[1])
        np.testing.assert_array_equal(first[2], other[2])


def test_the_same_content_is_uploaded_once_and_is_the_same_run_at_any_path(
    environment: Environment, image_folder: Path, code_folder: Path, tmp_path: Path
) -> None:
    first = upload(environment, data_setting(image_folder), code_setting(code_folder))
    before = {entry.key: entry for entry in objects(environment).entries("")}
    for path in image_folder.rglob("*.png"):
        os.utime(path, (1, 1))
    moved, copied = image_folder.rename(tmp_path / "moved"), code_folder.rename(tmp_path / "copied")
    second = upload(environment, data_setting(moved), code_setting(copied))
    assert create_arguments(second.config, environment) == create_arguments(first.config, environment)
    after = {entry.key: entry for entry in objects(environment).entries("")}
    assert after.keys() == before.keys()
    for key, entry in after.items():  # not uploaded again, but new for `gc`
        assert entry.generation == before[key].generation
        assert entry.mtime > before[key].mtime


def test_an_uploaded_file_has_the_fingerprint_of_the_local_file(
    environment: Environment, tmp_path: Path
) -> None:
    np.savez(tmp_path / "set.npz", x=np.zeros((4, 2, 2), np.uint8), y=np.arange(4))
    local_config = config(environment, f"data={{kind: npz, source: {tmp_path}/set.npz}}")
    uploads = prepare_uploads(local_config, environment)
    uploads.send(QUIET)
    assert fingerprint_data(uploads.config.source()) == fingerprint_data(local_config.source())
    path = locate(uploads.config.source()).fetch(tmp_path / "scratch")
    assert path.read_bytes() == (tmp_path / "set.npz").read_bytes()


def test_uploaded_code_has_the_recipe_of_its_folder(environment: Environment, code_folder: Path) -> None:
    local_config = load(overrides=[code_setting(code_folder)], environ={})
    remote = upload(environment, code_setting(code_folder)).config
    assert remote.code_sha256() == local_config.code_sha256() == tree_sha256(code_folder)
    local = Environment(kind="local")
    mixed = local_config.model_copy(update={"model": remote.model, "store": remote.store})
    assert recipe(mixed, local) == recipe(local_config, local)


def test_train_unpacks_the_uploaded_folder(environment: Environment, code_folder: Path) -> None:
    code = upload(environment, code_setting(code_folder)).config.code()
    assert code
    folder = fetch_code(CodeLocation.from_json(code.to_json()))
    assert tree_sha256(folder) == tree_sha256(code_folder)
    assert (folder / "deep" / "blocks.py").read_text() == "WIDTH = 64\n"
    assert not list(folder.rglob("__pycache__"))


def test_missing_uploaded_code_is_an_error(environment: Environment, code_folder: Path) -> None:
    code = prepare_uploads(config(environment, code_setting(code_folder)), environment).config.code()
    assert code
    with pytest.raises(TrainError, match="no longer exists"):
        fetch_code(code)


@pytest.mark.parametrize("name", ["../out.py", "/out.py", "a/../../out.py", "a\\..\\out.py"])
def test_an_archive_with_a_path_outside_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.writestr(name, "print(1)")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TrainError, match="modelyard did not make it"):
        unpack(tmp_path / "code.zip", tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code.zip", "folder"]


@pytest.mark.parametrize("kind", ["bomb", "link"])
def test_an_archive_with_a_bomb_or_a_link_is_refused(kind: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        entry = zipfile.ZipInfo("small.py")
        if kind == "bomb":
            entry.compress_type = zipfile.ZIP_DEFLATED
        else:
            entry.external_attr = 0o120777 << 16
        archive.writestr(entry, b"/" * 2**20)
    (tmp_path / "folder").mkdir()
    with pytest.raises(TrainError, match="regular file inside"):
        unpack(tmp_path / "code.zip", tmp_path / "folder")


@pytest.mark.parametrize(
    ("flags", "message"), [(0x1, "password required"), (0x20, "patched data")], ids=["encrypted", "patched"]
)
def test_an_archive_that_cannot_be_read_is_refused(flags: int, message: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.writestr("small.py", "print(1)")
    data = bytearray((tmp_path / "code.zip").read_bytes())
    data[data.index(b"PK\x03\x04") + 6] |= flags
    data[data.index(b"PK\x01\x02") + 8] |= flags
    (tmp_path / "code.zip").write_bytes(data)
    (tmp_path / "folder").mkdir()
    with pytest.raises(TrainError, match=f"cannot be unpacked .*{message}"):
        unpack(tmp_path / "code.zip", tmp_path / "folder")


def test_an_archive_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code.zip").write_bytes(bytes(10))
    monkeypatch.setattr(code_archive, "MAX_BYTES", 9)
    with pytest.raises(TrainError, match="10 bytes; the limit is 9"):
        unpack(tmp_path / "code.zip", tmp_path)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "code.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(TrainError, match="cannot be unpacked"):
        unpack(tmp_path / "code.zip", tmp_path)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ("data={kind: npz, source: /missing/x.npz}", DataError, "/missing/x.npz"),
        ("data={kind: npz, source: .}", DataError, "a folder, but npz requires a file"),
        ("data={kind: npz, source: x.npz, sha256: '" + "0" * 64 + "'}", DataError, "but data.sha256 is"),
        ("data={kind: npz, source: x.npz, max_bytes: 2}", DataError, "data.max_bytes allows 2"),
    ],
)
def test_invalid_data_is_refused_before_the_upload(
    environment: Environment, settings: str, kind: Any, message: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.npz").write_bytes(b"data")
    with pytest.raises(kind, match=message):
        prepare_uploads(config(environment, settings), environment)


def test_code_that_is_too_large_is_refused(
    environment: Environment, code_folder: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(uploads, "MAX_BYTES", 40)
    with pytest.raises(ConfigError, match=r"model.code .* Keep data"):
        prepare_uploads(config(environment, code_setting(code_folder)), environment)


def test_a_file_that_changes_during_the_upload_is_deleted(environment: Environment, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(b"before")
    uploads = prepare_uploads(config(environment, f"data={{kind: npz, source: {path}}}"), environment)
    (data,) = uploads.files

    class ChangingFile:
        def __enter__(self) -> Any:
            self.opened = data.open()
            file = self.opened.__enter__()
            path.write_bytes(b"after!!")
            return file

        def __exit__(self, *error: Any) -> Any:
            return self.opened.__exit__(*error)

    changed = dataclasses.replace(uploads, files=(dataclasses.replace(data, open=ChangingFile),))
    with pytest.raises(DataError, match="changed during the upload"):
        changed.send(QUIET)
    assert objects(environment).keys("") == []


def test_a_folder_that_changes_before_the_upload_is_refused(
    environment: Environment, image_folder: Path
) -> None:
    uploads = prepare_uploads(config(environment, data_setting(image_folder)), environment)
    (image_folder / "dog" / "4.png").write_bytes(b"new")
    with pytest.raises(DataError, match="changed while it was packed"):
        uploads.send(QUIET)
    assert objects(environment).keys("") == []


def test_the_progress_of_an_upload_is_shown(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(bytes(2**20))
    uploads = prepare_uploads(
        config(environment, f"data={{kind: npz, source: {tmp_path}/x.npz}}"), environment
    )
    text = io.StringIO()
    uploads.send(Console(file=text, force_terminal=True))
    assert "sending x.npz" in text.getvalue()
