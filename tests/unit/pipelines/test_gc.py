"""`modelyard gc` on this machine: a store in a folder, no cluster, no bucket."""

import json
import os
import re
import time
from pathlib import Path

import pytest

POLICY = ("--set", "name=tiny", "--set", "retention.versions=0", "--set", "retention.younger_than=1d")


@pytest.fixture
def old_store(store, tmp_path):
    """The store of `tiny`, created a month ago; its champion is version 1."""
    month = time.time() - 30 * 86400
    for path in (tmp_path / ".modelyard/models").rglob("*"):
        os.utime(path, (month, month))
    for entry in (tmp_path / ".modelyard/models/tiny/history").iterdir():
        record = json.loads(entry.read_text())
        entry.write_text(json.dumps({**record, "at": "2026-01-01T00:00:00+00:00"}))
    return store


def test_gc_without_yes_lists_candidates_only(modelyard, old_store):
    result = modelyard("gc", *POLICY)
    assert result.code == 0, result.err
    assert "tiny/2" in result.out
    assert "tiny/1" not in result.out
    assert "1 of 2 objects can be removed" in result.out
    assert re.search(r"^version +1 +the champion *$", result.out, re.M)
    assert old_store.versions("tiny") == [1, 2]


def test_gc_with_yes_removes_all_candidates(modelyard, old_store, tmp_path):
    result = modelyard("gc", *POLICY, "--yes", "--output", "json")
    assert {row["name"]: (row["keep_reason"], row["removed"]) for row in json.loads(result.out)} == {
        "tiny/1": ("the champion", False),
        "tiny/2": (None, True),
    }
    assert old_store.versions("tiny") == [1]
    assert os.listdir(tmp_path / ".modelyard/models/tiny/versions/000002") == ["run.json"]  # noqa: PTH208
    assert modelyard("models", "history", "tiny").code == 0
    assert modelyard("models", "show", "tiny", 2).code == 7
    assert modelyard("gc", *POLICY, "--yes").out.splitlines()[-1] == "Removed 0 of 0 objects."


def test_gc_after_confirmation_reports_what_was_removed(modelyard, old_store, monkeypatch):
    monkeypatch.setattr("modelyard.pipelines.cli.maintenance._confirm", lambda *_: True)
    assert modelyard("gc", *POLICY).out.splitlines()[-1] == "Removed 1 of 1 objects."
    assert old_store.versions("tiny") == [1]


def test_a_run_with_an_unreadable_pods_json_is_not_removed(modelyard, tmp_path):
    run = tmp_path / ".modelyard/runs/20260101-000000-aaaa"
    run.mkdir(parents=True)
    (run / "pods.json").write_text('{"key of another version": 1}')
    result = modelyard("gc", *POLICY, "--set", "retention.runs=0", "--yes", "--output", "json")
    (row,) = json.loads(result.out)
    assert "pods.json" in row["keep_reason"]
    assert run.is_dir()


def test_dry_run_overrides_yes(modelyard, old_store):
    assert modelyard("gc", *POLICY, "--yes", "--dry-run").code == 0
    assert old_store.versions("tiny") == [1, 2]


def test_gc_before_the_first_run_writes_nothing(modelyard, tmp_path):
    result = modelyard("gc", "--yes")
    assert result.code == 0
    assert result.out.startswith("0 of 0 objects can be removed")
    assert list(Path(tmp_path).iterdir()) == []
