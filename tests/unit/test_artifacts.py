import errno
import os
from pathlib import Path

import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Decision
from modelyard.components.errors import ConfigError, DataError, find_machine_error


def test_artifact_is_written_atomically(tmp_path):
    target = tmp_path / "raw"
    with pytest.raises(RuntimeError), artifacts.replace_folder(target) as folder:
        (folder / "partial").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with artifacts.replace_folder(target) as folder:
        (folder / "complete").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert (target / "complete").read_text() == "x"


def test_a_text_that_cannot_be_written_leaves_the_previous_file_and_names_it(tmp_path, monkeypatch):
    target = tmp_path / "p.yaml"
    artifacts.write_text(target, "previous")

    def fail(path, *_, **__):
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="space") as error:
        artifacts.write_text(target, "new")
    assert str(target) in str(find_machine_error(error.value))
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_text() == "previous"


def test_only_small_regular_files_are_read(tmp_path):
    (tmp_path / "large").write_bytes(bytes(artifacts.MAX_SMALL_FILE_BYTES + 1))
    (tmp_path / "small").write_bytes(bytes(artifacts.MAX_SMALL_FILE_BYTES))
    os.mkfifo(tmp_path / "fifo")
    assert len(artifacts.read_small_file(tmp_path / "small")) == artifacts.MAX_SMALL_FILE_BYTES
    for path in (tmp_path / "large", tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match=path.name):
            artifacts.read_small_file(path)


def test_a_pipe_in_dev_fd_is_read():
    reader, writer = os.pipe()
    os.write(writer, b"name: a")
    os.close(writer)
    assert artifacts.read_small_file(Path(f"/dev/fd/{reader}")) == b"name: a"
    os.close(reader)


def test_error_of_a_missing_or_invalid_record_names_its_file(tmp_path):
    with pytest.raises(DataError, match=r"decision\.json is missing"):
        artifacts.read(tmp_path / "decision.json", Decision)
    (tmp_path / "decision.json").write_text('{"decision": "maybe", "reason": ""}')
    with pytest.raises(DataError, match=r"decision\.json is damaged.*\(decision: "):
        artifacts.read(tmp_path / "decision.json", Decision)


def test_a_reader_sees_the_old_record_during_a_rewrite(tmp_path):
    path, record = tmp_path / "decision.json", Decision(decision="hold", reason="original")
    artifacts.write(path, record)
    with path.open() as reader:
        artifacts.write(path, record.model_copy(update={"reason": "another"}))
        assert Decision.model_validate_json(reader.read()) == record
    assert [file.name for file in tmp_path.iterdir()] == ["decision.json"]


def test_hash_of_a_folder_depends_on_its_code_only(tmp_path):
    (tmp_path / "net.py").write_text("a = 1")
    before = artifacts.tree_sha256(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "net.pyc").write_bytes(b"x")
    (tmp_path / ".hidden").write_text("x")
    assert artifacts.tree_sha256(tmp_path) == before
    (tmp_path / "net.py").rename(tmp_path / "other.py")
    renamed = artifacts.tree_sha256(tmp_path)
    (tmp_path / "other.py").write_text("a = 2")
    assert len({before, renamed, artifacts.tree_sha256(tmp_path)}) == 3


def test_hash_of_a_folder_includes_the_targets_of_links(tmp_path):
    code, other = tmp_path / "code", tmp_path / "other.py"
    code.mkdir()
    other.write_text("a = 1")
    (code / "net.py").symlink_to(other)
    before = artifacts.tree_sha256(code)
    other.write_text("a = 2")
    assert artifacts.tree_sha256(code) != before
    (code / "more").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match=f"{code}/more"):
        artifacts.tree_sha256(code)
