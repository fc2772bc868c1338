"""Applies, lists, pauses, resumes, starts and deletes the recurring runs of a KFP server.

KFP cannot update a recurring run, so a new one is created before the old one is deleted. There is no lock:
each command keeps the newest recurring run of a name, by (created_at, id), and deletes the others. So exactly
one remains after commands that were killed or ran concurrently.

KFP deletes the Workflows of a recurring run with it, unless the request has the policy ORPHAN. Even then, KFP
deletes a Workflow that was just started and is not recorded as a run yet. So a recurring run is not replaced
within a minute of a due time, and not deleted within a minute after one.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from copy import copy
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim

from modelyard.components.artifacts import Record
from modelyard.components.errors import ConflictError, NotFoundError
from modelyard.pipelines.compile.uploads import Uploads
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.differences import Change, find_differences, flatten
from modelyard.pipelines.runners.kfp import submission
from modelyard.pipelines.runners.kfp.client import Backend, equals_filter, list_items
from modelyard.pipelines.runners.kfp.submission import compare_with_run
from modelyard.pipelines.schedule.desired import ENABLED, DesiredSchedule, ManagedRecurringRun

if TYPE_CHECKING:
    from rich.console import Console

GRACE_PERIOD = timedelta(seconds=60)
FREQUENT_MINUTES = 3  # fewer minutes between due times leave no time for two grace periods
LATEST_RUNS = 20
CODE_CHANGE = "code or environment"
Action = Literal["create", "replace", "pause", "resume", "nothing"]


class AppliedSchedule(Record):
    """The result of `apply`: `next` are the next due times, `notes` messages for the user."""

    name: str
    action: Action
    changes: tuple[Change, ...] = ()
    next: tuple[str, ...] = ()
    endpoint: str
    notes: tuple[str, ...] = ()


class RecurringRuns:
    """The recurring runs of modelyard on a server.

    Methods that take a name raise NotFoundError if there is no recurring run of that name, and ConflictError
    if modelyard did not create it. All raise BackendError if the server refuses a request or is unavailable.
    """

    def __init__(self, backend: Backend, environment: Environment, console: "Console") -> None:
        self.backend, self.environment, self.console = backend, environment, console

    def apply(self, uploads: Uploads, *, dry_run: bool = False) -> AppliedSchedule:
        """Create or replace the recurring run of a configuration; runs in progress are not affected.

        With `dry_run`, only return the changes.

        Raises:
            ConfigError: there is no schedule, or KFP cannot run it.
            ConflictError: modelyard did not create the recurring run of this name, it is for another store,
                or another configuration was applied at the same time.
        """
        desired = DesiredSchedule.from_uploads(uploads, self.environment)
        runs = self._list_named(uploads.config.name)
        result = self._compare(desired, runs)
        if dry_run:
            return result
        if result.action == "pause":
            self._disable(runs[-1])
        elif result.action != "nothing":
            uploads.send(self.console)
            uploaded_objects = submission.upload(self.backend, desired.submission)
            body = desired.recurring_run.run
            body.namespace = self.backend.scope
            body.experiment_id = uploaded_objects.experiment_id
            body.pipeline_version_reference = uploaded_objects.reference()
            runs = self._create(body, runs)
        self._delete(runs[:-1])  # all but the newest
        return result

    def list_all(self) -> list[ManagedRecurringRun]:
        """Return the recurring runs of modelyard, one per name."""
        runs = (ManagedRecurringRun(run) for run in self._list_all_runs())
        managed_runs = _sort_by_creation(run for run in runs if run.sha256)
        return list({run.name: run for run in managed_runs}.values())

    def pause(self, name: str) -> None:
        """Disable the recurring run."""
        for recurring_run in self._require_named(name):
            self._disable(recurring_run)

    def resume(self, name: str) -> None:
        """Enable the recurring run.

        KFP starts a run at once when it enables a recurring run that missed a due time. So the
        recurring run is replaced instead, unless `catch_up` is set.
        """
        runs = self._require_named(name)
        newest = runs[-1]
        if newest.settings()["catch_up"]:
            self.backend.recurring_runs.recurring_run_service_enable_recurring_run(newest.id)
        elif not newest.enabled:
            body = copy(newest.run)
            body.recurring_run_id = body.created_at = body.updated_at = body.status = None
            body.namespace, body.mode = self.backend.scope, ENABLED
            runs = self._create(body, runs)
        self._delete(runs[:-1])

    def delete(self, name: str) -> None:
        """Delete the recurring run; its runs in progress are not affected."""
        self._delete(self._require_named(name))

    def run_now(self, name: str) -> str:
        """Start a run of the recurring run now, and return its name."""
        run = self._require_named(name)[-1].run
        new_run = submission.start_run(
            self.backend,
            name,
            run.experiment_id,
            pipeline_version_reference=run.pipeline_version_reference,
            runtime_config=run.runtime_config,
            service_account=run.service_account,
        )
        return str(new_run.display_name)

    def now(self) -> datetime:
        """Return the time in the server's time zone."""
        return datetime.fromtimestamp(time.time(), ZoneInfo(self.environment.kfp.time_zone))

    def _compare(self, desired: DesiredSchedule, runs: list[ManagedRecurringRun]) -> AppliedSchedule:
        """Return the changes and the action to apply them; raise ConflictError for another store."""
        desired_run = desired.recurring_run
        result = AppliedSchedule(
            name=desired_run.name,
            action="create",
            next=desired_run.next_due_times(self.now()),
            endpoint=str(self.backend.endpoint),
            notes=desired.notes,
        )
        if not runs:
            return result
        newest = runs[-1]
        if newest.store != desired_run.store:
            raise ConflictError(
                f"The schedule {newest.name} at {self.backend.endpoint} has the model store {newest.store}, "
                f"but this configuration has {desired_run.store}. Delete the schedule if it is yours "
                f"(`modelyard schedule delete {newest.name}`), or rename the model."
            )
        version = submission.find_existing(self.backend, desired.submission).version_id
        changes = (
            *find_differences(
                flatten({"schedule": newest.settings()}), flatten({"schedule": desired_run.settings()})
            ),
            *compare_with_run(self.backend, newest.run, desired.submission, version),
        )
        action, notes = _find_action(newest, desired_run, version), desired.notes
        if action == "replace":
            changes = changes or (Change(key=CODE_CHANGE),)
            if any(recurring_run.enabled and _is_frequent(recurring_run) for recurring_run in runs):
                notes += (
                    f'The old schedule "{newest.cron}" is due more often than every {FREQUENT_MINUTES} '
                    "minutes: it is disabled before the new one is created, and a run may be skipped.",
                )
        return result.model_copy(update={"action": action, "changes": changes, "notes": notes})

    def _create(self, body: Any, runs: list[ManagedRecurringRun]) -> list[ManagedRecurringRun]:
        """Create a recurring run, and return all recurring runs with its name, oldest first.

        Raise ConflictError if another command created a newer one, which is kept.
        """
        for recurring_run in runs:
            if recurring_run.enabled and (recurring_run is not runs[-1] or _is_frequent(recurring_run)):
                self._disable(recurring_run)
            elif recurring_run.enabled:
                self._wait_for_due_time(recurring_run)
        desired_run = ManagedRecurringRun(body)
        existing_ids = {recurring_run.id for recurring_run in runs}

        def find_created() -> Any:
            for recurring_run in self._list_named(desired_run.name):
                if recurring_run.sha256 == desired_run.sha256 and recurring_run.id not in existing_ids:
                    return recurring_run.run
            return None

        submission.create_once(
            lambda: self.backend.recurring_runs.recurring_run_service_create_recurring_run(body),
            find_created,
        )
        *others, newest = self._list_named(desired_run.name)
        if (newest.sha256, newest.enabled) != (desired_run.sha256, desired_run.enabled):
            self._delete(others)
            raise ConflictError(
                f"Another schedule of {desired_run.name} was applied at the same time and was not replaced. "
                "`modelyard schedule apply --dry-run` shows the difference; apply again to replace it."
            )
        return [*others, newest]

    def _delete(self, recurring_runs: list[ManagedRecurringRun]) -> None:
        """Delete recurring runs; their runs in progress are not affected."""
        for recurring_run in recurring_runs:
            if recurring_run.enabled:
                self._disable(recurring_run)
        if any(self._find_due_time(run) or self._ended_recently(run) for run in recurring_runs):
            with self.console.status("waiting a minute, until runs that just started are recorded"):
                time.sleep(GRACE_PERIOD.total_seconds())
        for recurring_run in recurring_runs:
            with suppress(NotFoundError):  # deleted by another command
                self.backend.recurring_runs.recurring_run_service_delete_recurring_run(
                    recurring_run.id, propagation_policy="ORPHAN"
                )

    def _disable(self, recurring_run: ManagedRecurringRun) -> None:
        with suppress(NotFoundError):
            self.backend.recurring_runs.recurring_run_service_disable_recurring_run(recurring_run.id)

    def _wait_for_due_time(self, recurring_run: ManagedRecurringRun) -> None:
        """Wait until no run is due within a minute, so that none starts twice."""
        if due_time := self._find_due_time(recurring_run):
            with self.console.status(f"waiting until a minute after {due_time:%H:%M}, when a run is due"):
                time.sleep((due_time + GRACE_PERIOD - self.now()).total_seconds())

    def _find_due_time(self, recurring_run: ManagedRecurringRun) -> datetime | None:
        """Return the due time within a minute of now, or None."""
        now = self.now()
        due_time = next(CronSim(recurring_run.cron, now - GRACE_PERIOD))
        return due_time if due_time < now + GRACE_PERIOD else None

    def _ended_recently(self, recurring_run: ManagedRecurringRun) -> bool:
        """Return whether a run ended within the last minute, so that KFP may have just started another."""
        page = self.backend.runs.run_service_list_runs(
            experiment_id=recurring_run.run.experiment_id,
            page_size=LATEST_RUNS,
            sort_by="created_at desc",
            filter=equals_filter("recurring_run_id", recurring_run.id),
        )
        start = self.now() - GRACE_PERIOD
        return any(run.finished_at and run.finished_at > start for run in page.runs or ())

    def _require_named(self, name: str) -> list[ManagedRecurringRun]:
        if runs := self._list_named(name):
            return runs
        others = ", ".join(recurring_run.name for recurring_run in self.list_all())
        raise NotFoundError(
            f"There is no schedule {name} at {self.backend.endpoint}; its schedules: {others or 'none'}. "
            "`modelyard schedule apply CONFIG -e ENV` creates one."
        )

    def _list_named(self, name: str) -> list[ManagedRecurringRun]:
        """Return the recurring runs with a name, oldest first; all must have the annotation of modelyard."""
        items = self._list_all_runs(filter=equals_filter("display_name", name))
        runs = [ManagedRecurringRun(item) for item in items]
        if not all(run.sha256 for run in runs):
            raise ConflictError(
                f"The recurring run {name} at {self.backend.endpoint} was not created by modelyard. Delete "
                "it, or rename the model."
            )
        return _sort_by_creation(runs)

    def _list_all_runs(self, **query: str) -> Iterator[Any]:
        request = self.backend.recurring_runs.recurring_run_service_list_recurring_runs
        return list_items(request, "recurring_runs", **query, **self.backend.scope_arguments())


def _find_action(newest: ManagedRecurringRun, target: ManagedRecurringRun, version_id: str | None) -> Action:
    """Return the action that replaces or changes `newest`, so that it equals `target`."""
    reference = newest.run.pipeline_version_reference
    if newest.sha256 != target.sha256 or reference.pipeline_version_id != version_id:
        return "replace"
    if newest.enabled == target.enabled:
        return "nothing"
    return "resume" if target.enabled else "pause"


def _sort_by_creation(runs: Iterable[ManagedRecurringRun]) -> list[ManagedRecurringRun]:
    return sorted(runs, key=lambda run: (run.run.created_at, run.id))


def _is_frequent(recurring_run: ManagedRecurringRun) -> bool:
    """Return whether due times are less than FREQUENT_MINUTES apart."""
    minutes = sorted(CronSim(recurring_run.cron, datetime.now()).minutes)
    return any(later - earlier < FREQUENT_MINUTES for earlier, later in pairwise([*minutes, minutes[0] + 60]))
