"""`modelyard gc` on this machine: a store in a folder, no cluster, no bucket."""

import json
import os
import re
import time
from pathlib import Path

import pytest

POLICY = ("--set", "name=tiny", "--set", "retention.versions=0", "--set", "retention.younger_than=1d")


@pytest.fixture
def old(store, tmp_path):
    """The store of `tiny`, whose champion is version 1, a month ago; with a third version, made by now."""
    month = time.time() - 30 * 86400
    for path in (tmp_path / ".modelyard/models").rglob("*"):
        os.utime(path, (month, month))
    for entry in (tmp_path / ".modelyard/models/tiny/history").iterdir():
        record = json.loads(entry.read_text())
        entry.write_text(json.dumps({**record, "at": "2026-01-01T00:00:00+00:00"}))
    return store


def test_without_yes_it_only_shows(modelyard, old):
    ended = modelyard("gc", *POLICY)
    assert ended.code == 0, ended.err
    assert "tiny/2" in ended.out
    assert "tiny/1" not in ended.out
    assert "1 of 2 can be removed" in ended.out
    assert re.search(r"^version +1 +the champion *$", ended.out, re.M)
    assert old.versions("tiny") == [1, 2]


def test_with_yes_it_removes_and_then_there_is_nothing_left(modelyard, old, tmp_path):
    ended = modelyard("gc", *POLICY, "--yes", "--output", "json")
    assert {row["name"]: (row["kept"], row["removed"]) for row in json.loads(ended.out)} == {
        "tiny/1": ("the champion", False),
        "tiny/2": (None, True),
    }
    assert old.versions("tiny") == [1]
    assert os.listdir(tmp_path / ".modelyard/models/tiny/versions/000002") == ["run.json"]  # noqa: PTH208
    assert modelyard("models", "history", "tiny").code == 0
    assert modelyard("models", "show", "tiny", 2).code == 7
    assert modelyard("gc", *POLICY, "--yes").out.splitlines()[-1] == "Removed 0 of 0."


def test_who_confirms_is_told_what_was_removed(modelyard, old, monkeypatch):
    monkeypatch.setattr("modelyard.pipelines.cli.maintenance._confirmed", lambda *_: True)
    assert modelyard("gc", *POLICY).out.splitlines()[-1] == "Removed 1 of 1."
    assert old.versions("tiny") == [1]


def test_a_run_whose_pods_json_cannot_be_read_is_kept(modelyard, tmp_path):
    run = tmp_path / ".modelyard/runs/20260101-000000-aaaa"
    run.mkdir(parents=True)
    (run / "pods.json").write_text('{"key of another version": 1}')
    ended = modelyard("gc", *POLICY, "--set", "retention.runs=0", "--yes", "--output", "json")
    (row,) = json.loads(ended.out)
    assert "pods.json" in row["kept"]
    assert run.is_dir()


def test_dry_run_wins_over_yes(modelyard, old):
    assert modelyard("gc", *POLICY, "--yes", "--dry-run").code == 0
    assert old.versions("tiny") == [1, 2]


def test_before_the_first_run_it_finds_and_writes_nothing(modelyard, tmp_path):
    ended = modelyard("gc", "--yes")
    assert ended.code == 0
    assert ended.out.startswith("0 of 0 can be removed")
    assert list(Path(tmp_path).iterdir()) == []
