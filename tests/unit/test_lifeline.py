import os
import subprocess
import sys
import time

from modelyard.components import lifeline

CHILD = "import components, time, sys; print('up', flush=True); time.sleep(60)"
PARENT = """
import subprocess, sys, os, time
from pathlib import Path
from modelyard.components import lifeline
with lifeline.hold(Path(sys.argv[1])) as variables:
    command = [sys.executable, "-c", sys.argv[2]]
    child = subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.PIPE)
    child.stdout.readline()
    print(child.pid, flush=True)
    time.sleep(60)
"""


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_child_leaves_when_its_parent_is_killed(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "lifeline"), CHILD], stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    assert lifeline.held(tmp_path / "lifeline")
    assert not gone(child)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while not gone(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert gone(child)
    assert not lifeline.held(tmp_path / "lifeline")


def test_without_a_lifeline_nothing_happens():
    environment = {name: value for name, value in os.environ.items() if name != lifeline.VARIABLE}
    code = "import components, threading; print([t.name for t in threading.enumerate()])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "lifeline" not in done.stdout
