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
def pictures(tmp_path: Path) -> Path:
    """A folder of class folders."""
    folder = tmp_path / "pictures"
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_copy_and_a_touched_file_are_the_same_data(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"data")
    (tmp_path / "b").write_bytes(b"data")
    os.utime(tmp_path / "b", LATER)
    (tmp_path / "c").write_bytes(b"dato")
    same, copy, other = (DiskLocation(tmp_path / name).identity() for name in "abc")
    assert same == copy != other


def test_a_file_too_large_to_read_is_told_by_its_size_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(location, "HASHED_BYTES", 3)
    monkeypatch.setattr(location.artifacts, "sha256", lambda _: pytest.fail("it was read"))
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
def test_a_directory_changes_with_anything_in_it(pictures: Path, change: Callable[[Path], object]) -> None:
    before = DiskLocation(pictures).identity()
    change(pictures)
    assert DiskLocation(pictures).identity() != before


def test_a_directory_may_be_moved(pictures: Path, tmp_path: Path) -> None:
    before = DiskLocation(pictures).identity()
    shutil.copytree(pictures, tmp_path / "elsewhere")
    assert DiskLocation(tmp_path / "elsewhere").identity() == before


def test_hidden_files_are_not_data(pictures: Path) -> None:
    before = DiskLocation(pictures).identity()
    (pictures / "cat/.DS_Store").touch()
    (pictures / ".git").mkdir()
    (pictures / ".git/config").touch()
    (pictures / "Thumbs.db").touch()
    (pictures / "lost+found").mkdir(0o000)
    assert DiskLocation(pictures).identity() == before


def test_a_change_behind_a_link_is_seen(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    (pictures / "bird").symlink_to(tmp_path / "birds")
    before = DiskLocation(pictures).identity()
    (tmp_path / "birds/1.png").touch()
    assert DiskLocation(pictures).identity() != before


def test_what_is_here_is_fetched_from_where_it_is(pictures: Path, tmp_path: Path) -> None:
    assert DiskLocation(pictures).fetch(tmp_path / "scratch") == pictures
    assert not (tmp_path / "scratch").exists()


def test_a_given_sha256_is_believed_and_then_checked(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(b"data")
    right, wrong = hashlib.sha256(b"data").hexdigest(), "0" * 64
    assert DiskLocation(path, right).fetch(tmp_path) == path
    assert DiskLocation(path, wrong).identity() == wrong
    with pytest.raises(DataError, match=f"data.npz is {right}, but data.sha256 is {wrong}"):
        DiskLocation(path, wrong).fetch(tmp_path)


def refused(place: DiskLocation, tmp_path: Path, match: str) -> None:
    for use in (place.identity, lambda: place.fetch(tmp_path)):
        with pytest.raises(DataError, match=match):
            use()


def test_a_sha256_is_for_a_file(pictures: Path, tmp_path: Path) -> None:
    refused(DiskLocation(pictures, "0" * 64), tmp_path, r"pictures is a directory\. Remove data\.sha256")


def test_nothing_there(tmp_path: Path) -> None:
    for sha256 in (None, "0" * 64):
        refused(
            DiskLocation(tmp_path / "no.npz", sha256),
            tmp_path,
            r"no\.npz \(data\.source\): .* does not exist.*Correct",
        )


def test_neither_a_file_nor_a_directory(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(
        DiskLocation(tmp_path / "pipe"), tmp_path, r"neither a file nor a directory\. Correct data\.source"
    )


def test_a_link_to_nothing_is_left_to_ingest_and_a_change_of_it_is_seen(pictures: Path) -> None:
    before = DiskLocation(pictures).identity()
    (pictures / "dog/2.png").symlink_to("gone.png")
    assert DiskLocation(pictures).identity() not in (before, "")
