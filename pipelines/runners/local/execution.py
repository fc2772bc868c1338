"""Execute the KFP pipeline on this machine with its steps as processes, without Docker."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from modelyard.components import events, records
from modelyard.components.artifacts import UNCHANGED, Decision, Identity, Metrics, Outcome, Prediction, read
from modelyard.components.errors import CancelledError, ModelyardError, machine_error
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
from modelyard.pipelines.runners.base import Failure, RunSummary, Step
from modelyard.pipelines.runners.local.tasks import Tasks
from modelyard.pipelines.runners.run_folder import CANCELLED, EVENTS, add_prediction, evaluation_fields
from modelyard.pipelines.serving.smoke_test import predict_locally
from modelyard.pipelines.steps import STEPS


class LocalExecution:
    """One run of the pipeline; `tasks` has the progress during `__call__`."""

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
            folder: the run's folder; see pipelines/runners/run_folder.py.
            environment: the environment of the run.
            options: arguments of the pipeline that are not in the configuration: `skip_unchanged`,
                `force_after`.
        """
        self.config = config
        self.folder = folder
        self.environment = environment
        self.options = options
        self.tasks = Tasks(tuple(STEPS), folder, self._step_changed)
        self._threads = ThreadPoolExecutor(1)
        self._prediction: Future[Prediction | None] | None = None
        self.cache = folder.parent.parent / "cache"

    def __call__(self) -> RunSummary:
        """Execute the run and write the summary; a failure is in the summary, not raised."""
        started = time.monotonic()
        try:
            with self._threads:
                self._execute()
                result = {"state": "succeeded", **self._result()}
        except ModelyardError as error:
            step = self._failed_step()
            log = self.tasks.log(step) if step else None
            found = self.tasks.failures.get(step) if step else None
            result = {"state": "failed", "failure": Failure.of(found or error, step, log)}
        except Exception as error:
            known = machine_error(error, self.folder)
            result = {"state": "failed", "failure": Failure.of(known or error, self._failed_step())}
            if known is None:  # a bug
                self._record(started, result)
                raise
        except KeyboardInterrupt:
            cancelled = (self.folder / CANCELLED).exists()
            how = "`modelyard runs cancel`" if cancelled else "Ctrl-C or SIGTERM"
            why = CancelledError(f"{how} ended the run. {self.resume_message()}")
            self._record(started, {"state": "cancelled", "failure": Failure.of(why, self._failed_step())})
            raise
        return self._record(started, result)

    def resume_message(self) -> str:
        """Return the state of an interrupted run, and the command that resumes it."""
        saved = [one.epoch for one in self._events() if isinstance(one, Resumed | CheckpointSaved)]
        training = f"; training resumes after epoch {saved[-1]}" if saved and not self._done("train") else ""
        return (
            f"No step is running, and finished steps are cached{training}. `modelyard runs retry "
            f"{self.folder.name}` resumes it."
        )

    def clean_up(self) -> None:
        """Remove remote objects of an interrupted run after its processes have ended."""

    def _record(self, started: float, result: dict[str, Any]) -> RunSummary:
        resumed = [one.epoch for one in self._events() if isinstance(one, Resumed)]
        summary = RunSummary(
            run=self.folder.name,
            model=self.config.name,
            steps=self.tasks.steps(),
            seconds=round(time.monotonic() - started, 3),
            store=self.config.store.url,
            uses=self._uses(),
            resumed_after=resumed[-1] if resumed else None,
            **result,
        )
        run_folder.write_summary(self.folder, summary)
        return summary

    def _events(self) -> list[Event]:
        return EventFile(self.folder / EVENTS).read()

    def _step_changed(self, step: Step) -> None:
        """Write the event; request the prediction while explain runs, which changes no model."""
        change = StepChange(
            step=step.name, state=step.state, seconds=step.seconds, cached=step.cached, at=time.time()
        )
        events.append(self.folder / EVENTS, change)
        begins = STEPS[step.name].exit_task and step.state == "running"
        if begins and self._done("evaluate") and self._failed_step() is None:
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
            with self.tasks.replace_kfp_functions():
                train_to_serve(**create_arguments(self.config, self.environment), **self.options)
        except RuntimeError as error:
            raise ModelyardError(
                f"The local runner of KFP failed: {error}. `modelyard --debug run` shows the traceback."
            ) from error
        finally:
            self.tasks.mark_unfinished()

    def _pipeline(self) -> Callable[..., Any]:
        """Return the pipeline for kfp.local."""
        return create_pipeline(self.environment, create_specs(self.config, self.environment))

    def _evaluation(self) -> Path:
        """Return the folder of the evaluation, beside the report."""
        return Path(self._artifact_uri("evaluate", "evaluation"))

    def _artifact_uri(self, step: str, output: str) -> str:
        """Return the URI of an artifact of a step, from this run or from the cache."""
        return str(self.tasks.outputs[step][output].uri)

    def _uses(self) -> tuple[str, ...]:
        """Return the runs whose artifacts came from the cache."""
        cached = (self.tasks.outputs[step.name] for step in self.tasks.steps() if step.cached)
        uris = (str(getattr(output, "uri", "")) for outputs in cached for output in outputs.values())
        return tuple(sorted({name for uri in uris for name in run_folder.NAME.findall(uri)}))

    def _predict(self) -> Prediction | None:
        """Request one prediction from the server of the champion."""
        return predict_locally(self.config)

    def _failed_step(self) -> str | None:
        return next((step.name for step in self.tasks.steps() if step.state == "failed"), None)

    def _result(self) -> dict[str, Any]:
        """Return the decision, the champion, and one prediction of its server."""
        champion = open_store(self.config.store).champion(self.config.name)
        result = {
            "fingerprint": Identity.model_validate_json(self.tasks.outputs["fingerprint"]["identity"]).run,
            "champion": champion.version if champion else None,
        }
        if self.tasks.outputs["fingerprint"]["Output"] == UNCHANGED:
            found = records.read_run(open_objects(self.config.store), self.config.name, self.folder.name)
            _, reason = found.final_decision() or (UNCHANGED, None)
            return {**result, "decision": UNCHANGED, "reason": reason}
        prediction = self._prediction
        return add_prediction({**result, **self._scores()}, prediction.result if prediction else lambda: None)

    def _scores(self) -> dict[str, Any]:
        folder = self._evaluation()
        return evaluation_fields(
            read(folder / "decision.json", Decision),
            read(folder / "metrics.json", Metrics),
            folder.parent / "report",
            self._outcome(),
            self.folder,
        )

    def _done(self, step: str) -> bool:
        return self.tasks.state(step) == "succeeded"

    def _outcome(self) -> Outcome | None:
        """Return the outcome of deploy; None when it did not run."""
        return read(Path(self._artifact_uri("deploy", "outcome")), Outcome) if self._done("deploy") else None
