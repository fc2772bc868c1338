"""The tasks of a run in kfp.local: a real pipeline of steps that succeed, fail, and come from the cache."""

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from kfp import dsl

from modelyard.components.events import CheckpointSaved, append
from modelyard.components.explain import local_run
from modelyard.pipelines.compile import lean_kfp
from modelyard.pipelines.config.config import load
from modelyard.pipelines.runners.base import read_summary
from modelyard.pipelines.runners.local.execution import LocalExecution
from modelyard.pipelines.runners.local.tasks import Tasks
from modelyard.pipelines.runners.run_folder import EVENTS

STEPS = ("ingest", "branch", "train", "deploy")  # the pipeline of these tests has no branch
IMAGE = {"base_image": "python:3.11-slim", "install_kfp_package": False}


@dsl.component(**IMAGE)
def ingest(n: int) -> int:
    print("reading")  # noqa: T201
    return n + 1


@dsl.component(**IMAGE)
def train(n: int, ending: str) -> str:
    import os

    from modelyard.components.errors import DataError, KilledError
    from modelyard.components.step import step

    print(f"Executing task 'deploy' with {n}")  # noqa: T201
    if ending == "exit":
        os._exit(3)
    with step("train"):
        if ending == "kill":
            os.kill(os.getpid(), 9)
        if ending == "raise":
            raise DataError("No such file.")
        if ending == "report":
            raise KilledError("Its pod was killed.")
    return ending


@dsl.component(**IMAGE)
def deploy(ending: str) -> str:
    return ending


Run = Callable[..., tuple[Tasks, list[tuple[str, str]]]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for the steps that the tests share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(tmp_path: Path, cache: Path) -> Run:
    """Return a function that runs a pipeline whose step train ends as `ending` says."""

    def run(ending: str, cache: Path = cache) -> tuple[Tasks, list[tuple[str, str]]]:
        local = lean_kfp.load_local()
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        (folder / "logs").mkdir(parents=True)
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(folder / "artifacts"),
            enable_caching=True,
            cache_root=str(cache),
            raise_on_error=False,
        )
        transitions: list[tuple[str, str]] = []
        tasks = Tasks(STEPS, folder, lambda step: transitions.append((step.name, step.state)))

        @dsl.pipeline(name="p")
        def pipeline(ending: str) -> None:
            trained = train(n=ingest(n=1).output, ending=ending).set_caching_options(False)
            deploy(ending=trained.output)

        with tasks.replace_kfp_functions():
            pipeline(ending=ending)
        tasks.mark_unfinished()
        return tasks, transitions

    return run


def states(tasks: Tasks) -> dict[str, str]:
    return {step.name: "cached" if step.cached else step.state for step in tasks.steps()}


def test_tasks_have_states_outputs_and_logs(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks, transitions = run("success", tmp_path / "cache")
    assert states(tasks) == {step: "skipped" if step == "branch" else "succeeded" for step in STEPS}
    assert transitions[:2] == [("ingest", "running"), ("ingest", "succeeded")]
    assert transitions[2:4] == [("branch", "skipped"), ("train", "running")]
    assert tasks.last_line == ""
    assert tasks.outputs["ingest"] == {"Output": 2}
    assert "reading\n" in tasks.log("ingest").read_text()
    second, transitions = run("success", tmp_path / "cache")
    expected = {"ingest": "cached", "branch": "skipped", "train": "succeeded", "deploy": "cached"}
    assert states(second) == expected
    assert second.outputs == tasks.outputs
    assert transitions[0] == ("ingest", "succeeded")
    assert second.steps()[0].seconds == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("ending", "kind", "message"),
    [
        ("raise", "DataError", "No such file."),
        ("kill", "KilledError", "environment.steps.train.memory"),
        ("exit", "ModelyardError", "exit code 3"),
    ],
)
def test_a_failed_step_leaves_a_record(run: Run, ending: str, kind: str, message: str) -> None:
    tasks, _ = run(ending)
    assert [step.state for step in tasks.steps()] == ["succeeded", "skipped", "failed", "skipped"]
    folder = tasks.log("train").parents[1]
    failure = local_run.find_failure(folder)
    assert failure is not None
    assert (failure.step, failure.kind) == ("train", kind)
    assert message in failure.message


def test_last_line_excludes_lines_of_kfp(run: Run) -> None:
    tasks, _ = run("success")
    dump = '[KFP Executor x INFO]: Got executor_input:\n{\n    "inputs": {\n    }\n}\n'
    for text in (dump, dump + "read 3 files\n", dump.replace("inputs", "1" * 9000) + "read 3 files\nha"):
        tasks.log("deploy").write_text(text)
        assert tasks.last_line == ("read 3 files" if "read" in text else "")


def test_resume_message_names_the_last_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "20260101-000000-aaaa"
    folder.mkdir(parents=True)
    execution = LocalExecution(load(environ={}), folder)
    assert f"modelyard runs retry {folder.name}" in execution.resume_message()
    assert "epoch" not in execution.resume_message()
    append(folder / EVENTS, CheckpointSaved(step="train", epoch=7))
    assert "after epoch 7" in execution.resume_message()


@pytest.mark.parametrize(("ending", "kind"), [("kill", "OutOfMemoryError"), ("report", "KilledError")])
def test_only_a_step_killed_by_a_signal_is_out_of_memory(
    run: Run, monkeypatch: pytest.MonkeyPatch, ending: str, kind: str
) -> None:
    """The kernel may have killed another process for its memory at the same time."""
    kills = itertools.count()
    monkeypatch.setattr("modelyard.pipelines.runners.local.tasks._count_oom_kills", lambda: next(kills))
    failure = local_run.find_failure(run(ending)[0].log("train").parents[1])
    assert failure is not None
    assert failure.kind == kind


def test_a_run_that_ends_with_a_bug_is_recorded_as_failed(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "20260101-000000-aaaa"
    folder.mkdir(parents=True)
    execution = LocalExecution(load(environ={}), folder)
    execution._run_pipeline = Mock(side_effect=KeyError("a bug"))  # type: ignore[method-assign]
    with pytest.raises(KeyError):
        execution.execute()
    summary = read_summary(folder)
    assert summary is not None
    assert summary.failure is not None
    assert (summary.state, summary.failure.exit_code) == ("failed", 1)
    assert summary.failure.kind == "KeyError"


def test_a_full_disk_is_a_machine_error(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "20260101-000000-aaaa"
    folder.mkdir(parents=True)
    execution = LocalExecution(load(environ={}), folder)
    execution._run_pipeline = Mock(side_effect=OSError(28, "No space left on device"))  # type: ignore[method-assign]
    failure = execution.execute().failure
    assert failure is not None
    assert (failure.kind, failure.exit_code) == ("MachineError", 15)
    assert f"{folder}: No space left on device (" in failure.message


def test_python_of_a_step_may_have_any_path_and_ignores_the_working_directory(tmp_path: Path) -> None:
    python = tmp_path / "pets [v1] python3 'x'" / "python3"
    python.parent.mkdir()
    python.symlink_to(Path(sys.executable).resolve())
    (tmp_path / "platform.py").write_text("raise ImportError('of the user')")
    command = lean_kfp.exec_python(["sh", "-ec", '_KFP_RUNTIME=true python3 -m platform "$@"'], str(python))
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
