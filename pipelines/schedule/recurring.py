"""The recurring runs of a KFP server: applied, listed, paused, resumed, started and deleted.

KFP has no update, so a recurring run is replaced: the new one is created, then the old one is deleted. It
has no lock either: every command keeps the recurring run of a name with the greatest (created_at, id) and
deletes the others, so that one is left when commands are killed or overlap.

KFP deletes a recurring run together with its workflows, unless the request says ORPHAN. Even then it
deletes a workflow that is not on record as a run yet, some moments after its start. So a recurring run that
starts runs is not replaced within a minute of a due time, and nothing is deleted within a minute after one.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

import kfp_server_api as kfp
from cronsim import CronSim

from modelyard.components.artifacts import Record
from modelyard.components.errors import ConflictError, NotFoundError
from modelyard.pipelines.compile.uploads import Uploads
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.differences import Change, differences, flat
from modelyard.pipelines.runners.kfp import submission
from modelyard.pipelines.runners.kfp.client import Backend, equals, pages
from modelyard.pipelines.runners.kfp.submission import against
from modelyard.pipelines.schedule.desired import ENABLED, DesiredSchedule, ManagedRecurringRun

if TYPE_CHECKING:
    from rich.console import Console

MARGIN = timedelta(seconds=60)
FREQUENT_MINUTES = 3  # minutes: due times that are closer leave no room for twice the margin
LATEST_RUNS = 20
CODE_CHANGE = "code or environment"
Action = Literal["create", "replace", "pause", "resume", "nothing"]


class AppliedSchedule(Record):
    """What `apply` does, or did: `next` are the next times, `notes` what the user should know."""

    name: str
    action: Action
    changes: tuple[Change, ...] = ()
    next: tuple[str, ...] = ()
    endpoint: str
    notes: tuple[str, ...] = ()


class RecurringRuns:
    """The recurring runs of modelyard on a server.

    Methods that take a name raise NotFoundError when there is no recurring run of it, and ConflictError when
    modelyard did not make it. All raise BackendError when the server refuses, or does not answer.
    """

    def __init__(self, backend: Backend, environment: Environment, console: "Console") -> None:
        self.backend, self.environment, self.console = backend, environment, console

    def apply(self, uploads: Uploads, *, dry_run: bool = False) -> AppliedSchedule:
        """Make the recurring run match a configuration, and return what that changed; runs in flight go on.

        Args:
            uploads: the configuration, and what has to be in the store for it.
            dry_run: change nothing.

        Raises:
            ConfigError: it has no schedule, or one that KFP cannot run.
            ConflictError: modelyard did not make the recurring run of this name, or it is for another store,
                or another configuration was applied at the same time.
        """
        desired = DesiredSchedule.of(uploads, self.environment)
        existing = self._list_named(uploads.config.name)
        applied = self._compare(desired, existing)
        if dry_run:
            return applied
        if applied.action == "pause":
            self._disable(existing[-1])
        elif applied.action != "nothing":
            desired.uploads.send(self.console)
            uploaded = submission.upload(self.backend, desired.submission)
            body = desired.recurring.run
            body.namespace = self.backend.scope
            body.experiment_id = uploaded.experiment_id
            body.pipeline_version_reference = uploaded.reference()
            existing = self._create(body, existing)
        self._delete(existing[:-1])
        return applied

    def list_all(self) -> list[ManagedRecurringRun]:
        """Return the recurring runs of modelyard, one a name."""
        found = (ManagedRecurringRun(run) for run in self._list_all_runs())
        return list({one.name: one for one in _sort_by_creation(one for one in found if one.sha256)}.values())

    def pause(self, name: str) -> None:
        """Start no more runs."""
        for one in self._require_named(name):
            self._disable(one)

    def resume(self, name: str) -> None:
        """Start runs again.

        KFP starts a run at once when a recurring run that missed a due time is enabled. It is replaced unless
        `catch_up` asks for that.
        """
        existing = self._require_named(name)
        last = existing[-1]
        if last.settings()["catch_up"]:
            self.backend.recurring_runs.recurring_run_service_enable_recurring_run(last.id)
        elif not last.enabled:
            body = copy(last.run)
            body.recurring_run_id = body.created_at = body.updated_at = body.status = None
            body.namespace, body.mode = self.backend.scope, ENABLED
            existing = self._create(body, existing)
        self._delete(existing[:-1])

    def delete(self, name: str) -> None:
        """Delete the recurring run; its runs go on."""
        self._delete(self._require_named(name))

    def run_now(self, name: str) -> str:
        """Start a run as the recurring run would, and return its name."""
        run = self._require_named(name)[-1].run
        body = kfp.V2beta1Run(
            display_name=submission.run_name(name),
            experiment_id=run.experiment_id,
            pipeline_version_reference=run.pipeline_version_reference,
            runtime_config=run.runtime_config,
            service_account=run.service_account,
        )
        return str(submission.start(self.backend, body).display_name)

    def now(self) -> datetime:
        """Return the time in the server's time zone."""
        return datetime.fromtimestamp(time.time(), ZoneInfo(self.environment.kfp.time_zone))

    def _compare(self, desired: DesiredSchedule, existing: list[ManagedRecurringRun]) -> AppliedSchedule:
        """Return what has to be done.

        Raises:
            ConflictError: the recurring run is for another store.
        """
        desired_run = desired.recurring
        common: dict[str, Any] = {
            "name": desired_run.name,
            "next": desired_run.next(self.now()),
            "endpoint": str(self.backend.endpoint),
        }
        if not existing:
            return AppliedSchedule(action="create", notes=desired.notes, **common)
        last = existing[-1]
        if last.store != desired_run.store:
            raise ConflictError(
                f"There is a schedule {last.name} at {self.backend.endpoint} for models in the store "
                f"{last.store}, and the store of this configuration is {desired_run.store}. Delete it with "
                f"`modelyard schedule delete {last.name}` if it is yours, or give the model another name."
            )
        version = submission.look(self.backend, desired.submission).version_id
        changes = (
            *differences(flat({"schedule": last.settings()}), flat({"schedule": desired_run.settings()})),
            *against(self.backend, last.run, desired.submission, version),
        )
        same = last.sha256 == desired_run.sha256
        if same and last.run.pipeline_version_reference.pipeline_version_id == version:
            action: Action = "resume" if desired_run.enabled else "pause"
            if last.enabled == desired_run.enabled:
                action = "nothing"
            return AppliedSchedule(action=action, changes=changes, notes=desired.notes, **common)
        notes = desired.notes
        if any(one.enabled and _is_frequent(one) for one in existing):
            notes += (
                f'The old schedule "{last.cron}" is due more often than every {FREQUENT_MINUTES} minutes: it '
                "is disabled before the new one is created, and one run may be skipped.",
            )
        changes = changes or (Change(key=CODE_CHANGE),)
        return AppliedSchedule(action="replace", changes=changes, notes=notes, **common)

    def _create(self, body: Any, existing: list[ManagedRecurringRun]) -> list[ManagedRecurringRun]:
        """Create a recurring run in place of others, and return all of its name, the one that stays last.

        Raises:
            ConflictError: another command created one at the same time, and that one stays.
        """
        for one in existing:
            if one.enabled and (one is not existing[-1] or _is_frequent(one)):
                self._disable(one)
            elif one.enabled:
                self._wait_for_due_time(one)
        desired_run, before = ManagedRecurringRun(body), {one.id for one in existing}
        submission.once(
            lambda: self.backend.recurring_runs.recurring_run_service_create_recurring_run(body),
            lambda: next(
                (
                    one.run
                    for one in self._list_named(desired_run.name)
                    if one.sha256 == desired_run.sha256 and one.id not in before
                ),
                None,
            ),
        )
        *others, last = self._list_named(desired_run.name)
        if (last.sha256, last.enabled) != (desired_run.sha256, desired_run.enabled):
            self._delete(others)
            raise ConflictError(
                f"Another schedule of {desired_run.name} was applied at the same time, and that one stays. "
                "`modelyard schedule apply --dry-run` shows how it differs; apply again to replace it."
            )
        return [*others, last]

    def _delete(self, old: list[ManagedRecurringRun]) -> None:
        """Delete recurring runs; their runs go on."""
        for one in old:
            if one.enabled:
                self._disable(one)
        if any(self._find_due_time(one) or self._ended_recently(one) for one in old):
            with self.console.status("waiting a minute, until runs that have just started are on record"):
                time.sleep(MARGIN.total_seconds())
        for one in old:
            with suppress(NotFoundError):  # another command was faster
                self.backend.recurring_runs.recurring_run_service_delete_recurring_run(
                    one.id, propagation_policy="ORPHAN"
                )

    def _disable(self, one: ManagedRecurringRun) -> None:
        with suppress(NotFoundError):
            self.backend.recurring_runs.recurring_run_service_disable_recurring_run(one.id)

    def _wait_for_due_time(self, one: ManagedRecurringRun) -> None:
        """Wait until no run is due within a minute, so that none starts twice."""
        if due := self._find_due_time(one):
            with self.console.status(f"waiting until a minute after {due:%H:%M}, when a run is due"):
                time.sleep((due + MARGIN - self.now()).total_seconds())

    def _find_due_time(self, one: ManagedRecurringRun) -> datetime | None:
        """Return the due time within a minute of now, if there is one."""
        now = self.now()
        due = next(CronSim(one.cron, now - MARGIN))
        return due if due < now + MARGIN else None

    def _ended_recently(self, one: ManagedRecurringRun) -> bool:
        """Say whether a run ended within a minute: it may have made room for one that waited."""
        page = self.backend.runs.run_service_list_runs(
            experiment_id=one.run.experiment_id,
            page_size=LATEST_RUNS,
            sort_by="created_at desc",
            filter=equals("recurring_run_id", one.id),
        )
        since = self.now() - MARGIN
        return any(run.finished_at and run.finished_at > since for run in page.runs or ())

    def _require_named(self, name: str) -> list[ManagedRecurringRun]:
        if found := self._list_named(name):
            return found
        others = ", ".join(one.name for one in self.list_all())
        raise NotFoundError(
            f"There is no schedule of {name} at {self.backend.endpoint}; "
            f"{f'there are those of {others}' if others else 'there is none of modelyard'}. "
            "`modelyard schedule apply CONFIG -e ENV` creates one."
        )

    def _list_named(self, name: str) -> list[ManagedRecurringRun]:
        """Return the recurring runs of a name, the one that stays last.

        Raises:
            ConflictError: modelyard did not make one of them.
        """
        found = [ManagedRecurringRun(run) for run in self._list_all_runs(filter=equals("display_name", name))]
        if not all(one.sha256 for one in found):
            raise ConflictError(
                f"There is a recurring run {name} at {self.backend.endpoint} that modelyard did not make. "
                "Delete it, or give the model another name."
            )
        return _sort_by_creation(found)

    def _list_all_runs(self, **query: str) -> Iterator[Any]:
        list_ = self.backend.recurring_runs.recurring_run_service_list_recurring_runs
        return pages(list_, "recurring_runs", **query, **self.backend.scoped())


def _sort_by_creation(found: Any) -> list[ManagedRecurringRun]:
    return sorted(found, key=lambda one: (one.run.created_at, one.id))


def _is_frequent(one: ManagedRecurringRun) -> bool:
    """Say whether due times are less than three minutes apart."""
    minutes = sorted(CronSim(one.cron, datetime.now()).minutes)
    return any(after - before < FREQUENT_MINUTES for before, after in pairwise([*minutes, minutes[0] + 60]))
