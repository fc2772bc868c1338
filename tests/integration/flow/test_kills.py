"""After a run was killed at any time, the next run has the result of an uninterrupted run, without orphans.

`make test` kills a training, `make soak` kills each step at random times. MODELYARD_SEED repeats a sequence.
"""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.components.artifacts import History
from modelyard.components.errors import NotFoundError
from tests.processes import wait_until

STEPS = ("fingerprint", "ingest", "preprocess", "train", "evaluate", "deploy")
STEP_SECONDS = {  # approximate
    "fingerprint": 0.2,
    "ingest": 0.3,
    "preprocess": 0.3,
    "train": 6.0,
    "evaluate": 0.4,
    "deploy": 1.0,
}


@pytest.fixture(scope="module")
def reference_run(new_workspace: Callable[[], Any]) -> tuple[Any, Any]:
    """The summary of an uninterrupted run, and the state of its store."""
    workspace = new_workspace()
    return workspace.json("run", settings=workspace.quick), workspace.state()


@pytest.fixture(scope="module")
def rng() -> random.Random:
    seed = os.environ.get("MODELYARD_SEED") or str(time.time_ns())
    print(f"MODELYARD_SEED={seed}")  # noqa: T201 - shown when a test fails
    return random.Random(seed)  # noqa: S311


def kill_during(workspace: Any, step: str | None, delay: float) -> bool:
    """Kill a run `delay` seconds after `step` or the run started; return whether the kill ended it."""
    before = set(workspace.folder.glob(".modelyard/runs/*"))
    command = workspace.command("run", settings=workspace.quick)
    with subprocess.Popen(
        command, cwd=workspace.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        while step and run.poll() is None and not _has_started(workspace, step, before):
            time.sleep(0.01)
        time.sleep(delay)
        run.send_signal(signal.SIGKILL)
    return run.returncode == -signal.SIGKILL


def _has_started(workspace: Any, step: str, before: set[Path]) -> bool:
    runs = set(workspace.folder.glob(".modelyard/runs/*")) - before
    return any((run / "logs" / f"{step}.log").is_file() for run in runs)


def create_killed_run(new_workspace: Callable[[], Any], rng: random.Random, step: str | None) -> Any:
    """Return a workspace whose run was killed; repeat if the run had ended before."""
    for _ in range(5):
        workspace = new_workspace()
        if kill_during(workspace, step, random_delay(rng, step)):
            workspace.wait_until_idle()
            return workspace
    pytest.fail(f"Five runs ended before they were killed in {step or 'any step'}.")


def random_delay(rng: random.Random, step: str | None) -> float:
    return rng.uniform(0, STEP_SECONDS[step] if step else 4.0)


def check_store_is_complete(workspace: Any) -> None:
    """Check that every version is complete, and that the champion is one of them."""
    state = workspace.state()
    assert state["champion"] is None or state["champion"] in state["versions"]


def check_the_next_run(
    workspace: Any,
    reference_run: tuple[Any, Any],
    settings: tuple[str, ...],
    command: tuple[str, ...] = ("run",),
) -> Any:
    summary, (versions, moves) = reference_run[0], outcome(reference_run[1])
    result = workspace.json(*command, settings=settings)
    for key in ("fingerprint", "version", "champion", "decision"):
        assert result[key] == summary[key], key
    assert result["metrics"]["accuracy"] == pytest.approx(summary["metrics"]["accuracy"], abs=1e-6)
    assert result["prediction"]["version"] == 1
    assert outcome(workspace.state()) == (versions, moves)
    assert workspace.temporary_files() == []
    return result


def outcome(state: dict[str, Any]) -> tuple[dict[int, str], Any]:
    """Return the run of each version, and the actions on the champion pointer."""
    return {version: run for version, (run, *_) in state["versions"].items()}, state["moves"]


BLOCK_SCRIPT = """
import os, sys, time
event, end, number = os.environ["BLOCK_AT"].split()
events = []
def block(name, arguments):
    if name == event and any(str(argument).endswith(end) for argument in arguments[:2]):
        events.append(name)
        if len(events) == int(number):
            time.sleep(600)
sys.addaudithook(block)
"""


@pytest.fixture
def start_blocked_run(workspace: Any, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that starts a run whose processes block at an audit event.

    `block_at` is the name of the event, the end of an argument, and the number of the event.
    """

    def start(block_at: str, *options: str, settings: tuple[str, ...]) -> "subprocess.Popen[str]":
        (tmp_path / "sitecustomize.py").write_text(BLOCK_SCRIPT)
        variables = {**os.environ, "PYTHONPATH": str(tmp_path), "BLOCK_AT": block_at}
        return subprocess.Popen(
            workspace.command("run", *options, settings=settings),
            cwd=workspace.folder,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def test_a_killed_training_resumes_from_its_last_checkpoint(digits, workspace, start_blocked_run):
    settings = ("training.checkpoint_every=0.001",)
    with start_blocked_run("os.rename state.npz 2", settings=settings) as run:
        checkpoints = ".modelyard/models/checkpoints/*/state.npz"
        wait_until(lambda: run.poll() is not None or list(workspace.folder.glob(checkpoints)), 800)
        run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    workspace.wait_until_idle()
    check_store_is_complete(workspace)
    (name,) = (path.name for path in workspace.folder.glob(".modelyard/runs/*"))
    summary = check_the_next_run(workspace, (digits[1], digits[0].state()), (), ("runs", "retry", name))
    assert summary["resumed_after"] > 0
    folder = workspace.folder / ".modelyard" / "runs" / summary["run"]
    assert "resuming after epoch " in (folder / "logs" / "train.log").read_text()
    (path,) = folder.glob("artifacts/*/train/history/history.json")
    history = History.model_validate_json(path.read_bytes())
    assert 0 < history.resumed_after < history.epochs == len(history.metrics["loss"]) == 20
    assert not (workspace.folder / ".modelyard" / "models" / "checkpoints").exists()


@pytest.mark.soak
@pytest.mark.parametrize("step", STEPS)
def test_the_next_run_completes_a_run_killed_in_a_step(new_workspace, reference_run, rng, step):
    workspace = create_killed_run(new_workspace, rng, step)
    check_store_is_complete(workspace)
    check_the_next_run(workspace, reference_run, workspace.quick)


@pytest.mark.soak  # tests/unit/pipelines/test_local.py kills a small step
def test_a_killed_step_fails_the_run(workspace, start_run_in_train):
    with start_run_in_train() as run:
        while not (steps := [pid for pid in _children(run.pid) if b"executor_main" in _command(pid)]):
            assert run.poll() is None
        os.kill(steps[0], signal.SIGKILL)
        _, err = run.communicate()
    assert run.returncode == 14, err
    assert "killed" in err
    with pytest.raises(NotFoundError):
        workspace.models.manifest("digits", 1)
    workspace.wait_until_idle()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.soak
@pytest.mark.parametrize("number", range(25))
def test_the_next_run_completes_a_run_killed_at_random_times(
    new_workspace, reference_run, rng, number, capsys
):
    workspace, kills = create_killed_run(new_workspace, rng, rng.choice([None, *STEPS])), [True]
    check_store_is_complete(workspace)
    for _ in range(rng.randint(0, 2)):  # the run may have ended, because steps are cached
        step = rng.choice([None, *STEPS])
        kills.append(kill_during(workspace, step, random_delay(rng, step)))
        workspace.wait_until_idle()
        check_store_is_complete(workspace)
    check_the_next_run(workspace, reference_run, workspace.quick)
    with capsys.disabled():
        print(f" round {number}: {sum(kills)} of {len(kills)} runs were killed", flush=True)  # noqa: T201


@pytest.fixture
def start_run_in_train(workspace: Any, start_blocked_run: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that starts a run and waits until train is blocked at the import of TensorFlow."""

    def start(*options: str) -> "subprocess.Popen[str]":
        run = start_blocked_run("import tensorflow 1", *options, settings=workspace.quick)
        wait_until(lambda: run.poll() is not None or _has_started(workspace, "train", set()), 800)
        return run

    return start


def test_ctrl_c_ends_a_run_with_exit_code_130_and_json(workspace, start_run_in_train):
    with start_run_in_train("--output", "json") as run:
        run.send_signal(signal.SIGINT)
        out, err = run.communicate()
    assert run.returncode == 130
    (run_info,) = workspace.json("runs", "list")
    error = json.loads(out)["error"]
    assert error["exit_code"] == 130
    assert f"modelyard runs retry {run_info['name']}" in error["message"]
    assert run_info["state"] == "cancelled"
    started = [line.split()[0] for line in err.splitlines() if line.endswith("started")]
    assert started == ["fingerprint", "ingest", "preprocess", "train"]
    workspace.wait_until_idle()
    assert workspace.temporary_files() == []


def test_a_run_is_cancelled_by_another_command(workspace, start_run_in_train):
    with start_run_in_train() as run:
        (run_info,) = workspace.json("runs", "list")
        assert run_info["state"] == "running"
        assert workspace.json("runs", "cancel", run_info["name"])["state"] == "cancelled"
        _, err = run.communicate()
    assert run.returncode == 12
    assert f"modelyard runs retry {run_info['name']}" in err
    assert "`modelyard runs cancel` ended the run" in err
    assert workspace.json("explain")["state"] == "cancelled"
    workspace.wait_until_idle()
    assert workspace.temporary_files() == []
