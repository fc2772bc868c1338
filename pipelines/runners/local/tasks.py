"""The tasks of a run in kfp.local, which has no events: their states, processes, failures and outputs.

`Tasks.replace_kfp_functions` replaces three functions of kfp.local 2.17: one gets a task's outputs, from the
cache or by its process; one starts the process; one puts this Python into its command, also where "python3"
is part of another path. A process writes to the log of its step; if it fails, it writes a record
(components/step.py).
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

from modelyard.components.errors import KilledError, full_disk
from modelyard.components.explain import local_run
from modelyard.components.explain.explanation import last_line
from modelyard.components.explain.failure import process_failure
from modelyard.components.records import Failure
from modelyard.components.step import VARIABLE
from modelyard.pipelines.compile.lean_kfp import exec_python
from modelyard.pipelines.runners.base import State, Step

TAIL_BYTES = 4096  # bytes of a log that are read for its last line
STEP_GRACE_SECONDS = 10.0  # for a step after SIGTERM
OOM_KILLS = "oom_kill "  # in /proc/vmstat: processes that the kernel killed for want of memory


class Tasks:
    """The tasks of one run.

    Args:
        steps: the steps' names, in order.
        folder: the run's.
        on_change: called with each step whose state has changed.

    Attributes:
        outputs: the parameters and artifacts of each step that has succeeded, by their names.
        failures: why each step failed that did.
    """

    def __init__(
        self, steps: Sequence[str], folder: Path, on_change: Callable[[Step], None] = lambda _step: None
    ) -> None:
        self.outputs: dict[str, Mapping[str, Any]] = {}
        self.failures: dict[str, Failure] = {}
        self._steps = {name: Step(name=name, state="waiting", seconds=0.0, cached=False) for name in steps}
        self._started: dict[str, float] = {}
        self._folder, self._on_change = folder, on_change
        self._current = ""
        (folder / "failures").mkdir(exist_ok=True)

    @contextlib.contextmanager
    def replace_kfp_functions(self) -> Iterator[None]:
        """Follow what kfp.local does during a block; what it prints and logs about it is dropped."""
        from kfp.local import subprocess_task_handler
        from kfp.local.orchestrator import task_executor

        handler = subprocess_task_handler
        execute, run = task_executor.execute_single_task, handler.run_local_subprocess
        replace = handler.replace_python_executable

        def execute_task(*, task_name: str, **arguments: Any) -> Any:
            return self._task(task_name, lambda: execute(task_name=task_name, **arguments))

        task_executor.execute_single_task = execute_task
        handler.run_local_subprocess = self._process
        handler.replace_python_executable = _use_this_python
        try:
            with (
                open(os.devnull, "w", encoding="utf-8") as nowhere,
                contextlib.redirect_stdout(nowhere),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                yield
        finally:
            task_executor.execute_single_task = execute
            handler.run_local_subprocess, handler.replace_python_executable = run, replace

    def steps(self) -> tuple[Step, ...]:
        """Return the current state of every step."""
        return tuple(
            one.model_copy(update={"seconds": self._seconds(name)}) if one.state == "running" else one
            for name, one in self._steps.items()
        )

    def state(self, step: str) -> State:
        """Return the current state of a step."""
        return self._steps[step].state

    def log(self, step: str) -> Path:
        """Return the step's log file."""
        return self._folder / "logs" / f"{step}.log"

    @property
    def last_line(self) -> str:
        """The last line in the log of the running step."""
        if not self._current:
            return ""
        with contextlib.suppress(OSError), self.log(self._current).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = file.read().decode(errors="replace")
            whole = text.rpartition("\n}\n")[2]  # the JSON that KFP prints first may begin before the tail
            return last_line(whole.split("\n")[:-1]).strip()
        return ""

    def mark_unfinished(self) -> None:
        """Say that nothing runs any more: what never started was skipped."""
        for name, step in self._steps.items():
            if step.state in ("waiting", "running"):
                self._change(name, "skipped" if step.state == "waiting" else "failed")

    def _task(self, step: str, execute: Callable[[], tuple[Mapping[str, Any], Any]]) -> Any:
        """Get a task's outputs: without a process, they come from the cache."""
        self._current = step
        for earlier in itertools.takewhile(lambda name: name != step, self._steps):
            if self.state(earlier) == "waiting":
                self._change(earlier, "skipped")
        outputs, status = execute()
        succeeded = status.name == "SUCCESS"
        self._change(step, "succeeded" if succeeded else "failed", cached=self.state(step) == "waiting")
        if succeeded:
            self.outputs[step] = outputs
        return outputs, status

    def _process(self, full_command: Sequence[str], env_vars: Mapping[str, str] | None = None) -> int:
        """Run the process of the current task and return its exit code; the arguments are kfp.local's."""
        step, record = self._current, local_run.failure_path(self._folder, self._current)
        self._started[step] = time.monotonic()
        self._change(step, "running")
        killed_before = _oom_kills()
        environment = {**os.environ, **(env_vars or {}), VARIABLE: str(record)}
        with self.log(step).open("wb") as log:
            streams = {"stdout": log, "stderr": subprocess.STDOUT}
            with subprocess.Popen(exec_python(full_command), env=environment, **streams) as process:  # type: ignore[call-overload]
                try:
                    code = int(process.wait())
                except KeyboardInterrupt:  # of Ctrl-C or SIGTERM: no step outlives its run
                    process.terminate()
                    try:
                        process.wait(STEP_GRACE_SECONDS)
                    except subprocess.TimeoutExpired:
                        process.kill()
                    raise
        if code:
            self._record(step, code, _oom_kills() > killed_before)
        return code

    def _record(self, step: str, code: int, memory_ran_out: bool) -> None:
        """Keep the record of a failure, and write it unless the step did so itself."""
        file = local_run.failure_path(self._folder, step)
        found = Failure.parse(file.read_bytes()) if file.exists() else None
        if found is None and (full := full_disk(self._folder)):
            found = Failure.from_error(full, step)
        # a launcher that ends by itself has recorded how its pod was killed, perhaps on this machine, too
        by_kernel = memory_ran_out and code in (-signal.SIGKILL, 128 + signal.SIGKILL)
        if found is None or (by_kernel and found.kind == KilledError.__name__):
            found = process_failure(step, code, memory_ran_out, local_run.read_log(self._folder, step))
            file.write_bytes(found.to_json())
        self.failures[step] = found

    def _change(self, step: str, state: State, *, cached: bool = False) -> None:
        changed = {"state": state, "cached": cached, "seconds": self._seconds(step)}
        self._steps[step] = self._steps[step].model_copy(update=changed)
        self._on_change(self._steps[step])

    def _seconds(self, step: str) -> float:
        """Return how long a step has worked."""
        return round(time.monotonic() - self._started[step], 3) if step in self._started else 0.0


def _use_this_python(command: Sequence[str], python: str) -> list[str]:
    """Return a command with this Python at its beginning; `exec_python` does the rest."""
    return [python, *command[1:]] if command[0] == "python3" else list(command)


def _oom_kills() -> int:
    """Return how many processes the kernel has killed because memory ran out; 0 where it does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith(OOM_KILLS):
                return int(line.removeprefix(OOM_KILLS))
    return 0
