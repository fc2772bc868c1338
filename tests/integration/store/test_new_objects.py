"""What uploads and clearing up ask of a store: once only, and never over what others did meanwhile."""

import io
import time

import pytest

from modelyard.components.errors import ConflictError


def added(objects, key, data):
    objects.add(key, io.BytesIO(data), len(data))


@pytest.mark.parametrize("size", [0, 5, 9 * 2**20])
def test_a_new_object_has_the_files_bytes(objects, size):
    data = bytes(range(256)) * (size // 256 + 1)
    added(objects, "uploads/one", data[:size])
    assert objects.read("uploads/one")[0] == data[:size]
    assert objects.keys("uploads/") == ["uploads/one"]


def test_what_exists_is_not_written_over(objects):
    added(objects, "uploads/one", b"first")
    with pytest.raises(ConflictError):
        added(objects, "uploads/one", b"second")
    assert objects.read("uploads/one")[0] == b"first"


def test_touching_makes_an_object_new_and_no_other_there(objects):
    assert not objects.touch("uploads/one")
    added(objects, "uploads/one", b"first")
    (before,) = objects.entries("uploads/")
    time.sleep(0.01)
    assert objects.touch("uploads/one")
    (after,) = objects.entries("uploads/")
    assert (after.key, after.size) == (before.key, before.size) == ("uploads/one", 5)
    assert after.changed > before.changed


def test_deleting_leaves_nothing_and_may_be_done_twice(objects):
    added(objects, "uploads/data/one", b"first")
    added(objects, "other", b"other")
    (seen,) = objects.entries("uploads/")
    assert objects.delete(seen)
    assert objects.delete(seen)
    assert objects.keys("") == ["other"]
    assert objects.folders("") == []


@pytest.mark.parametrize("settings", ["folder"], indirect=True)  # the emulator knows no such precondition
@pytest.mark.parametrize("change", ["touched", "written", "made anew"])
def test_what_changed_since_it_was_listed_is_not_deleted(objects, change, tmp_path):
    added(objects, "uploads/one", b"first")
    (seen,) = objects.entries("uploads/")
    time.sleep(0.01)
    (tmp_path / "second").write_bytes(b"second")
    if change == "touched":
        objects.touch("uploads/one")
    else:
        if change == "made anew":
            objects.delete(seen)
        objects.upload("uploads/one", tmp_path / "second")
    assert not objects.delete(seen)
    assert objects.read("uploads/one")[0] == (b"first" if change == "touched" else b"second")
