"""The API server's recurring runs, and their controller with a clock that a test advances.

A workflow belongs to the recurring run that started it and is deleted with it, unless the propagation policy
is ORPHAN. As on the real server, a workflow that is not recorded as a run yet (`report`) is always deleted.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import kfp_server_api as kfp
from cronsim import CronSim

from tests.integration.backend.pipelines import V2, Pipelines
from tests.integration.backend.runs import Runs
from tests.integration.backend.server import INVALID, NOT_FOUND, ApiError, BackendServer, Request

INTERNAL = (500, 13)
POLICIES = ("FOREGROUND", "BACKGROUND", "ORPHAN")


@dataclass
class Workflow:
    """A workflow in the cluster, which the recurring run `owner` started; a run has a record of it."""

    run: Any
    owner: str


class RecurringRuns:
    """Recurring runs by their id; `now` is the controller's clock.

    Attributes:
        records_at_once: whether a workflow is recorded when it starts.
        killed: the runs whose workflow was deleted while they ran.
    """

    def __init__(self, server: BackendServer, pipelines: Pipelines, runs: Runs) -> None:
        self._server, self._pipelines, self._runs = server, pipelines, runs
        self.recurring: dict[str, Any] = {}
        self.workflows: list[Workflow] = []
        self.killed: list[str] = []
        self.records_at_once = True
        self.now = datetime.now(UTC).replace(minute=0, second=30, microsecond=0)
        self._last: dict[str, datetime] = {}
        path = rf"{V2}/recurringruns/(?P<recurring_run_id>[^/:]+)"
        self.routes = {
            ("POST", f"{V2}/recurringruns"): self.create,
            ("GET", f"{V2}/recurringruns"): self.find,
            ("GET", path): self.get,
            ("DELETE", path): self.delete,
            ("POST", f"{path}:enable"): self.enable,
            ("POST", f"{path}:disable"): self.disable,
        }

    def create(self, request: Request) -> Any:
        created = request.read("V2beta1RecurringRun")
        version = created.pipeline_version_reference.pipeline_version_id
        if version not in self._pipelines.versions:
            raise ApiError(NOT_FOUND, f"ResourceNotFoundError: PipelineVersion {version} not found")
        if created.experiment_id not in self._pipelines.experiments:
            raise ApiError(NOT_FOUND, "ResourceNotFoundError: Experiment not found")
        if not 1 <= int(created.max_concurrency or 0) <= 10:
            raise ApiError(INVALID, "Max concurrency of a recurring run must be at least 1 and at most 10")
        if created.namespace and not self._server.multi_user:
            raise ApiError(INVALID, f"Experiment belongs to namespace '' instead of '{created.namespace}'")
        if len(created.description) > 191:
            raise ApiError(INTERNAL, "Failed to store job: Data too long for column 'Description'")
        _schedule(created, self.now)
        self._runs._check(created, self._pipelines.specs[version][0])
        created.namespace = created.namespace or "kubeflow"
        created.recurring_run_id, created.created_at = str(uuid4()), datetime.now(UTC)
        created.status = "ENABLED" if created.mode == "ENABLE" else "DISABLED"
        self.recurring[created.recurring_run_id] = created
        self._last[created.recurring_run_id] = self.now
        return created

    def find(self, request: Request) -> Any:
        recurring_runs = list(self.recurring.values())
        if self._server.multi_user and not request.query.get("namespace"):
            raise ApiError(INVALID, "InvalidInputError: A namespace is required")
        return self._server.page(
            request, recurring_runs, "recurring_runs", "V2beta1ListRecurringRunsResponse"
        )

    def get(self, _: Request, recurring_run_id: str) -> Any:
        if recurring_run_id not in self.recurring:
            raise ApiError(NOT_FOUND, f"ResourceNotFoundError: Job {recurring_run_id} not found")
        return self.recurring[recurring_run_id]

    def delete(self, request: Request, recurring_run_id: str) -> Any:
        policy = request.query.get("propagation_policy")
        if policy not in (None, *POLICIES):
            raise ApiError(INVALID, f'parsing field "propagation_policy": {policy} is not valid')
        self.get(request, recurring_run_id)
        for workflow in [item for item in self.workflows if item.owner == recurring_run_id]:
            if policy == "ORPHAN" and workflow.run.run_id in self._runs.runs:
                workflow.owner = ""
            else:
                self.workflows.remove(workflow)
                self.killed.append(workflow.run.run_id)
        del self.recurring[recurring_run_id]
        return {}

    def enable(self, request: Request, recurring_run_id: str) -> Any:
        return self._switch(request, recurring_run_id, "ENABLE", "ENABLED")

    def disable(self, request: Request, recurring_run_id: str) -> Any:
        return self._switch(request, recurring_run_id, "DISABLE", "DISABLED")

    @property
    def enabled(self) -> list[Any]:
        """The enabled recurring runs."""
        return [item for item in self.recurring.values() if item.mode == "ENABLE"]

    def advance(self, **time: float) -> None:
        """Advance the clock minute by minute, and run the controller."""
        end = self.now + timedelta(**time)
        while self.now < end:
            self.now = min(end, self.now + timedelta(minutes=1))
            for recurring_run in self.enabled:
                self._start_due_runs(recurring_run)

    def report(self) -> None:
        """Record started workflows as runs."""
        for workflow in self.workflows:
            self._runs.runs.setdefault(workflow.run.run_id, workflow.run)

    def end(self, run_id: str, state: str = "SUCCEEDED") -> None:
        """End a run."""
        self.workflows = [item for item in self.workflows if item.run.run_id != run_id]
        self._runs.set_state(run_id, state)
        self._runs.runs[run_id].finished_at = self.now

    def runs_of(self, recurring_run_id: str) -> list[Any]:
        """Return the recorded runs of a recurring run, the oldest first."""
        return [run for run in self._runs.runs.values() if run.recurring_run_id == recurring_run_id]

    def _switch(self, request: Request, recurring_run_id: str, mode: str, status: str) -> Any:
        recurring = self.get(request, recurring_run_id)
        recurring.mode, recurring.status, recurring.updated_at = mode, status, datetime.now(UTC)
        return {}

    def _start_due_runs(self, recurring: Any) -> None:
        """Start due runs up to the concurrency; without catch-up, only the last missed run."""
        while True:
            active = [workflow for workflow in self.workflows if workflow.owner == recurring.recurring_run_id]
            due = next(_schedule(recurring, self._last[recurring.recurring_run_id]))
            if due > self.now or len(active) >= int(recurring.max_concurrency):
                return
            if recurring.no_catchup:
                due = next(_schedule(recurring, self.now + timedelta(seconds=1), reverse=True))
            self._last[recurring.recurring_run_id] = due
            self._start(recurring)

    def _start(self, recurring: Any) -> None:
        run = kfp.V2beta1Run(
            run_id=str(uuid4()),
            recurring_run_id=recurring.recurring_run_id,
            display_name=f"{recurring.display_name}{len(self.workflows)}",
            experiment_id=recurring.experiment_id,
            pipeline_version_reference=recurring.pipeline_version_reference,
            runtime_config=recurring.runtime_config,
            service_account=recurring.service_account,
            created_at=datetime.now(UTC),
            state="RUNNING",
        )
        self.workflows.append(Workflow(run, recurring.recurring_run_id))
        if self.records_at_once:
            self.report()


def _schedule(recurring: Any, after: datetime, reverse: bool = False) -> CronSim:
    cron = recurring.trigger.cron_schedule.cron
    if len(cron.split()) != 6 or "7" in cron.split()[5]:
        # the server reads five fields as second, minute, hour, day, month
        raise ApiError(INVALID, f"Schedule cron is not a supported format: {cron}")
    return CronSim(cron, after, reverse=reverse)
