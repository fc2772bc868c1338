"""Runs as the server records them: found by id or name, listed, ended, tried again."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal, NamedTuple

from modelyard.components.errors import BackendError, NotFoundError
from modelyard.pipelines.runners.kfp.client import Backend
from modelyard.pipelines.runners.kfp.lookup import equals, find_experiment
from modelyard.pipelines.runners.kfp.pages import SIZE, pages

ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
State = Literal["pending", "running", "succeeded", "failed", "cancelling", "cancelled", "skipped", "paused"]
STATES: dict[str | None, State] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "CANCELING": "cancelling",
    "CANCELED": "cancelled",
    "SKIPPED": "skipped",
    "PAUSED": "paused",
}
ENDED = ("succeeded", "failed", "cancelled", "skipped")


class RunRecord(NamedTuple):
    """A run in short; times in UTC, `seconds` until now when it has not ended."""

    name: str
    id: str
    state: State
    created_at: datetime
    finished_at: datetime | None
    seconds: float
    schedule: str | None

    def json(self) -> dict[str, Any]:
        """Return it as JSON."""
        times = {"created_at": self.created_at, "finished_at": self.finished_at}
        return {**self._asdict(), **{key: time and time.isoformat() for key, time in times.items()}}


def find(backend: Backend, name_or_id: str) -> Any:
    """Return a run by its id, or the latest of its name.

    Raises:
        NotFoundError: there is none.
        BackendError: the server does not answer.
    """
    if ID.fullmatch(name_or_id):
        return get(backend, name_or_id)
    page = backend.runs.run_service_list_runs(
        page_size=1,
        sort_by="created_at desc",
        filter=equals("display_name", name_or_id),
        **backend.scoped(),
    )
    if not page.runs:
        raise _missing(backend, name_or_id)
    return get(backend, page.runs[0].run_id)


def get(backend: Backend, run_id: str) -> Any:
    """Return a run by its id.

    Raises:
        NotFoundError: there is none, or none any more.
    """
    try:
        return backend.runs.run_service_get_run(run_id)
    except NotFoundError as error:
        raise _missing(backend, run_id) from error


def latest(backend: Backend, model: str | None, limit: int) -> list[RunRecord]:
    """Return the latest runs, newest first.

    Args:
        backend: the server.
        model: only runs of this model.
        limit: how many at most.

    Raises:
        NotFoundError: the model has had no run there.
    """
    options = backend.scoped()
    if model:
        experiment = find_experiment(backend, model)
        if experiment is None:
            raise NotFoundError(
                f"There is no run of {model!r} at {backend.endpoint}. `modelyard submit` starts one."
            )
        options = {"experiment_id": experiment}
    return [record(run) for run in islice(runs(backend, size=min(limit, SIZE), **options), limit)]


def runs(backend: Backend, size: int = SIZE, **wanted: str) -> Iterator[Any]:
    """Yield runs as the server gives them, newest first, `size` at a time.

    Args:
        backend: the server.
        size: how many to ask for at once.
        wanted: which ones, such as `experiment_id`, or `backend.scoped()`.
    """
    list_ = backend.runs.run_service_list_runs
    return pages(list_, "runs", page_size=size, sort_by="created_at desc", **wanted)


def record(run: Any) -> RunRecord:
    """Return a run in short."""
    ended = run.finished_at if run.finished_at and run.finished_at.year > 1970 else None
    return RunRecord(
        name=run.display_name,
        id=run.run_id,
        state=state(run),
        created_at=run.created_at,
        finished_at=ended,
        seconds=round(((ended or datetime.now(UTC)) - run.created_at).total_seconds(), 1),
        schedule=run.recurring_run_id or None,
    )


def state(run: Any) -> State:
    """Return the state of a run in one word. One that was terminated is cancelled; the server says failed."""
    now = STATES.get(run.state, "pending")
    since = [STATES.get(one.state) for one in run.state_history or ()]
    for past in reversed(since) if now == "failed" else ():
        if past == "running":  # it was tried again after that
            break
        if past in ("cancelling", "cancelled"):
            return "cancelled"
    return now


def goes_on(run: Any) -> bool:
    """Say whether a run has not ended."""
    return state(run) not in ENDED


def cancel(backend: Backend, run: Any) -> None:
    """End a run that has not ended; its exit task does not run then.

    Raises:
        BackendError: it has ended already.
    """
    if (now := state(run)) in ENDED:
        raise BackendError(
            f"The run {run.display_name} {_ended(now)} already, and was left as it is. `modelyard runs list` "
            "shows what runs."
        )
    backend.runs.run_service_terminate_run(run.run_id)


def retry(backend: Backend, run: Any) -> None:
    """Start the failed steps of a run again; what succeeded stays.

    Raises:
        BackendError: it has not failed.
    """
    if (now := state(run)) not in ("failed", "cancelled"):
        what = _ended(now) if now in ENDED else f"is {now}"
        raise BackendError(
            f"The run {run.display_name} {what}, and only a failed or cancelled run can be tried again. "
            "`modelyard submit` starts another: what is done is cached."
        )
    backend.runs.run_service_retry_run(run.run_id)


def _ended(now: State) -> str:
    return now if now in ("succeeded", "failed") else f"was {now}"


def _missing(backend: Backend, name: str) -> NotFoundError:
    return NotFoundError(
        f"There is no run {name!r} at {backend.endpoint}; it may have been deleted. `modelyard runs list` "
        "shows which there are."
    )
