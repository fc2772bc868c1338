"""The interface of storages: a folder, a bucket and a plugin."""

import io
import time
from pathlib import Path

import pytest

from modelyard.components.errors import ConflictError, NotFoundError, StoreError
from modelyard.components.store.objects import Objects

pytestmark = pytest.mark.parametrize("settings", ["folder", "bucket", "shelf"], indirect=True)


def test_an_object_is_created_once(objects: Objects) -> None:
    objects.create("m/a.json", b"1")
    with pytest.raises(ConflictError, match=r"m/a\.json"):
        objects.create("m/a.json", b"2")
    assert objects.read("m/a.json")[0] == b"1"


def test_replace_needs_the_current_generation(objects: Objects) -> None:
    objects.create("m/a.json", b"1")
    _, first = objects.read("m/a.json")
    second = objects.replace("m/a.json", b"2", first)
    assert objects.read("m/a.json") == (b"2", second)
    with pytest.raises(ConflictError, match=r"m/a\.json"):
        objects.replace("m/a.json", b"3", first)
    assert objects.read("m/a.json") == (b"2", second)


def test_a_missing_object_is_not_found_and_cannot_be_replaced(objects: Objects, tmp_path: Path) -> None:
    objects.create("m/other", b"")
    for read in (lambda: objects.read("m/a"), lambda: objects.download("m/a", tmp_path / "a")):
        with pytest.raises(NotFoundError, match="m/a"):
            read()
    with pytest.raises(ConflictError):
        objects.replace("m/a", b"1", "12345")
    assert objects.find("m/a") is None
    assert objects.find("m/other")


def test_files_of_any_size_are_uploaded_and_downloaded(objects: Objects, tmp_path: Path) -> None:
    source, downloaded = tmp_path / "source", tmp_path / "downloaded"
    for size in (0, 5, 20 * 2**20):  # the last one is a resumable upload on a bucket
        source.write_bytes(b"x" * size)
        objects.upload("m/file", source)
        objects.download("m/file", downloaded)
        assert downloaded.read_bytes() == source.read_bytes()


def test_a_download_may_require_the_listed_generation(objects: Objects, tmp_path: Path) -> None:
    objects.create("m/a", b"1")
    listed = objects.find("m/a")
    assert objects.entries("m/") == [listed]
    objects.download("m/a", tmp_path / "downloaded", listed.generation)
    assert (tmp_path / "downloaded").read_bytes() == b"1"
    time.sleep(0.01)
    objects.replace("m/a", b"2", objects.read("m/a")[1])
    with pytest.raises(NotFoundError):
        objects.download("m/a", tmp_path / "downloaded", listed.generation)


def test_keys_and_folders_are_listed_by_prefix(objects: Objects) -> None:
    assert objects.keys("") == []
    assert objects.folders("m/") == []
    for key in ("m/b", "m/a/1", "m/a/2/x", "mm/z"):
        objects.create(key, b"")
    assert objects.keys("m/") == ["m/a/1", "m/a/2/x", "m/b"]
    assert objects.keys("") == ["m/a/1", "m/a/2/x", "m/b", "mm/z"]
    assert objects.folders("") == ["m", "mm"]
    assert objects.folders("m/") == ["a"]


@pytest.mark.parametrize(
    "key", ["../a", "/etc/passwd", "a/../../b", "a//b", ".hidden", "a/.b", "a\\b", "a\n", ""]
)
def test_a_key_cannot_lead_out_of_the_store(objects: Objects, key: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="relative path") as error:
        objects.create(key, b"")
    assert repr(key) in str(error.value)
    with pytest.raises(StoreError):
        objects.upload(key, tmp_path)


def add(objects, key, data):
    objects.create_from_file(key, io.BytesIO(data), len(data))


@pytest.mark.parametrize("size", [0, 5, 9 * 2**20])
def test_a_new_object_has_the_bytes_of_the_stream(objects, size):
    data = bytes(range(256)) * (size // 256 + 1)
    add(objects, "uploads/one", data[:size])
    assert objects.read("uploads/one")[0] == data[:size]
    assert objects.keys("uploads/") == ["uploads/one"]


def test_an_existing_object_is_not_overwritten(objects):
    add(objects, "uploads/one", b"first")
    with pytest.raises(ConflictError):
        add(objects, "uploads/one", b"second")
    assert objects.read("uploads/one")[0] == b"first"


def test_touch_updates_only_the_time(objects):
    assert not objects.touch("uploads/one")
    add(objects, "uploads/one", b"first")
    (before,) = objects.entries("uploads/")
    time.sleep(0.01)
    assert objects.touch("uploads/one")
    (after,) = objects.entries("uploads/")
    assert (after.key, after.size) == (before.key, before.size) == ("uploads/one", 5)
    assert after.mtime > before.mtime


def test_delete_is_idempotent(objects):
    add(objects, "uploads/data/one", b"first")
    add(objects, "other", b"other")
    (listed,) = objects.entries("uploads/")
    assert objects.delete(listed)
    assert objects.delete(listed)
    assert objects.keys("") == ["other"]
    assert objects.folders("") == []
