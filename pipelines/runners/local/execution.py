"""Executes the KFP pipeline on this machine with its steps as processes, without Docker."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from modelyard.components import events, records
from modelyard.components.artifacts import UNCHANGED, Decision, Identity, Metrics, Outcome, Prediction, read
from modelyard.components.errors import CancelledError, ModelyardError, find_machine_error
from modelyard.components.events import CheckpointSaved, Event, EventFile, Resumed, StepChange
from modelyard.components.store.models import open_store
from modelyard.components.store.storage import open_objects
from modelyard.pipelines.compile import lean_kfp
from modelyard.pipelines.compile.compiler import (
    LOCAL,
    NO_OPTIONS,
    create_arguments,
    create_pipeline,
    create_specs,
)
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import RunFailure, RunSummary, StepStatus
from modelyard.pipelines.runners.local.tasks import Tasks
from modelyard.pipelines.runners.results import add_prediction, summarize_evaluation
from modelyard.pipelines.runners.run_folder import CANCELLED, EVENTS
from modelyard.pipelines.serving.smoke_test import predict_locally
from modelyard.pipelines.steps import STEPS


class LocalExecution:
    """One run of the pipeline; `tasks` has the progress during `execute`."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        environment: Environment = LOCAL,
        options: Mapping[str, bool | int] = NO_OPTIONS,
    ) -> None:
        self.config, self.folder = config, folder
        self.environment, self.options = environment, options
        self.tasks = Tasks(tuple(STEPS), folder, self._handle_step_change)
        self._threads = ThreadPoolExecutor(1)
        self._prediction: Future[Prediction | None] | None = None
        self.cache = folder.parent.parent / "cache"

    def execute(self) -> RunSummary:
        """Execute the run; write its summary and return it. The summary includes the failure."""
        start = time.monotonic()
        try:
            with self._threads:
                self._run_pipeline()
                result = {"state": "succeeded", **self._create_result()}
        except ModelyardError as error:
            step = self._find_failed_step()
            log = self.tasks.log(step) if step else None
            failure = self.tasks.failures.get(step) if step else None
            result = {"state": "failed", "failure": RunFailure.from_error(failure or error, step, log)}
        except Exception as error:
            cause = find_machine_error(error, self.folder)
            failed = RunFailure.from_error(cause or error, self._find_failed_step())
            result = {"state": "failed", "failure": failed}
            if cause is None:  # a bug
                self._write_summary(start, result)
                raise
        except KeyboardInterrupt:
            by_command = (self.folder / CANCELLED).exists()
            trigger = "`modelyard runs cancel`" if by_command else "Ctrl-C or SIGTERM"
            reason = CancelledError(f"{trigger} ended the run. {self.resume_message()}")
            cancelled = RunFailure.from_error(reason, self._find_failed_step())
            self._write_summary(start, {"state": "cancelled", "failure": cancelled})
            raise
        return self._write_summary(start, result)

    def resume_message(self) -> str:
        """Return the state of an interrupted run, and the command that retries it."""
        epochs = [
            event.epoch for event in self._read_events() if isinstance(event, Resumed | CheckpointSaved)
        ]
        training = (
            f"; training resumes after epoch {epochs[-1]}" if epochs and not self._succeeded("train") else ""
        )
        return (
            f"No step is running, and finished steps are cached{training}. `modelyard runs retry "
            f"{self.folder.name}` retries the run."
        )

    def clean_up(self) -> None:
        """Remove remote objects of an interrupted run after its processes have ended."""

    def _write_summary(self, start: float, result: dict[str, Any]) -> RunSummary:
        resume_epochs = [event.epoch for event in self._read_events() if isinstance(event, Resumed)]
        summary = RunSummary(
            run=self.folder.name,
            model=self.config.name,
            steps=self.tasks.steps(),
            seconds=round(time.monotonic() - start, 3),
            store=self.config.store.url,
            reused_runs=self._find_used_runs(),
            resumed_after=resume_epochs[-1] if resume_epochs else None,
            **result,
        )
        run_folder.write_summary(self.folder, summary)
        return summary

    def _read_events(self) -> list[Event]:
        return EventFile(self.folder / EVENTS).read()

    def _handle_step_change(self, step: StepStatus) -> None:
        """Append an event; while explain runs, request a prediction from the server of the champion."""
        change = StepChange(
            step=step.name, state=step.state, seconds=step.seconds, cached=step.cached, at=time.time()
        )
        events.append(self.folder / EVENTS, change)
        exit_task_started = STEPS[step.name].exit_task and step.state == "running"
        if exit_task_started and self._succeeded("evaluate") and self._find_failed_step() is None:
            self._prediction = self._threads.submit(self._predict)

    def _run_pipeline(self) -> None:
        local = lean_kfp.load_local()
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(self.folder / "artifacts"),
            workspace_root=str(self.folder / "scratch" / "workspace"),
            enable_caching=True,
            cache_root=str(self.cache),
        )
        train_to_serve = self._create_pipeline()
        try:
            with self.tasks.replace_kfp_functions():
                train_to_serve(**create_arguments(self.config, self.environment), **self.options)
        except RuntimeError as error:
            raise ModelyardError(
                f"The local runner of KFP failed: {error}. `modelyard --debug run` shows the traceback."
            ) from error
        finally:
            self.tasks.mark_unfinished()

    def _create_pipeline(self) -> Callable[..., Any]:
        """Return the pipeline for kfp.local."""
        return create_pipeline(self.environment, create_specs(self.config, self.environment))

    def _fetch_evaluation(self) -> Path:
        """Return the folder `evaluation` of evaluate; `report` is beside it."""
        return Path(self._artifact_uri("evaluate", "evaluation"))

    def _artifact_uri(self, step: str, output: str) -> str:
        """Return the URI of an artifact of a step, from this run or from the cache."""
        return str(self.tasks.outputs[step][output].uri)

    def _find_used_runs(self) -> tuple[str, ...]:
        """Return the runs whose artifacts came from the cache."""
        cached = (self.tasks.outputs[step.name] for step in self.tasks.steps() if step.cached)
        uris = (str(getattr(output, "uri", "")) for outputs in cached for output in outputs.values())
        return tuple(sorted({name for uri in uris for name in run_folder.NAME.findall(uri)}))

    def _predict(self) -> Prediction | None:
        return predict_locally(self.config)

    def _find_failed_step(self) -> str | None:
        return next((step.name for step in self.tasks.steps() if step.state == "failed"), None)

    def _create_result(self) -> dict[str, Any]:
        """Return the fields of the summary of a successful run."""
        champion = open_store(self.config.store).champion(self.config.name)
        result = {
            "fingerprint": Identity.model_validate_json(self.tasks.outputs["fingerprint"]["identity"]).run,
            "champion": champion.version if champion else None,
        }
        if self.tasks.outputs["fingerprint"]["Output"] == UNCHANGED:
            objects = open_objects(self.config.store)
            run_records = records.read_run(objects, self.config.name, self.folder.name)
            _, reason = run_records.final_decision() or (UNCHANGED, None)
            return {**result, "decision": UNCHANGED, "reason": reason}
        evaluation, prediction = self._fetch_evaluation(), self._prediction
        result |= summarize_evaluation(
            read(evaluation / "decision.json", Decision),
            read(evaluation / "metrics.json", Metrics),
            evaluation.parent / "report",
            self._read_outcome(),
            self.folder,
        )
        return add_prediction(result, prediction.result if prediction else lambda: None)

    def _succeeded(self, step: str) -> bool:
        return self.tasks.state(step) == "succeeded"

    def _read_outcome(self) -> Outcome | None:
        """Return the outcome of deploy; None when it did not run."""
        if not self._succeeded("deploy"):
            return None
        return read(Path(self._artifact_uri("deploy", "outcome")), Outcome)
