"""Tracks the tasks of a run in kfp.local, which has no events: states, logs, failures and outputs.

`Tasks.replace_kfp_functions` replaces three functions of kfp.local 2.17:

execute_single_task        returns the outputs of a task, from the cache or from its process
run_local_subprocess       runs the process
replace_python_executable  replaces "python3" in a command, and in paths that contain it

The output of a process goes to the log of its step. A step that fails writes a record (components/step.py).
"""

import contextlib
import itertools
import os
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelyard.components.errors import KilledError, find_full_disk_error
from modelyard.components.explain import local_run
from modelyard.components.explain.explanation import last_line
from modelyard.components.explain.failure import process_failure
from modelyard.components.records import Failure
from modelyard.components.step import TERMINATION_LOG_VARIABLE
from modelyard.pipelines.compile.lean_kfp import exec_python
from modelyard.pipelines.runners.base import State, StepStatus

TAIL_BYTES = 4096  # bytes of a log that are read for its last line
TERMINATION_GRACE_SECONDS = 10.0
OOM_KILLS = "oom_kill "  # in /proc/vmstat: the number of processes that the OOM killer has killed


class Tasks:
    """The tasks of one run; `on_change` is called with a step when its state changes.

    `outputs` has the parameters and artifacts of each succeeded step, `failures` the failure of each failed
    step.
    """

    def __init__(
        self, steps: Sequence[str], folder: Path, on_change: Callable[[StepStatus], None] = lambda _step: None
    ) -> None:
        self.outputs: dict[str, Mapping[str, Any]] = {}
        self.failures: dict[str, Failure] = {}
        self._steps = {name: StepStatus(name=name) for name in steps}
        self._start_times: dict[str, float] = {}
        self._folder, self._on_change = folder, on_change
        self._current_step = ""
        (folder / "failures").mkdir(exist_ok=True)

    @contextlib.contextmanager
    def replace_kfp_functions(self) -> Iterator[None]:
        """Track the tasks of kfp.local during a block; discard its output and warnings."""
        from kfp.local import subprocess_task_handler
        from kfp.local.orchestrator import task_executor

        handler = subprocess_task_handler
        execute, run = task_executor.execute_single_task, handler.run_local_subprocess
        replace = handler.replace_python_executable

        def execute_task(*, task_name: str, **arguments: Any) -> Any:
            return self._execute_task(task_name, lambda: execute(task_name=task_name, **arguments))

        task_executor.execute_single_task = execute_task
        handler.run_local_subprocess = self._run_process
        handler.replace_python_executable = _use_this_python
        try:
            with (
                open(os.devnull, "w", encoding="utf-8") as null,
                contextlib.redirect_stdout(null),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                yield
        finally:
            task_executor.execute_single_task = execute
            handler.run_local_subprocess, handler.replace_python_executable = run, replace

    def steps(self) -> tuple[StepStatus, ...]:
        """Return the current state of every step."""
        return tuple(
            step.model_copy(update={"seconds": self._seconds(name)}) if step.state == "running" else step
            for name, step in self._steps.items()
        )

    def state(self, step: str) -> State:
        """Return the current state of a step."""
        return self._steps[step].state

    def log(self, step: str) -> Path:
        """Return the log file of a step."""
        return self._folder / "logs" / f"{step}.log"

    @property
    def last_line(self) -> str:
        """The last line in the log of the running step."""
        if not self._current_step:
            return ""
        with contextlib.suppress(OSError), self.log(self._current_step).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = file.read().decode(errors="replace")
            output = text.rpartition("\n}\n")[2]  # after the JSON that KFP prints first
            return last_line(output.split("\n")[:-1]).strip()
        return ""

    def mark_unfinished(self) -> None:
        """Mark waiting steps as skipped and running steps as failed, after the end of the pipeline."""
        for name, step in self._steps.items():
            if step.state in ("waiting", "running"):
                self._change(name, "skipped" if step.state == "waiting" else "failed")

    def _execute_task(self, step: str, execute: Callable[[], tuple[Mapping[str, Any], Any]]) -> Any:
        """Return the outputs of a task; it is cached if no process was started."""
        self._current_step = step
        for earlier_step in itertools.takewhile(lambda name: name != step, self._steps):
            if self.state(earlier_step) == "waiting":
                self._change(earlier_step, "skipped")
        outputs, status = execute()
        succeeded = status.name == "SUCCESS"
        self._change(step, "succeeded" if succeeded else "failed", cached=self.state(step) == "waiting")
        if succeeded:
            self.outputs[step] = outputs
        return outputs, status

    def _run_process(self, full_command: Sequence[str], env_vars: Mapping[str, str] | None = None) -> int:
        """Run the process of the current task and return its exit code; see `run_local_subprocess` of KFP."""
        step, record = self._current_step, local_run.failure_path(self._folder, self._current_step)
        self._start_times[step] = time.monotonic()
        self._change(step, "running")
        killed_before = _count_oom_kills()
        environment = {**os.environ, **(env_vars or {}), TERMINATION_LOG_VARIABLE: str(record)}
        with self.log(step).open("wb") as log:
            streams = {"stdout": log, "stderr": subprocess.STDOUT}
            with subprocess.Popen(exec_python(full_command), env=environment, **streams) as process:  # type: ignore[call-overload]
                try:
                    code = int(process.wait())
                except KeyboardInterrupt:  # Ctrl-C or SIGTERM
                    process.terminate()
                    try:
                        process.wait(TERMINATION_GRACE_SECONDS)
                    except subprocess.TimeoutExpired:
                        process.kill()
                    raise
        if code:
            self._record_failure(step, code, _count_oom_kills() > killed_before)
        return code

    def _record_failure(self, step: str, code: int, out_of_memory: bool) -> None:
        """Read the record of a failed step; write one if there is none, or if the OOM killer killed it."""
        file = local_run.failure_path(self._folder, step)
        failure = Failure.parse(file.read_bytes()) if file.exists() else None
        if failure is None and (full := find_full_disk_error(self._folder)):
            failure = Failure.from_error(full, step)
        # The record of a launcher that exited by itself is kept: it is about the pod of the step.
        oom_killed = out_of_memory and code in (-signal.SIGKILL, 128 + signal.SIGKILL)
        if failure is None or (oom_killed and failure.kind == KilledError.__name__):
            failure = process_failure(step, code, out_of_memory, local_run.read_log(self._folder, step))
            file.write_bytes(failure.to_json())
        self.failures[step] = failure

    def _change(self, step: str, state: State, *, cached: bool = False) -> None:
        update = {"state": state, "cached": cached, "seconds": self._seconds(step)}
        self._steps[step] = self._steps[step].model_copy(update=update)
        self._on_change(self._steps[step])

    def _seconds(self, step: str) -> float:
        """Return the seconds since the process of a step started."""
        return round(time.monotonic() - self._start_times[step], 3) if step in self._start_times else 0.0


def _use_this_python(command: Sequence[str], python: str) -> list[str]:
    """Return a command with this Python instead of a leading "python3"; `exec_python` replaces the others."""
    return [python, *command[1:]] if command[0] == "python3" else list(command)


def _count_oom_kills() -> int:
    """Return the number of processes that the OOM killer has killed; 0 without /proc/vmstat."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith(OOM_KILLS):
                return int(line.removeprefix(OOM_KILLS))
    return 0
