import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.components.errors import ConfigError, ConflictError, NotFoundError, StoreError
from modelyard.components.store import folder as storage_folder
from modelyard.components.store.folder import Folder
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store

UPLOAD = """
import sys
from pathlib import Path
from modelyard.components.store.folder import Folder
Folder(Path(sys.argv[1])).upload("m/big", Path(sys.argv[2]))
"""


def test_a_killed_upload_keeps_the_old_object(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "store")
    folder.create("m/big", b"old")
    pipe = tmp_path / "pipe"
    subprocess.run(["mkfifo", pipe], check=True)
    writer = subprocess.Popen([sys.executable, "-c", UPLOAD, str(folder.root), str(pipe)])
    with pipe.open("wb") as source:  # opens when the writer reads from it
        source.write(b"new" * 1000)
        source.flush()
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert folder.read("m/big")[0] == b"old"
    assert folder.keys("") == ["m/big"]


def test_only_partial_files_of_ended_writers_are_removed(tmp_path: Path, monkeypatch) -> None:
    folder = Folder(tmp_path)
    partial = tmp_path / ".partial" / "of-another-process"
    partial.parent.mkdir()
    partial.touch()
    folder.create("m/a", b"")
    assert partial.exists()  # its writer may be running
    monkeypatch.setattr(storage_folder, "ABANDONED_SECONDS", -1.0)
    folder.create("m/b", b"")
    assert list(partial.parent.iterdir()) == []
    assert folder.keys("") == ["m/a", "m/b"]


def test_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    Folder(tmp_path).create("a", b"")
    (tmp_path / "plain").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_at_the_path_of_a_folder_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = Folder(tmp_path / "file" / "models")
    for operation in (
        lambda: folder.create("m/a", b""),
        lambda: folder.read("m/a"),
        lambda: folder.find("m/a"),
        lambda: folder.keys(""),
        lambda: folder.folders(""),
        lambda: folder.upload("m/a", tmp_path / "file"),
    ):
        with pytest.raises(StoreError) as error:
            operation()
        assert not isinstance(error.value, NotFoundError | ConflictError)
        assert str(folder.root) in str(error.value)
        assert "store.url" in str(error.value)


def test_a_folder_without_write_permission_is_a_store_error() -> None:
    with pytest.raises(StoreError, match=r"/proc/models/m/a \(store.url\)"):
        Folder(Path("/proc/models")).create("m/a", b"")


def test_a_missing_file_is_not_uploaded_and_a_folder_is_no_object(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with pytest.raises(StoreError, match=r"Cannot write .*/m/a ") as error:
        folder.upload("m/a", tmp_path / "missing")
    assert not isinstance(error.value, NotFoundError)
    folder.create("m/a", b"")
    assert folder.find("m") is None


def test_a_folder_removed_by_another_process_is_created_again(tmp_path: Path) -> None:
    partial, path = tmp_path / "partial", tmp_path / "m" / "a"
    partial.touch()

    def move(source: Path, target: Path) -> None:
        if not moves:
            target.parent.rmdir()
        moves.append(target)
        source.replace(target)

    moves: list[Path] = []
    storage_folder._move(move, partial, path)
    assert (len(moves), path.exists()) == (2, True)
    with pytest.raises(FileNotFoundError):
        storage_folder._move(move, partial, path)


@pytest.mark.parametrize(
    ("kind", "options", "option"),
    [
        ("nfs", "rw,vers=3,nolock,local_lock=all,addr=10.0.0.1", "nolock"),
        ("nfs4", "rw,vers=4.2,local_lock=none", None),
        ("cifs", "rw,vers=3.1.1,nobrl", "nobrl"),
        ("ext4", "rw,nolock", None),
    ],
)
def test_mounts_with_local_locks_are_refused(tmp_path, monkeypatch, kind, options, option):
    folder = Folder(tmp_path / "store")
    folder.create("m/a", b"1")
    device = folder.root.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"1 0 9:9 / / rw - ext4 /dev/sda rw\n2 1 {number} / /a\\040b rw shared:1 - {kind} host:/a {options}\n"
    )
    assert storage_folder.find_machine_local_locks(device, mounts) == option
    monkeypatch.setattr(storage_folder, "MOUNTS", mounts)
    if option:
        with pytest.raises(StoreError, match=option):
            folder.replace("m/a", b"2", folder.read("m/a")[1])
    else:
        folder.replace("m/a", b"2", folder.read("m/a")[1])


def test_unusable_store_paths_are_refused():
    for url in ("file:///a%0Ab", "file:///%ff", "a\nb", "~unknown-user/models"):
        with pytest.raises(ConfigError, match=r"store\.url"):
            open_store(Store(url=url))


def test_hidden_files_and_folders_are_not_objects(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.create("m/a", b"")
    (tmp_path / "m" / ".a").touch()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").touch()
    assert folder.keys("") == ["m/a"]
    assert folder.folders("") == ["m"]


def test_a_version_reserved_concurrently_is_not_reserved_twice(tmp_path, monkeypatch):
    store = open_store(Store(url=str(tmp_path)))
    assert store.reserve("digits", "first") == 1
    monkeypatch.setattr(store, "_list_reservations", lambda _: {})  # the reservation is not visible yet
    assert store.reserve("digits", "first") == 1
    assert store.reserve("digits", "second") == 2


def test_an_empty_version_folder_is_not_reserved(tmp_path):
    store = open_store(Store(url=str(tmp_path)))
    assert store.reserve("digits", "first") == 1
    (tmp_path / "digits/versions/000002").mkdir()  # another process has not written its run.json yet
    assert store.reserve("digits", "second") == 2
    assert store.reserve("digits", "third") == 3


def test_delete_restores_a_changed_object_whose_folder_was_removed(tmp_path, monkeypatch):
    folder = Folder(tmp_path)
    folder.create("m/a", b"old")
    entry = folder.find("m/a")
    folder.upload("m/a", Path(__file__))
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda path, to: (rename(path, to), path.parent.rmdir()))
    assert folder.delete(entry) is False
    assert folder.read("m/a")[0] == Path(__file__).read_bytes()


def test_replacing_a_missing_object_is_a_conflict_and_leaves_no_lock(tmp_path):
    folder = Folder(tmp_path)
    with pytest.raises(ConflictError):
        folder.replace("m/a", b"new", "0")
    folder.create("m/a", b"old")
    folder.replace("m/a", b"new", folder.read("m/a")[1])
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a"]
