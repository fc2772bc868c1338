"""`modelyard gc` itself: what it shows, what it does without a word, killed midway, twice at once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.pipelines.cli import invoke
from modelyard.pipelines.maintenance import plan
from modelyard.pipelines.maintenance.place import Place
from tests.integration.cleanup.conftest import Yard
from tests.integration.cleanup.test_runs import OLD, cached, ran, submitted, with_artifacts

Publish = Callable[..., int]
WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture
def full(yard: Yard, publish: Publish) -> Yard:
    """A yard of which three versions, two runs on either side and two uploads are not needed."""
    for number in range(5):
        publish(f"run {number}")
    yard.models.promote("digits", 2, reason="better", by="test")
    for _ in range(3):
        submitted(yard)
    for name in OLD[:3]:
        ran(yard, name)
        yard.write(f"{name}/x/train/model/model.onnx")
    for number in "12":
        yard.upload(f"uploads/data/{number * 64}")
    return yard


def settled(yard: Yard, tmp_path: Path) -> None:
    """What has to be there in the end, and nothing else."""
    for version in yard.models.versions("digits"):
        yard.models.fetch("digits", version, tmp_path / "fetched")
    assert yard.models.versions("digits") == [2, 5]
    assert len(yard.site.runs.runs) == len(with_artifacts(yard)) == 1
    assert [path.name for path in (yard.home / "runs").iterdir()] == cached(yard) == [OLD[2]]
    assert [name for name in yard.bucket.folders("") if name.startswith("2026")] == [OLD[2]]
    assert yard.bucket.keys("removed/") == yard.store.keys("uploads/") == []
    assert all(thing.kept for thing in yard.found().values())


def worker(yard: Yard, tmp_path: Path) -> "subprocess.Popen[str]":
    places = [yard.config_file, yard.environment_file, yard.home, tmp_path / "kubeconfig"]
    return subprocess.Popen([sys.executable, WORKER, *places], stdout=subprocess.PIPE, text=True)


def test_everything_that_is_not_needed_goes_and_nothing_else(full: Yard, tmp_path: Path) -> None:
    full.gc()
    settled(full, tmp_path)


def test_killed_anywhere_it_leaves_whole_versions_and_the_next_finishes(full: Yard, tmp_path: Path) -> None:
    for turn in range(3):
        process = worker(full, tmp_path)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.03 * turn)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for version in full.models.versions("digits"):
            full.models.fetch("digits", version, tmp_path / "fetched")
    halves = {f"digits/{one.version}" for one in full.models.stored_files("digits") if not one.whole}
    _, left = full.gc()
    assert left == halves  # an hour must pass until nobody can be at them
    for one in full.models.stored_files("digits"):
        if not one.whole:
            assert full.models.remove("digits", one.version, grace=0)
    full.gc()
    settled(full, tmp_path)


def test_two_at_once_end_as_one_does(full: Yard, tmp_path: Path) -> None:
    pair = [worker(full, tmp_path) for _ in range(2)]
    for process in pair:
        _, _ = process.communicate(timeout=100)
        assert process.returncode == 0
    full.gc()
    settled(full, tmp_path)


def command(yard: Yard, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    line = ["gc", str(yard.config_file), "-e", str(yard.environment_file), *arguments]
    try:
        code = invoke(line)
    except SystemExit as left:
        code = int(left.code or 0)
    return code, *capsys.readouterr()


@pytest.mark.parametrize("option", ["", "--dry-run"])
def test_it_shows_what_would_go_and_a_script_must_say_yes(
    full: Yard, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    arguments = ["--set", "retention.younger_than=1m", *filter(None, [option])]
    before = full.bucket.keys("")
    code, out, _ = command(full, capsys, *arguments)
    assert code == 0
    assert f"{OLD[0]} (this machine)" in out
    assert "4 of " in out  # the rest is too young
    assert full.bucket.keys("") == before
    assert (full.home / "runs" / OLD[0]).is_dir()


def test_what_went_and_why_the_rest_stayed_is_there_for_a_script(
    full: Yard, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = command(full, capsys, "--set", "retention.younger_than=1m", "--yes", "--output", "json")
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
    assert {name for name, row in rows.items() if row["removed"]} == {
        *OLD[:2],
        *(f"{name} (this machine)" for name in OLD[:2]),
    }
    code, out, _ = command(full, capsys, "--set", "retention.younger_than=1m", "--yes")
    assert (code, out.splitlines()[-1]) == (0, "0 of 0 are gone.")


def test_a_wrong_policy_is_refused_with_its_key(full: Yard, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = command(full, capsys, "--set", "retention.younger_than=soon")
    assert code == 2
    assert "retention.younger_than" in err


def test_another_namespace_of_kubeflow_pipelines_can_be_named(
    yard: Yard, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Place] = []
    monkeypatch.setattr(plan, "find", lambda place: seen.append(place) or [])
    assert command(yard, capsys, "--namespace", "elsewhere")[0] == 0
    assert seen[0].environment.kfp.namespace == "elsewhere"


def test_images_that_nothing_names_go(yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a program in docker's place that keeps its images in a file."""
    new, old, own, young, lost = (f"modelyard/train:{digit * 16}" for digit in "12345")
    (tmp_path / "images").write_text(f"{new}\n{old}\n{own}\n{young}\n{lost}\npython:3.11\n")
    day, far = "1980-01-01T00:00:00Z", "2099-01-01T12:00:00.123456789+01:00"
    told = [{"RepoTags": [name], "Created": day, "Metadata": {"LastTagTime": day}} for name in (new, old)]
    told += [{"RepoTags": [own], "Created": day}, {"RepoTags": [young], "Created": day}]
    told[-1]["Metadata"] = {"LastTagTime": far}
    (tmp_path / "told").write_text(json.dumps(told))
    (tmp_path / "build").mkdir()
    (tmp_path / "build/images.json").write_text(json.dumps({"train": new}))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text(
        f"""#!/bin/sh
cd {tmp_path}
case "$2 $4" in
  "ls {{{{json .}}}}")
    sed 's/\\(.*\\):\\(.*\\)/{{"Repository": "\\1", "Tag": "\\2", "Digest": "<none>"}}/' images ;;
  "ls "*) cat images ;;
  "inspect "*) cat told; exit 1 ;;
  "rm "*) grep -v "$4" images > left; mv left images ;;
esac
"""
    )
    (tmp_path / "bin/docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    container = {"image": own}
    yard.kubernetes.serves("digits", 1)
    yard.kubernetes.deployments[0]["spec"] = {"template": {"spec": {"containers": [container]}}}
    found = yard.found()
    assert (found[new].kept, found[own].kept) == ("build/images.json names it", "digits-stable runs it")
    assert found[young].kept == found[lost].kept == "younger than 30d"
    assert yard.gc() == ({old}, set())
    assert (tmp_path / "images").read_text() == f"{new}\n{own}\n{young}\n{lost}\npython:3.11\n"
