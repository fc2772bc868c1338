"""Run the pipeline on this machine: the same KFP pipeline, with its steps as processes, without Docker."""

import contextlib
import errno
import logging
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from components.artifacts import Decision, Metrics, Outcome, read
from components.errors import ModelyardError, StoreError, from_log
from components.store.models import open_store
from pipelines import runs
from pipelines.ask import ask
from pipelines.compiler import LOCAL, arguments
from pipelines.config import Config
from pipelines.environment_settings import Environment
from pipelines.placement import pipeline
from pipelines.runs import Failure, MetricsSummary, Prediction, RunSummary
from pipelines.steplog import CacheHits, StepLog
from pipelines.train_to_serve import STEPS

# What the system says, and what numpy.save makes of it.
NO_ROOM = re.compile(rf"{os.strerror(errno.ENOSPC)}|OSError: \d+ requested and \d+ written")


class LocalRun:
    """One run of the pipeline; `log` tells how it is going while `__call__` works."""

    def __init__(self, config: Config, folder: Path, environment: Environment = LOCAL) -> None:
        self.config = config
        self.folder = folder
        self.environment = environment
        self.log = StepLog(STEPS, folder / "logs")
        self.cache = folder.parent.parent / "cache"

    def __call__(self) -> RunSummary:
        """Run to the end and record the summary; a failure is in the summary, not raised."""
        started = time.monotonic()
        result: dict[str, Any]
        try:
            evaluation = self._execute()
            result = {"state": "succeeded", **self._result(evaluation)}
            result["prediction"] = self._ask()
        except ModelyardError as error:
            result = {"state": "failed", "failure": self._failure(error)}
        summary = RunSummary(
            run=self.folder.name,
            model=self.config.name,
            steps=self.log.steps(),
            seconds=round(time.monotonic() - started, 3),
            store=self.config.store.url,
            **result,
        )
        runs.finish(self.folder, summary)
        return summary

    def _execute(self) -> Path:
        """Run the pipeline in kfp.local and return the evaluation artifact's folder."""
        from kfp import local

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
                task = train_to_serve(**arguments(self.config, self.environment))
        except RuntimeError as error:
            raise self._cause(error) from error
        finally:
            self.log.settle()
        return self._here(task.output)

    def _pipeline(self) -> Callable[..., Any]:
        """Return what kfp.local runs."""
        return pipeline(self.environment)

    def _here(self, evaluation: Any) -> Path:
        """Return the folder that holds the evaluation; the report is beside it."""
        return Path(evaluation.path)

    def _ask(self) -> Prediction | None:
        """Ask the server of the champion for a prediction."""
        return ask(self.config)

    def _failed_step(self) -> str | None:
        return next((step.name for step in self.log.steps() if step.state == "failed"), None)

    def _cause(self, error: Exception) -> ModelyardError:
        """Make the error again that the failed step ended with."""
        step = self._failed_step()
        lines = self.log.lines(step) if step else []
        if step is None:
            return ModelyardError(f"KFP's local runner failed: {error}. `modelyard --debug run` shows more.")
        known = from_log(lines)
        if any(map(NO_ROOM.search, lines)) and not isinstance(known, StoreError):  # which says where itself
            return ModelyardError(
                f"The step {step} found no room on the disk of {self.folder}. Make room, or set "
                "MODELYARD_HOME to a folder on another disk."
            )
        if known:
            return known
        if not any(line.lstrip().startswith("Traceback") for line in lines):
            return ModelyardError(
                f"The step {step} ended unexpectedly and left no message: it was killed. If nobody did that, "
                "the machine has too little memory for it: lower the sizes in `model` or "
                "training.batch_size, or use a larger machine."
            )
        last = next(line.strip() for line in reversed(lines) if line.strip())
        return ModelyardError(f"The step {step} ended unexpectedly: {last}")

    def _failure(self, error: ModelyardError) -> Failure:
        step = self._failed_step()
        return Failure(
            kind=type(error).__name__,
            message=str(error),
            exit_code=error.exit_code,
            step=step,
            log=str(self.log.path(step)) if step else None,
        )

    def _result(self, evaluation: Path) -> dict[str, Any]:
        """Read what the steps decided, and what the store holds now."""
        decision = read(evaluation / "decision.json", Decision)
        metrics = read(evaluation / "metrics.json", Metrics)
        champion = open_store(self.config.store).champion(self.config.name)
        outcome = self._outcome()
        return {
            "fingerprint": self._parameter("fingerprint", "run"),
            "version": outcome.version if outcome else None,
            "champion": champion.version if champion else None,
            "decision": outcome.decision if outcome else decision.decision,
            "reason": outcome.reason if outcome else decision.reason,
            "metrics": MetricsSummary(
                accuracy=metrics.accuracy.value,
                accuracy_interval=(metrics.accuracy.low, metrics.accuracy.high),
                rows=metrics.rows,
                gain=metrics.gain,
            ),
            "report": str(shutil.copyfile(evaluation.parent / "report", self.folder / "report.html")),
        }

    def _outcome(self) -> Outcome | None:
        """Read deploy's last word; deploy is never cached, so it is in this run's own folder."""
        found = list((self.folder / "artifacts").glob("*/deploy/outcome"))
        return read(found[0], Outcome) if found else None

    def _parameter(self, step: str, name: str) -> str:
        return next((self.folder / "artifacts").glob(f"*/{step}/{name}")).read_text()


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
