import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.components.errors import DataError
from modelyard.components.source import location
from modelyard.components.source.location import DiskLocation

LATER = (2_000_000_000, 2_000_000_000)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with class folders."""
    folder = tmp_path / "images"
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_copies_and_touched_files_have_the_same_identity(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"data")
    (tmp_path / "b").write_bytes(b"data")
    os.utime(tmp_path / "b", LATER)
    (tmp_path / "c").write_bytes(b"dato")
    original, copy, other = (DiskLocation(tmp_path / name).identity() for name in "abc")
    assert original == copy != other


def test_a_large_file_is_identified_by_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "HASHED_BYTES", 3)
    monkeypatch.setattr(location.artifacts, "sha256", lambda _: pytest.fail("the file was read"))
    path = tmp_path / "large"
    path.write_bytes(b"data")
    first = DiskLocation(path).identity()
    assert DiskLocation(path).identity() == first
    os.utime(path, LATER)
    assert DiskLocation(path).identity() != first


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "cat/1.png").rename(folder / "cat/3.png"),
        lambda folder: (folder / "cat/1.png").rename(folder / "dog/3.png"),
        lambda folder: (folder / "cat/1.png").write_bytes(b"longer than before"),
        lambda folder: (folder / "cat/4.png").touch(),
        lambda folder: (folder / "bird").mkdir(),
        lambda folder: (folder / "dog/1.png").unlink(),
        lambda folder: os.utime(folder / "dog/1.png", LATER),
    ],
    ids=["renamed", "moved", "rewritten", "added", "a new class", "removed", "touched"],
)
def test_the_identity_of_a_folder_changes_with_its_content(
    images: Path, change: Callable[[Path], object]
) -> None:
    before = DiskLocation(images).identity()
    change(images)
    assert DiskLocation(images).identity() != before


def test_a_moved_folder_has_the_same_identity(images: Path, tmp_path: Path) -> None:
    before = DiskLocation(images).identity()
    shutil.copytree(images, tmp_path / "other")
    assert DiskLocation(tmp_path / "other").identity() == before


def test_hidden_files_and_system_files_are_ignored(images: Path) -> None:
    before = DiskLocation(images).identity()
    (images / "cat/.DS_Store").touch()
    (images / ".git").mkdir()
    (images / ".git/config").touch()
    (images / "Thumbs.db").touch()
    (images / "lost+found").mkdir(0o000)
    assert DiskLocation(images).identity() == before


def test_a_change_in_a_linked_folder_changes_the_identity(images: Path, tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    (images / "bird").symlink_to(tmp_path / "birds")
    before = DiskLocation(images).identity()
    (tmp_path / "birds/1.png").touch()
    assert DiskLocation(images).identity() != before


def test_a_local_folder_is_not_copied(images: Path, tmp_path: Path) -> None:
    assert DiskLocation(images).fetch(tmp_path / "scratch") == images
    assert not (tmp_path / "scratch").exists()


def test_a_given_sha256_is_the_identity_and_checked_by_fetch(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(b"data")
    correct, wrong = hashlib.sha256(b"data").hexdigest(), "0" * 64
    assert DiskLocation(path, correct).fetch(tmp_path) == path
    assert DiskLocation(path, wrong).identity() == wrong
    with pytest.raises(DataError, match=f"data.npz is {correct}, but data.sha256 is {wrong}"):
        DiskLocation(path, wrong).fetch(tmp_path)


def expect_data_error(source_location: DiskLocation, tmp_path: Path, match: str) -> None:
    for operation in (source_location.identity, lambda: source_location.fetch(tmp_path)):
        with pytest.raises(DataError, match=match):
            operation()


def test_a_sha256_of_a_folder_is_refused(images: Path, tmp_path: Path) -> None:
    expect_data_error(DiskLocation(images, "0" * 64), tmp_path, r"images is a folder\. Remove data\.sha256")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    for sha256 in (None, "0" * 64):
        expect_data_error(
            DiskLocation(tmp_path / "missing.npz", sha256),
            tmp_path,
            r"missing\.npz \(data\.source\): .* does not exist.*Correct",
        )


def test_a_pipe_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    expect_data_error(
        DiskLocation(tmp_path / "pipe"), tmp_path, r"neither a file nor a folder\. Correct data\.source"
    )


def test_a_broken_link_changes_the_identity(images: Path) -> None:
    before = DiskLocation(images).identity()
    (images / "dog/2.png").symlink_to("missing.png")
    assert DiskLocation(images).identity() not in (before, "")
