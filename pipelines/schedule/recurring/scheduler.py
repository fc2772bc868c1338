"""The order in which a recurring run takes another's place.

The new one is made first, then the old one is switched off and deleted. So a command that is killed leaves at
least one that fires, and the next leaves exactly one: that of the highest generation, whoever made it.
"""

from typing import TYPE_CHECKING, Any

import kfp_server_api as kfp

from modelyard.components.errors import BackendError, ConflictError, NotFoundError
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.differences import Change, differences, flat
from modelyard.pipelines.runners.kfp import lookup, submission
from modelyard.pipelines.runners.kfp.changes import against
from modelyard.pipelines.runners.kfp.client import Backend
from modelyard.pipelines.runners.kfp.lookup import once
from modelyard.pipelines.schedule.mark import Mark
from modelyard.pipelines.schedule.recurring import inventory
from modelyard.pipelines.schedule.recurring.inventory import Ours, switch
from modelyard.pipelines.schedule.recurring.retirement import retire
from modelyard.pipelines.schedule.recurring.wanted import Wanted, again
from modelyard.pipelines.schedule.state import (
    CODE,
    Plan,
    Scheduled,
    absent,
    check_owner,
    next_fires,
)

if TYPE_CHECKING:
    from rich.console import Console


class RecurringRuns:
    """The schedules of Kubeflow Pipelines; a `Scheduler`, whose methods say what each does."""

    def __init__(self, backend: Backend, environment: Environment, console: "Console") -> None:
        self.backend, self.environment, self.console = backend, environment, console

    def plan(self, config: Config) -> Plan:
        """Return what `apply` would do."""
        return self._plan(Wanted.of(config, self.environment), inventory.named(self.backend, config.name))

    def apply(self, config: Config) -> Plan:
        """Make the recurring run be what the configuration says."""
        wanted, there = Wanted.of(config, self.environment), inventory.named(self.backend, config.name)
        plan = self._plan(wanted, there)
        if plan.action == "pause":
            switch(self.backend, there[-1], on=False)
        elif plan.action != "nothing":
            wanted.uploads.send(self.console)
            mark = wanted.mark.model_copy(update={"generation": _next_generation(there)})
            there = self._take_over(mark, wanted.body(self.backend, mark))
        left = retire(self.backend, there[:-1], self.console)
        return plan.model_copy(update={"notes": (*plan.notes, _still_there(left))}) if left else plan

    def all(self) -> list[Scheduled]:
        """Return modelyard's recurring runs: of each name the one that stays."""
        in_force = {one.mark.name: one for one in inventory.everything(self.backend)}
        return [self._shown(one) for one in in_force.values()]

    def pause(self, name: str) -> None:
        """Start no more runs."""
        for one in self._known(name):
            switch(self.backend, one, on=False)

    def resume(self, name: str) -> None:
        """Start runs again.

        A recurring run that is switched on fires at once for what it missed. Unless that is wanted, another
        one takes its place.
        """
        there = self._known(name)
        last = there[-1]
        if last.mark.schedule["catch_up"]:
            switch(self.backend, last, on=True)
        elif not last.on:
            mark = last.mark.model_copy(update={"generation": _next_generation(there)})
            there = self._take_over(mark, again(self.backend, last.run, mark))
        retire(self.backend, there[:-1], self.console)

    def delete(self, name: str) -> None:
        """Remove the recurring run."""
        if left := retire(self.backend, self._known(name), self.console):
            raise BackendError(_still_there(left))

    def run_now(self, name: str) -> str:
        """Start a run as the recurring run would, and return its name."""
        run = self._known(name)[-1].run
        body = kfp.V2beta1Run(
            display_name=submission.run_name(name),
            experiment_id=run.experiment_id,
            pipeline_version_reference=run.pipeline_version_reference,
            runtime_config=run.runtime_config,
            service_account=run.service_account,
        )
        return str(submission.start(self.backend, body).display_name)

    def _plan(self, wanted: Wanted, there: list[Ours]) -> Plan:
        mark, paused = wanted.mark, wanted.schedule.paused
        where = f"the recurring run {mark.name} at {self.backend.endpoint}"
        common: dict[str, Any] = {
            "name": mark.name,
            "where": where,
            "next": next_fires(mark.schedule, paused),
            "notes": wanted.notes,
        }
        if not there:
            return Plan(action="create", **common)
        last = there[-1]
        check_owner(last.mark, mark, where)
        changes = self._changes(wanted, last)
        if last.mark.sha256 != mark.sha256 or self._version_is_gone(last):
            return Plan(action="replace", changes=changes or (Change(key=CODE),), **common)
        if last.on != paused:
            return Plan(action="nothing", **common)
        return Plan(action="pause" if paused else "resume", changes=changes, **common)

    def _changes(self, wanted: Wanted, last: Ours) -> tuple[Change, ...]:
        _, version_id = lookup.known(self.backend, wanted.submission)
        sent = against(self.backend, last.run, wanted.submission, version_id)
        before = {**last.mark.schedule, "paused": not last.on}
        return (
            *differences(flat({"schedule": before}), flat({"schedule": wanted.schedule_as_read()})),
            *sent,
        )

    def _version_is_gone(self, ours: Ours) -> bool:
        reference = ours.run.pipeline_version_reference
        try:
            self.backend.pipelines.pipeline_service_get_pipeline_version(
                reference.pipeline_id, reference.pipeline_version_id
            )
        except NotFoundError:
            return True
        return False

    def _take_over(self, mark: Mark, body: kfp.V2beta1RecurringRun) -> list[Ours]:
        """Make a recurring run with a mark, and return those of its name, the one that stays last.

        Raises:
            ConflictError: somebody else made another meanwhile, and that one stays.
        """
        mine = mark.generation, mark.sha256
        created = once(
            lambda: self.backend.recurring_runs.recurring_run_service_create_recurring_run(body),
            lambda: next(
                (one.run for one in inventory.named(self.backend, mark.name) if one.edition == mine), None
            ),
        )
        there = inventory.named(self.backend, mark.name)
        if there[-1].mark.sha256 != mark.sha256:
            retire(self.backend, [one for one in there if one.id == created.recurring_run_id], self.console)
            raise ConflictError(
                f"Somebody else applied another configuration of {mark.name} at the same moment, and that "
                "one holds. `modelyard schedule diff` shows how it differs; apply again to replace it."
            )
        return there

    def _known(self, name: str) -> list[Ours]:
        if there := inventory.named(self.backend, name):
            return there
        raise absent(name, [one.name for one in self.all()])

    def _shown(self, one: Ours) -> Scheduled:
        return Scheduled(
            name=one.mark.name,
            store=one.mark.store,
            cron=one.mark.schedule["cron"],
            time_zone=one.mark.schedule["time_zone"],
            paused=not one.on,
            next=next_fires(one.mark.schedule, paused=not one.on),
            id=one.id,
            where=f"recurring run at {self.backend.endpoint}",
        )


def _next_generation(there: list[Ours]) -> int:
    return there[-1].mark.generation + 1 if there else 1


def _still_there(left: list[Ours]) -> str:
    return (
        f"The recurring run {left[0].mark.name} ({', '.join(one.id for one in left)}) is switched off and "
        "starts no more runs, but is still there: one of its runs is in flight, and Kubeflow Pipelines "
        "before 2.16 would end that with it. The same command removes it once that run has ended."
    )
