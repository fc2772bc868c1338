"""The recurring run of a configuration, and the annotation that identifies recurring runs of modelyard.

The annotation is the description of a recurring run. It has the SHA-256 of everything that was applied except
`paused`. modelyard never changes a recurring run without the annotation.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import kfp_server_api as kfp
from cronsim import CronSim

from modelyard.components.errors import ConfigError
from modelyard.pipelines.compile.preflight import check_pipeline
from modelyard.pipelines.compile.uploads import Uploads
from modelyard.pipelines.config.schedule import Schedule, to_numeric_cron
from modelyard.pipelines.config.text import parse_duration
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.kfp import submission
from modelyard.pipelines.runners.kfp.runs import run_parameters
from modelyard.pipelines.runners.kfp.submission import Submission
from modelyard.pipelines.steps import deploy_spec

ENABLED, DISABLED = "ENABLE", "DISABLE"
ANNOTATION = "Applied by modelyard (modelyard.dev/schedule {sha256})"  # the server allows 191 characters
ANNOTATION_PATTERN = re.compile(re.escape(ANNOTATION).replace(r"\{sha256\}", "([0-9a-f]{64})"))


@dataclass(frozen=True)
class ManagedRecurringRun:
    """A recurring run of modelyard; `run` is the object of the SDK, on the server or about to be created."""

    run: Any

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self.run.display_name)

    @property
    def id(self) -> str:
        """The ID on the server."""
        return str(self.run.recurring_run_id)

    @property
    def enabled(self) -> bool:
        """Whether the recurring run starts runs."""
        return bool(self.run.mode == ENABLED)

    @property
    def sha256(self) -> str | None:
        """The SHA-256 of the annotation; None without one."""
        match = ANNOTATION_PATTERN.fullmatch(self.run.description or "")
        return match[1] if match else None

    @property
    def cron(self) -> str:
        """The cron expression, in numbers and without the seconds."""
        return str(self.run.trigger.cron_schedule.cron).removeprefix("0 ")

    @property
    def store(self) -> str:
        """The URL of the model store."""
        return str(deploy_spec(run_parameters(self.run)).get("store", {}).get("url", ""))

    def settings(self) -> dict[str, Any]:
        """Return the section `schedule`, without the time zone."""
        parameters = run_parameters(self.run)
        force_after = int(parameters.get("force_after") or 0)
        return {
            "cron": self.cron,
            "concurrency": int(self.run.max_concurrency),
            "catch_up": not self.run.no_catchup,
            "paused": not self.enabled,
            "skip_unchanged": bool(parameters.get("skip_unchanged")),
            "force_after": str(timedelta(seconds=force_after)) if force_after else None,
        }

    def to_json(self, now: datetime) -> dict[str, Any]:
        """Return the JSON of `schedule list`."""
        return {
            "name": self.name,
            "store": self.store,
            "cron": self.cron,
            "paused": not self.enabled,
            "next": self.next_due_times(now),
            "id": self.id,
        }

    def next_due_times(self, now: datetime) -> tuple[str, ...]:
        """Return the next three due times; empty if paused."""
        return tuple(due.isoformat() for due in islice(CronSim(self.cron, now), 3)) if self.enabled else ()


@dataclass(frozen=True)
class DesiredSchedule:
    """The schedule of a configuration: pipeline and arguments, recurring run, and messages for the user.

    `recurring_run` is without the IDs of the experiment and the pipeline version.
    """

    submission: Submission
    recurring_run: ManagedRecurringRun
    notes: tuple[str, ...]

    @classmethod
    def from_uploads(cls, uploads: Uploads, environment: Environment) -> "DesiredSchedule":
        """Return the schedule of a configuration, without a request.

        Raises:
            ConfigError: there is no schedule, its time zone differs from the server's, or it cannot run in
                this environment.
        """
        config = uploads.config
        schedule, server_zone = config.schedule, environment.kfp.time_zone
        if schedule is None:
            raise ConfigError(
                f"The configuration of {config.name} has no section `schedule`. Add one with the key cron, "
                'as in schedule: {cron: "0 3 * * 1"}, or --set schedule.cron="0 3 * * 1".'
            )
        if schedule.time_zone != server_zone:
            raise ConfigError(
                f"schedule.time_zone is {schedule.time_zone}, and the server's time zone is {server_zone} "
                f"(environment.kfp.time_zone). Write schedule.cron in {server_zone} and set "
                f"schedule.time_zone to {server_zone}; or set environment.kfp.time_zone to "
                "cronScheduleTimezone of the server's ConfigMap pipeline-install-config."
            )
        text = schedule.force_after
        force_after = parse_duration(text, "schedule.force_after") if text else 0
        options = {"skip_unchanged": schedule.skip_unchanged, "force_after": force_after}
        prepared_submission = submission.prepare(config, environment, options)
        copies = (
            f"{file.key} is on this machine; each run uses the uploaded copy." for file in uploads.files
        )
        notes = (*check_pipeline(prepared_submission.arguments, environment), *copies)
        return cls(prepared_submission, _create_recurring_run(schedule, prepared_submission), notes)


def _create_recurring_run(schedule: Schedule, submission: Submission) -> ManagedRecurringRun:
    """Return the recurring run of a schedule, with its annotation."""
    body = kfp.V2beta1RecurringRun(
        display_name=submission.pipeline,
        runtime_config=submission.runtime_config(),
        service_account=submission.service_account,
        max_concurrency=str(schedule.concurrency),
        no_catchup=not schedule.catch_up,
        trigger=kfp.V2beta1Trigger(
            cron_schedule=kfp.V2beta1CronSchedule(cron=f"0 {to_numeric_cron(schedule.cron)}")
        ),
    )
    text = json.dumps([submission.sha256, kfp.ApiClient().sanitize_for_serialization(body)], sort_keys=True)
    body.description = ANNOTATION.format(sha256=hashlib.sha256(text.encode()).hexdigest())
    body.mode = DISABLED if schedule.paused else ENABLED
    return ManagedRecurringRun(body)
