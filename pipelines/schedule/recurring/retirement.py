"""How a recurring run is deleted without its runs.

Kubeflow Pipelines deletes a recurring run together with its workflows. They are left only when it is asked to
(ORPHAN, since 2.16), and a workflow that has no recurring run any more is deleted also then, unless it is on
record as a run, which happens moments after it started.
"""

import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from modelyard.components.errors import BackendError, NotFoundError
from modelyard.pipelines.runners.kfp.client import Backend
from modelyard.pipelines.runners.kfp.lookup import equals
from modelyard.pipelines.runners.kfp.records import goes_on
from modelyard.pipelines.schedule.cron import Cron
from modelyard.pipelines.schedule.recurring.inventory import Ours, switch

if TYPE_CHECKING:
    from rich.console import Console

GRACE = 30.0  # seconds until a workflow that has started is on record, with room
RECENTLY = timedelta(minutes=5)  # clocks differ
NOBODY = "00000000-0000-0000-0000-000000000000"
LATEST = 20


def retire(backend: Backend, old: list[Ours], console: "Console") -> list[Ours]:
    """Switch off and delete recurring runs; their own runs go on.

    Returns:
        Those that are still there, switched off, as this server would end their runs with them.
    """
    for one in old:
        if one.on:
            with suppress(NotFoundError):  # somebody else was quicker, here and below
                switch(backend, one, on=False)
    if any(_may_have_started(one, _runs(backend, one)) for one in old):
        with console.status("waiting until a run that may just have started is on record"):
            time.sleep(GRACE)
    busy = [one for one in old if any(goes_on(run) for run in _runs(backend, one))]
    left = busy if busy and not _leaves_runs(backend) else []
    for one in old:
        if one not in left:
            _delete(backend, one)
    return left


def _may_have_started(one: Ours, runs: Iterable[Any]) -> bool:
    """Say whether it may have a run that is not on record: when one was due, or another made room for it."""
    now = datetime.now(UTC)
    cron = Cron.parse(one.mark.schedule["cron"])
    due = cron.fires((now - RECENTLY).astimezone(ZoneInfo(one.mark.schedule["time_zone"])), 1)
    ends = [run.finished_at for run in runs if run.finished_at and not goes_on(run)]
    return any(at < now + RECENTLY for at in due) or any(at > now - RECENTLY for at in ends)


def _runs(backend: Backend, one: Ours) -> list[Any]:
    page = backend.runs.run_service_list_runs(
        experiment_id=one.run.experiment_id,
        page_size=LATEST,
        sort_by="created_at desc",
        filter=equals("recurring_run_id", one.id),
    )
    return list(page.runs or ())


def _leaves_runs(backend: Backend) -> bool:
    """Say whether the server can leave runs alone: then it reads the word before it looks for the thing."""
    try:
        backend.recurring_runs.recurring_run_service_delete_recurring_run(NOBODY, propagation_policy="NONE")
    except NotFoundError:
        return False
    except BackendError as error:
        return "propagation_policy" in str(error)
    return False


def _delete(backend: Backend, one: Ours) -> None:
    with suppress(NotFoundError):
        backend.recurring_runs.recurring_run_service_delete_recurring_run(one.id, propagation_policy="ORPHAN")
