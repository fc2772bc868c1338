"""The command `modelyard gc`: what it shows, what it removes, killed midway, twice at once."""

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
def full(workspace: Workspace) -> Workspace:
    """A workspace with three versions, two runs and two uploads that nothing needs."""
    for number in range(5):
        workspace.publish(f"run {number}")
    workspace.promote(2)
    for name in OLD[:3]:
        workspace.run(name, pods=True)
    for number in "12":
        workspace.upload(f"uploads/data/{number * 64}")
    return workspace


def check_end(workspace: Workspace) -> None:
    """Check that what is needed is there, and nothing else."""
    for version in workspace.models.versions("digits"):
        workspace.models.fetch("digits", version, workspace.home / "fetched")
    assert workspace.models.versions("digits") == [2, 5]
    assert workspace.local_runs() == workspace.cached() == workspace.bucket.folders("") == [OLD[2]]
    assert workspace.store.keys("uploads/") == []
    assert all(one.kept for one in workspace.find().values())


def worker(workspace: Workspace) -> "subprocess.Popen[str]":
    kubeconfig = workspace.config_file.with_name("kubeconfig")
    places = [workspace.config_file, workspace.environment_file, workspace.home, kubeconfig]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, WORKER, *places], **pipes, text=True)


def test_gc_removes_only_what_is_unused(full: Workspace) -> None:
    full.gc()
    check_end(full)


def test_a_killed_gc_and_two_simultaneous_ones_have_the_result_of_one(full: Workspace) -> None:
    killed, *pair = [worker(full) for _ in range(3)]
    assert killed.stdin
    assert killed.stdout
    killed.stdin.write("\n")
    killed.stdin.flush()
    assert killed.stdout.readline() == "ready\n"
    time.sleep(0.03)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    for version in full.models.versions("digits"):
        full.models.fetch("digits", version, full.home / "fetched")
    incomplete = {one.version for one in full.models.stored_files("digits") if not one.complete}
    for process in pair:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in pair:
        process.communicate(timeout=100)
        assert process.returncode == 0
    _, left = full.gc()
    assert left == {f"digits/{version}" for version in incomplete}  # a run could be publishing them
    for version in incomplete:
        assert full.models.remove("digits", version, grace=0)
    check_end(full)


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
    full: Workspace, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    code, out, _ = command(full, capsys, *options)
    assert code == 0
    assert OLD[0] in out
    assert "2 of " in out  # the rest is too young
    assert full.local_runs() == full.bucket.folders("") == OLD[:3]


def test_json_output_lists_what_is_removed_and_why_the_rest_is_not(
    full: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = command(full, capsys, "--yes", "--output", "json")
    assert code == 0
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["digits/2"] == {
        "kind": "version",
        "name": "digits/2",
        "bytes": rows["digits/2"]["bytes"],
        "why": "0 hours old",
        "kept": "the champion",
        "removed": False,
    }
    assert {name for name, row in rows.items() if row["removed"]} == set(OLD[:2])
    code, out, _ = command(full, capsys, "--yes")
    assert (code, out.splitlines()[-1]) == (0, "Removed 0 of 0.")


def test_an_invalid_policy_names_its_key(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = command(workspace, capsys, "--set", "retention.younger_than=soon")
    assert code == 2
    assert "retention.younger_than" in err
