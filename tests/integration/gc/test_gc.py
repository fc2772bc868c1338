"""The command `modelyard gc`: output, removals, kills, and concurrent commands."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import CommandLine, CommandResult
from tests.integration.gc.conftest import Workspace
from tests.integration.gc.test_runs import OLD

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture
def full_workspace(workspace: Workspace) -> Workspace:
    """A workspace with three unused versions, two unused runs and two unused uploads."""
    workspace.publish_runs(5)
    workspace.promote(2)
    for name in OLD[:3]:
        workspace.run(name, pods=True)
    for number in "12":
        workspace.upload(f"uploads/data/{number * 64}")
    return workspace


def check_only_used_objects_remain(workspace: Workspace) -> None:
    for version in workspace.models.versions("digits"):
        workspace.models.fetch("digits", version, workspace.home / "fetched")
    assert workspace.models.versions("digits") == [2, 5]
    assert workspace.local_runs() == workspace.cached() == workspace.bucket.folders("") == [OLD[2]]
    assert workspace.store.keys("uploads/") == []
    assert all(item.keep_reason for item in workspace.find().values())


def start_worker(workspace: Workspace) -> "subprocess.Popen[str]":
    kubeconfig = workspace.config_file.with_name("kubeconfig")
    paths = [workspace.config_file, workspace.environment_file, workspace.home, kubeconfig]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, WORKER, *paths], **pipes, text=True)


def test_gc_removes_only_unused_objects(full_workspace: Workspace) -> None:
    full_workspace.gc()
    check_only_used_objects_remain(full_workspace)


def test_gc_removes_all_unused_objects_after_a_kill_and_concurrently(full_workspace: Workspace) -> None:
    killed, *workers = [start_worker(full_workspace) for _ in range(3)]
    assert killed.stdin
    assert killed.stdout
    killed.stdin.write("\n")
    killed.stdin.flush()
    assert killed.stdout.readline() == "ready\n"
    time.sleep(0.03)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    for version in full_workspace.models.versions("digits"):
        full_workspace.models.fetch("digits", version, full_workspace.home / "fetched")
    stored = full_workspace.models.stored_files("digits")
    incomplete = {files.version for files in stored if not files.complete}
    for process in workers:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in workers:
        process.communicate(timeout=100)
        assert process.returncode == 0
    _, remaining = full_workspace.gc()
    assert remaining == {f"digits/{version}" for version in incomplete}  # a run may be publishing them
    for version in incomplete:
        assert full_workspace.models.remove("digits", version, grace=0)
    check_only_used_objects_remain(full_workspace)


@pytest.fixture
def gc(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """Return a function that runs `modelyard gc` in the workspace."""
    options = ("-e", workspace.environment_file, "--set", "retention.younger_than=1m")
    return partial(CommandLine(capsys), "gc", workspace.config_file, *options)


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--yes", "--dry-run")])
def test_gc_removes_nothing_without_yes(full_workspace: Workspace, gc: Any, options: tuple[str, ...]) -> None:
    result = gc(*options)
    assert result.code == 0
    assert OLD[0] in result.out
    assert "2 of " in result.out  # the other objects are too young
    assert full_workspace.local_runs() == full_workspace.bucket.folders("") == OLD[:3]


@pytest.mark.usefixtures("full_workspace")
def test_json_output_has_removed_and_kept_objects_with_reasons(gc: Any) -> None:
    result = gc("--yes", "--output", "json")
    assert result.code == 0
    rows = {row["name"]: row for row in json.loads(result.out)}
    assert rows["digits/2"] == {
        "kind": "version",
        "name": "digits/2",
        "bytes": rows["digits/2"]["bytes"],
        "reason": "0 hours old",
        "keep_reason": "the champion",
        "removed": False,
    }
    assert {name for name, row in rows.items() if row["removed"]} == set(OLD[:2])
    result = gc("--yes")
    assert (result.code, result.out.splitlines()[-1]) == (0, "Removed 0 of 0 objects.")


def test_an_invalid_policy_names_its_key(gc: Any) -> None:
    result = gc("--set", "retention.younger_than=soon")
    assert result.code == 2
    assert "retention.younger_than" in result.err
