"""Run the pipeline on this machine: the same KFP pipeline, with its steps as processes, without Docker.

kfp.local has no events: it prints lines of a fixed form when a task starts or ends, and logs when one comes
from the cache. `StepLog` reads them, keeps the state of each step and writes its lines to the step's log. The
output of a step is indented, so that no step can forge such a line.
"""

import contextlib
import io
import json
import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from modelyard.components import events
from modelyard.components.artifacts import UNCHANGED, Outcome, read
from modelyard.components.errors import CancelledError, ModelyardError
from modelyard.components.events import EventFile, Resumed, StepChange
from modelyard.components.explain import local_run
from modelyard.components.fingerprint.identity import reason_in
from modelyard.components.store.models import open_store
from modelyard.pipelines.compile import lean_kfp
from modelyard.pipelines.compile.compiler import LOCAL, NO_OPTIONS, arguments, pipeline
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners import runs
from modelyard.pipelines.runners.base import Failure, RunSummary, State, Step
from modelyard.pipelines.runners.runs import EVENTS, scores
from modelyard.pipelines.serving.smoke_test import Prediction, predict_locally
from modelyard.pipelines.train_to_serve import STEPS

_COLOUR = re.compile(r"\x1b\[\d+m")
_EVENT = re.compile(
    r"^\d\d:\d\d:\d\d\.\d+ - (?:INFO|ERROR) - Task '(?P<ended>[\w-]+)' finished with status (?P<status>\w+)"
    r"|^\d\d:\d\d:\d\d\.\d+ - INFO - Executing task '(?P<started>[\w-]+)'"
)
_CACHED = re.compile(r"^Task (?P<task>[\w-]+) cache hit \(key=(?P<key>\w+)\)")

EXIT_TASK = "explain"


class LocalExecution:
    """One run of the pipeline; `log` tells how it is going while `__call__` works."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        environment: Environment = LOCAL,
        options: Mapping[str, bool | int] = NO_OPTIONS,
    ) -> None:
        """Prepare a run.

        Args:
            config: the configuration.
            folder: the run's folder; see pipelines/runners/runs.py.
            environment: where it runs.
            options: arguments of the pipeline that no configuration has: `skip_unchanged`, `force_after`.
        """
        self.config = config
        self.folder = folder
        self.environment = environment
        self.options = options
        self.log = StepLog(STEPS, folder / "logs", self._step_changed)
        self._threads = ThreadPoolExecutor(1)
        self._prediction: Future[Prediction | None] | None = None
        self.cache = folder.parent.parent / "cache"

    def __call__(self) -> RunSummary:
        """Run to the end and record the summary; a failure is in the summary, not raised."""
        started = time.monotonic()
        try:
            with self._threads:
                self._execute()
                result = {"state": "succeeded", **self._result()}
        except ModelyardError as error:
            step = self._failed_step()
            failure = Failure.of(error, step, self.log.path(step) if step else None)
            result = {"state": "failed", "failure": failure}
        except KeyboardInterrupt:
            why = CancelledError(f"The run {self.folder.name} was cancelled. {self.go_on()}")
            self._record(started, {"state": "cancelled", "failure": Failure.of(why, self._failed_step())})
            raise
        return self._record(started, result)

    def go_on(self) -> str:
        """Say what is left of an interrupted run, and how to go on with it."""
        return (
            "None of its steps is running, and what is done is cached; training goes on after its last "
            f"checkpoint. `modelyard runs retry {self.folder.name}` does the rest."
        )

    def clean_up(self) -> None:
        """Remove what an interrupted run has left elsewhere, once its processes have ended."""

    def _record(self, started: float, result: dict[str, Any]) -> RunSummary:
        resumed = [one.epoch for one in EventFile(self.folder / EVENTS).read() if isinstance(one, Resumed)]
        summary = RunSummary(
            run=self.folder.name,
            model=self.config.name,
            steps=self.log.steps(),
            seconds=round(time.monotonic() - started, 3),
            store=self.config.store.url,
            uses=self._uses(),
            resumed_after=resumed[-1] if resumed else None,
            **result,
        )
        runs.finish(self.folder, summary)
        return summary

    def _step_changed(self, step: Step) -> None:
        """Write the change down; request the prediction while explain runs, which changes no model."""
        change = StepChange(
            step=step.name, state=step.state, seconds=step.seconds, cached=step.cached, at=time.time()
        )
        events.append(self.folder / EVENTS, change)
        begins = step.name == EXIT_TASK and step.state == "running"
        if begins and self._state("evaluate") == "succeeded" and self._failed_step() is None:
            self._prediction = self._threads.submit(self._predict)

    def _execute(self) -> None:
        """Run the pipeline in kfp.local."""
        local = lean_kfp.load_local()
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(self.folder / "artifacts"),
            workspace_root=str(self.folder / "scratch" / "workspace"),
            enable_caching=True,
            cache_root=str(self.cache),
        )
        train_to_serve = self._pipeline()
        try:
            with _captured(self.log):
                train_to_serve(**arguments(self.config, self.environment), **self.options)
        except RuntimeError as error:
            raise self._step_error(error) from error
        finally:
            self.log.settle()

    def _pipeline(self) -> Callable[..., Any]:
        """Return what kfp.local runs."""
        return pipeline(self.environment)

    def _evaluation(self) -> Path:
        """Return the folder that holds the evaluation; the report is beside it."""
        return Path(self._artifact_uri("evaluate", "evaluation"))

    def _artifact_uri(self, step: str, output: str) -> str:
        """Return the URI of an artifact that a step wrote in this run, or in the one that filled the cache.

        An output of a task under a condition cannot be an output of the pipeline.
        """
        if key := self.log.hits.get(step):
            entry = json.loads(next(self.cache.glob(f"{key}*.json")).read_text(encoding="utf-8"))
            return str(entry[output]["uri"])
        return self._own_uri(step, output)

    def _uses(self) -> tuple[str, ...]:
        """Return the runs whose artifacts came from the cache."""
        entries = [path for key in self.log.hits.values() for path in self.cache.glob(f"{key}*.json")]
        found = [name for path in entries for name in runs.NAME.findall(path.read_text(encoding="utf-8"))]
        return tuple(sorted(set(found)))

    def _own_uri(self, step: str, output: str) -> str:
        """Return the URI of an artifact that a step wrote in this run."""
        return str(next((self.folder / "artifacts").glob(f"*/{step}")) / output)

    def _predict(self) -> Prediction | None:
        """Return one prediction of the champion's server."""
        return predict_locally(self.config)

    def _failed_step(self) -> str | None:
        return next((step.name for step in self.log.steps() if step.state == "failed"), None)

    def _step_error(self, error: Exception) -> ModelyardError:
        """Return the error that the failed step ended with."""
        if step := self._failed_step():
            return local_run.failure(self.folder, step)
        return ModelyardError(f"KFP's local runner failed: {error}. `modelyard --debug run` shows more.")

    def _result(self) -> dict[str, Any]:
        """Return what the steps decided, the champion, and one prediction of its server."""
        champion = open_store(self.config.store).champion(self.config.name)
        result = {
            "fingerprint": self._parameter("fingerprint", "run"),
            "champion": champion.version if champion else None,
        }
        if reason := reason_in(local_run.log_of(self.folder, "fingerprint")):
            return {**result, "decision": UNCHANGED, "reason": reason}
        return {
            **result,
            **scores(self._evaluation(), self._outcome(), self.folder),
            "prediction": self._prediction.result() if self._prediction else None,
        }

    def _deployed(self) -> bool:
        return self._state("deploy") == "succeeded"

    def _state(self, step: str) -> State:
        return next(one.state for one in self.log.steps() if one.name == step)

    def _outcome(self) -> Outcome | None:
        """Return the outcome of deploy; None when it did not run."""
        return read(Path(self._own_uri("deploy", "outcome")), Outcome) if self._deployed() else None

    def _parameter(self, step: str, name: str) -> str:
        return next((self.folder / "artifacts").glob(f"*/{step}/{name}")).read_text()


class StepLog(io.TextIOBase):
    """A text stream for kfp.local to print to.

    Args:
        steps: the steps' names, in order.
        logs: folder for one `<step>.log` each.
        on_change: called with each step whose state has changed.

    Attributes:
        last_line: the last line of the log of the running step.
        hits: the prefix of the cache entry of each step whose outputs came from the cache.
    """

    def __init__(
        self, steps: tuple[str, ...], logs: Path, on_change: Callable[[Step], None] = lambda _step: None
    ) -> None:
        self.last_line = ""
        self.hits: dict[str, str] = {}
        self._steps = {name: _Timer() for name in steps}
        self._logs, self._on_change = logs, on_change
        self._current: str | None = None
        self._rest = ""
        self._file: io.TextIOBase | None = None

    def writable(self) -> bool:
        """Say that this is a stream to write to."""
        return True

    def write(self, text: str) -> int:
        """Take text as it comes and handle each whole line."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(_COLOUR.sub("", line))
        return len(text)

    def cached(self, step: str, key: str) -> None:
        """Note that the step's outputs came from the cache, from the entry whose name begins with `key`."""
        self._steps[step].end("succeeded", cached=True)
        self.hits[step] = key
        self._on_change(self._step(step))

    def steps(self) -> tuple[Step, ...]:
        """Return the current state of every step."""
        return tuple(map(self._step, self._steps))

    def settle(self) -> None:
        """Say that nothing runs any more: what never started was skipped."""
        for name, timer in self._steps.items():
            if timer.state in ("waiting", "running"):
                timer.end("skipped" if timer.state == "waiting" else "failed")
                self._on_change(self._step(name))
        if self._file:
            self._file.close()

    def path(self, step: str) -> Path:
        """Return the step's log file."""
        return self._logs / f"{step}.log"

    def _line(self, line: str) -> None:
        if found := _EVENT.match(line):
            if found["started"]:
                self._start(found["started"])
            else:
                self._end(found["ended"], "succeeded" if found["status"] == "SUCCESS" else "failed")
        elif self._current and self._file and line.startswith("    "):
            self._file.write(line[4:] + "\n")
            self._file.flush()
            self.last_line = line.strip() or self.last_line

    def _start(self, step: str) -> None:
        if self._file:
            self._file.close()
        self._current, self.last_line = step, ""
        self._file = self.path(step).open("w", encoding="utf-8")
        self._steps[step].start()
        self._on_change(self._step(step))

    def _end(self, step: str, state: State) -> None:
        self._steps[step].end(state)
        self._current = None
        self._on_change(self._step(step))

    def _step(self, name: str) -> Step:
        timer = self._steps[name]
        return Step(name=name, state=timer.state, seconds=round(timer.seconds(), 3), cached=timer.cached)


class CacheHits(logging.Handler):
    """Hands the cache's hits on to a `StepLog`."""

    def __init__(self, log: StepLog) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Look for a hit in the record."""
        if found := _CACHED.match(record.getMessage()):
            self._log.cached(found["task"], found["key"])


class _Timer:
    """The state of one step and its wall time."""

    def __init__(self) -> None:
        self.state: State = "waiting"
        self.cached = False
        self._started = self._ended = 0.0

    def start(self) -> None:
        self.state, self._started = "running", time.monotonic()

    def end(self, state: State, *, cached: bool = False) -> None:
        self.state, self.cached, self._ended = state, cached, time.monotonic()
        self._started = self._ended if cached or not self._started else self._started

    def seconds(self) -> float:
        if self.state == "running":
            return time.monotonic() - self._started
        return self._ended - self._started


@contextlib.contextmanager
def _captured(log: StepLog) -> Iterator[None]:
    """Send what kfp.local prints and logs to `log`."""
    root = logging.getLogger()
    level = root.level
    handler = CacheHits(log)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(log), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
