"""A child process ends with the parent process of its run, even after `kill -9`."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.components import lifeline
from modelyard.pipelines.steps import STEPS
from tests.processes import has_ended, wait_until

CHILD = """
from modelyard.components import lifeline
import time
lifeline.follow()
print("up", flush=True)
time.sleep(600)
"""
PARENT = """
import subprocess, sys, os, time
from pathlib import Path
from modelyard.components import lifeline
with lifeline.hold(Path(sys.argv[1])) as variables:
    command = [sys.executable, "-c", sys.argv[2]]
    child = subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.PIPE)
    child.stdout.readline()
    print(child.pid, flush=True)
    time.sleep(600)
"""
LIST_THREADS = "import modelyard.components, threading; print([t.name for t in threading.enumerate()])"


def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "lifeline"), CHILD], stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    assert lifeline.is_held(tmp_path / "lifeline")
    assert not has_ended(child)
    parent.kill()
    parent.wait()
    wait_until(lambda: has_ended(child))
    assert not lifeline.is_held(tmp_path / "lifeline")


def test_a_child_of_an_ended_parent_ends_at_once(tmp_path):
    for environment in (
        {lifeline.VARIABLE: str(tmp_path / "released")},
        {lifeline.VARIABLE: str(tmp_path / "missing")},
    ):
        (tmp_path / "released").touch()
        result = subprocess.run([sys.executable, "-c", CHILD], env=environment, check=False, timeout=200)
        assert result.returncode == 1


def test_import_starts_no_thread(tmp_path):
    with lifeline.hold(tmp_path / "lifeline") as variables:
        result = subprocess.run(
            [sys.executable, "-c", LIST_THREADS], env=variables, capture_output=True, text=True, check=True
        )
    assert result.stdout.strip() == "['MainThread']"


class FollowedError(Exception):
    pass


@pytest.mark.parametrize("step", STEPS)
def test_each_step_follows_the_lifeline_before_it_imports_its_work(step, monkeypatch):
    def follow():
        raise FollowedError

    monkeypatch.setattr(lifeline, "follow", follow)
    body = getattr(importlib.import_module(f"modelyard.components.{step}.component"), step).python_func
    with pytest.raises(FollowedError):
        body(**dict.fromkeys(body.__annotations__.keys() - {"return"}))


def test_each_module_that_runs_as_a_child_process_follows_the_lifeline():
    package = Path(lifeline.__file__).parent
    sources = [*package.rglob("*.py"), package.parent / "pipelines/runners/pods/launcher.py"]
    sources.remove(package / "train/keras_objects.py")  # a tool for developers
    programs = [path for path in sources if 'if __name__ == "__main__":' in path.read_text()]
    assert len(programs) > 2
    for path in programs:
        (main,) = [node for node in ast.parse(path.read_text()).body if getattr(node, "name", "") == "main"]
        body = ast.unparse(main.body[1:])
        assert body.startswith("lifeline.follow()") or "with step(" in body, path
