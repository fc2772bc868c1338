"""What a configuration asks for, in the words of Kubeflow Pipelines."""

from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import kfp_server_api as kfp

from modelyard.components.errors import ConfigError
from modelyard.pipelines.compile.preflight import check
from modelyard.pipelines.compile.uploads import Uploads, gather
from modelyard.pipelines.config import durations
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.config.schedule import Schedule
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.kfp import lookup, submission
from modelyard.pipelines.runners.kfp.client import Backend
from modelyard.pipelines.runners.kfp.submission import Submission
from modelyard.pipelines.schedule.cron import Cron
from modelyard.pipelines.schedule.mark import Mark
from modelyard.pipelines.schedule.recurring import stamp
from modelyard.pipelines.schedule.recurring.inventory import OFF, ON
from modelyard.pipelines.schedule.state import mark_of, schedule_of


@dataclass(frozen=True)
class Wanted:
    """What is to be there.

    Attributes:
        schedule: the section.
        uploads: what has to be in the store.
        submission: what each run is made of.
        trigger: the cron line, with seconds, in the server's zone.
        mark: that of all this, of the first generation.
        notes: what one must know of it.
    """

    schedule: Schedule
    uploads: Uploads
    submission: Submission
    trigger: str
    mark: Mark
    notes: tuple[str, ...]

    @classmethod
    def of(cls, config: Config, environment: Environment) -> "Wanted":
        """Return what a configuration asks for.

        Raises:
            ConfigError: it has no schedule, or one that Kubeflow Pipelines cannot keep, or cannot run there.
            DataError: the dataset of this machine is missing, or not what the configuration says.
        """
        schedule = schedule_of(config)
        trigger = _trigger(schedule, environment.kfp.time_zone)
        uploads = gather(config, environment)
        age = durations.seconds(schedule.force_after, "schedule.force_after") if schedule.force_after else 0
        options = {"skip_unchanged": schedule.skip_unchanged, "force_after": age}
        prepared = submission.prepare(uploads.config, environment, options)
        contents = {
            "package": prepared.sha256,
            "arguments": prepared.arguments,
            "pipeline_root": prepared.pipeline_root,
            "service_account": prepared.service_account,
            "trigger": trigger,
        }
        mark = mark_of(config, contents)
        stamp.check(mark, trigger)
        copies = (f"{one.key} is of this machine: each run gets the copy of now." for one in uploads.files)
        notes = (*check(prepared.package, prepared.arguments, environment), *copies)
        return cls(schedule, uploads, prepared, trigger, mark, notes)

    def schedule_as_read(self) -> dict[str, Any]:
        """Return the section as it is read back from a recurring run."""
        age = self.submission.arguments["force_after"]
        return {**self.schedule.model_dump(), "force_after": durations.text(int(age)) if age else None}

    def body(self, backend: Backend, mark: Mark) -> kfp.V2beta1RecurringRun:
        """Return the recurring run with a mark; what it starts is on the server then."""
        uploaded = submission.upload(backend, self.submission)
        return kfp.V2beta1RecurringRun(
            display_name=mark.name,
            description=stamp.text(mark),
            experiment_id=lookup.experiment(backend, self.submission.pipeline),
            namespace=backend.scope,
            pipeline_version_reference=kfp.V2beta1PipelineVersionReference(
                pipeline_id=uploaded.pipeline_id, pipeline_version_id=uploaded.version_id
            ),
            runtime_config=self.submission.runtime_config(),
            service_account=self.submission.service_account,
            max_concurrency=str(self.schedule.concurrency),
            no_catchup=not self.schedule.catch_up,
            trigger=kfp.V2beta1Trigger(cron_schedule=kfp.V2beta1CronSchedule(cron=self.trigger)),
            mode=OFF if self.schedule.paused else ON,
        )


def again(backend: Backend, run: Any, mark: Mark) -> kfp.V2beta1RecurringRun:
    """Return a recurring run like one that is there, switched on."""
    kept = (
        "display_name",
        "experiment_id",
        "pipeline_version_reference",
        "runtime_config",
        "service_account",
        "max_concurrency",
        "no_catchup",
        "trigger",
    )
    return kfp.V2beta1RecurringRun(
        **{key: getattr(run, key) for key in kept},
        namespace=backend.scope,
        description=stamp.text(mark),
        mode=ON,
    )


def _trigger(schedule: Schedule, there: str) -> str:
    """Return the cron line in the zone of the server, with its seconds."""
    try:
        line = Cron.parse(schedule.cron).in_zone(ZoneInfo(schedule.time_zone), ZoneInfo(there))
    except ValueError as error:
        raise ConfigError(
            f'schedule.cron is "{schedule.cron}" in {schedule.time_zone}. Kubeflow Pipelines reads it in the '
            f"zone of its server, {there} (environment.kfp.time_zone), and there no cron line says that: "
            f"{error}. Set schedule.time_zone to {there}; or have the server read it in {schedule.time_zone} "
            "(cronScheduleTimezone in its ConfigMap pipeline-install-config) and say so in "
            "environment.kfp.time_zone."
        ) from error
    return line.with_seconds()
