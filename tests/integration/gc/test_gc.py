"""The command `modelyard gc`: output, removals, kills, two at the same time."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelyard.pipelines.cli import invoke
from tests.integration.gc.conftest import Workspace
from tests.integration.gc.test_runs import OLD

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture
def full_workspace(workspace: Workspace) -> Workspace:
    """A workspace with three unused versions, two unused runs and two unused uploads."""
    for number in range(5):
        workspace.publish(f"run {number}")
    workspace.promote(2)
    for name in OLD[:3]:
        workspace.run(name, pods=True)
    for number in "12":
        workspace.upload(f"uploads/data/{number * 64}")
    return workspace


def check_end(workspace: Workspace) -> None:
    """Check that only used files remain."""
    for version in workspace.models.versions("digits"):
        workspace.models.fetch("digits", version, workspace.home / "fetched")
    assert workspace.models.versions("digits") == [2, 5]
    assert workspace.local_runs() == workspace.cached() == workspace.bucket.folders("") == [OLD[2]]
    assert workspace.store.keys("uploads/") == []
    assert all(one.keep_reason for one in workspace.find().values())


def worker(workspace: Workspace) -> "subprocess.Popen[str]":
    kubeconfig = workspace.config_file.with_name("kubeconfig")
    paths = [workspace.config_file, workspace.environment_file, workspace.home, kubeconfig]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, WORKER, *paths], **pipes, text=True)


def test_gc_removes_only_what_is_unused(full_workspace: Workspace) -> None:
    full_workspace.gc()
    check_end(full_workspace)


def test_a_killed_gc_and_two_simultaneous_ones_have_the_result_of_one(full_workspace: Workspace) -> None:
    killed, *pair = [worker(full_workspace) for _ in range(3)]
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
    incomplete = {one.version for one in full_workspace.models.stored_files("digits") if not one.complete}
    for process in pair:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in pair:
        process.communicate(timeout=100)
        assert process.returncode == 0
    _, remaining = full_workspace.gc()
    assert remaining == {f"digits/{version}" for version in incomplete}  # a run may be publishing them
    for version in incomplete:
        assert full_workspace.models.remove("digits", version, grace=0)
    check_end(full_workspace)


def command(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    options = ["-e", str(workspace.environment_file), "--set", "retention.younger_than=1m", *arguments]
    try:
        code = invoke(["gc", str(workspace.config_file), *options])
    except SystemExit as error:
        code = int(error.code or 0)
    return code, *capsys.readouterr()


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--yes", "--dry-run")])
def test_gc_removes_nothing_without_yes(
    full_workspace: Workspace, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    code, out, _ = command(full_workspace, capsys, *options)
    assert code == 0
    assert OLD[0] in out
    assert "2 of " in out  # the others are too young
    assert full_workspace.local_runs() == full_workspace.bucket.folders("") == OLD[:3]


def test_json_output_lists_what_is_removed_and_why_the_rest_is_not(
    full_workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = command(full_workspace, capsys, "--yes", "--output", "json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["digits/2"] == {
        "kind": "version",
        "name": "digits/2",
        "bytes": rows["digits/2"]["bytes"],
        "reason": "0 hours old",
        "keep_reason": "the champion",
        "removed": False,
    }
    assert {name for name, row in rows.items() if row["removed"]} == set(OLD[:2])
    code, out, _ = command(full_workspace, capsys, "--yes")
    assert (code, out.splitlines()[-1]) == (0, "Removed 0 of 0.")


def test_an_invalid_policy_names_its_key(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = command(workspace, capsys, "--set", "retention.younger_than=soon")
    assert code == 2
    assert "retention.younger_than" in err
