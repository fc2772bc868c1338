"""Find, list and cancel runs on the server; read their Workflows and logs.

The Workflow and the logs outlive the pods. v2beta1 has neither: the Workflow is in the run of v1beta1, a
log at a path without a generated client. Existing pods have more details.
"""

import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from pydantic import ValidationError

from modelyard.components.errors import BackendError, ClusterError, NotFoundError
from modelyard.components.explain.kfp_run import Evidence
from modelyard.components.explain.workflow import PodNode, Workflow
from modelyard.components.kubernetes.cluster import Cluster, connect
from modelyard.components.store.settings import Store
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.base import check_not_ended
from modelyard.pipelines.runners.kfp.client import (
    PAGE_SIZE,
    Backend,
    equals_filter,
    find_experiment,
    list_items,
)
from modelyard.pipelines.steps import deploy_spec

ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LOG_ERROR = '{"error_message":'  # the server answers 200 before it looks for the log
PAUSE, LOG_PAUSE = (
    2.0,
    5.0,
)  # seconds between two polls of a run, and of a log, which is always sent completely


def find_run(backend: Backend, name_or_id: str) -> Any:
    """Return a run by its ID, or the latest run with its name.

    Raises:
        NotFoundError: there is none.
        BackendError: the server does not answer.
    """
    run_id = name_or_id
    if not ID.fullmatch(name_or_id):
        page = backend.runs.run_service_list_runs(
            page_size=1,
            sort_by="created_at desc",
            filter=equals_filter("display_name", name_or_id),
            **backend.scoped(),
        )
        run_id = page.runs[0].run_id if page.runs else ""
    try:
        if run_id:
            return backend.runs.run_service_get_run(run_id)
    except NotFoundError:
        pass
    raise NotFoundError(
        f"There is no run {name_or_id!r} at {backend.endpoint}; it may have been deleted. `modelyard runs "
        "list` shows the existing runs."
    )


def list_runs(backend: Backend, model: str | None, limit: int) -> list[Any]:
    """Return the latest runs of the server, newest first.

    Args:
        backend: the server.
        model: only runs of this model.
        limit: maximum number of runs.

    Raises:
        NotFoundError: the model has no experiment on the server.
    """
    options = backend.scoped()
    if model:
        experiment = find_experiment(backend, model)
        if experiment is None:
            raise NotFoundError(
                f"There is no run of {model!r} at {backend.endpoint}. `modelyard submit` starts one."
            )
        options = {"experiment_id": experiment.experiment_id}
    list_, size = backend.runs.run_service_list_runs, min(limit, PAGE_SIZE)
    return list(
        islice(list_items(list_, "runs", page_size=size, sort_by="created_at desc", **options), limit)
    )


def duration(run: Any) -> float:
    """Return the seconds of a run, until its end or until now."""
    ended = run.finished_at if run.finished_at and run.finished_at.year > 1970 else None
    seconds: float = ((ended or datetime.now(UTC)) - run.created_at).total_seconds()
    return round(seconds, 1)


def state(run: Any) -> str:
    """Return the state of a run as one word. A terminated run is cancelled; the server says failed."""
    now = _normalize_state(run.state)
    past = [_normalize_state(one.state) for one in run.state_history or ()]
    for before in reversed(past) if now == "failed" else ():
        if before == "running":  # it was retried after that
            break
        if before in ("cancelling", "cancelled"):
            return "cancelled"
    return now


def _normalize_state(state: str | None) -> str:
    return (state or "pending").lower().replace("cancel", "cancell")


def model_and_store(run: Any, environment: Environment) -> tuple[str, Store]:
    """Return a run's model and its store as this machine reaches it.

    Only these arguments are read, as another version of modelyard may have started the run.
    """
    parameters = (run.runtime_config.parameters if run.runtime_config else None) or {}
    deploy = deploy_spec(parameters)
    try:
        return deploy["name"], environment.for_this_machine(Store.model_validate(deploy["store"]))
    except (KeyError, ValidationError) as error:
        raise BackendError(
            f"The run {run.display_name} has no model and store in its arguments: `modelyard submit` did "
            "not start it, and it cannot be followed. `modelyard explain` shows its state."
        ) from error


def last_start_time(run: Any) -> str:
    """Return when a run started or was last retried, as ISO 8601 in UTC."""
    running = [one.update_time for one in run.state_history or () if _normalize_state(one.state) == "running"]
    began: datetime = max([run.created_at, *filter(None, running)])
    return began.astimezone(UTC).isoformat(timespec="milliseconds")


def cancel(backend: Backend, run: Any) -> None:
    """Cancel a run; its exit task does not run.

    Raises:
        ConfigError: it has ended already.
    """
    check_not_ended(run.display_name, state(run))
    backend.runs.run_service_terminate_run(run.run_id)


class RunArchive:
    """The Workflow, pods and logs of a run, for `modelyard.components.explain`.

    Attributes:
        cluster: the cluster with the namespace of the pods; None once a request to it has failed.
    """

    def __init__(self, backend: Backend, run_id: str) -> None:
        self._backend, self._run_id = backend, run_id
        self.cluster: Cluster | None = None
        with suppress(ClusterError):
            self.cluster = connect(backend.namespace)

    def workflow(self) -> Workflow:
        """Return the last reported Workflow; it has no nodes before the first report.

        Raises:
            NotFoundError: the run was deleted.
            BackendError: the server does not answer.
        """
        found = json.loads(self._backend.get_text(f"/apis/v1beta1/runs/{self._run_id}"))
        manifest = found.get("pipeline_runtime", {}).get("workflow_manifest")
        return Workflow(json.loads(manifest) if manifest else {"metadata": {"name": ""}})

    def log(self, node: PodNode) -> Sequence[str]:
        """Return the log of a pod; empty when the log no longer exists."""
        try:
            text = self._backend.get_text(f"/apis/v1alpha1/runs/{self._run_id}/nodes/{node.pod}/log")
        except NotFoundError:
            return []
        return _without_error(text).splitlines()

    def evidence(self, node: PodNode) -> Evidence:
        """Return the pod, its log and events, as far as they exist."""
        waits, pod = node.phase == "Pending", None
        try:
            pod = self.cluster.get("Pod", node.pod) if self.cluster else None
        except ClusterError:
            self.cluster = None
        if self.cluster is None or pod is None:
            return Evidence(node, self.log(node))
        log = [] if waits else self.log(node)
        return Evidence(node, log, pod, self.cluster.list_events(pod), self.cluster.nodes if waits else [])

    def logs(self, steps: Sequence[str], follow: bool = False) -> Iterator[tuple[str, Iterator[str]]]:
        """Yield the started attempts of steps with their log lines.

        Args:
            steps: names of the steps.
            follow: wait for new lines until the run or the steps have ended.
        """
        seen: set[str] = set()
        while True:
            workflow = self.workflow()
            for node in workflow.pods():
                begun = not node.driver and node.phase != "Pending"
                if begun and node.step in steps and node.pod not in seen:
                    seen.add(node.pod)
                    yield node.step, self._follow_log(node) if follow else iter(self.log(node))
            ended = (workflow.cached(step) or _succeeded(workflow.step_pod(step)) for step in steps)
            if not follow or workflow.ended or all(ended):
                return
            time.sleep(PAUSE)

    def _follow_log(self, node: PodNode) -> Iterator[str]:
        lines = 0
        while True:
            pods = {one.pod: one.phase for one in self.workflow().pods()}  # read before the log
            found = self.log(node)
            yield from found[lines:]
            lines = max(lines, len(found))
            if pods.get(node.pod) not in ("Pending", "Running"):
                return
            time.sleep(LOG_PAUSE)


def _without_error(log: str) -> str:
    """Return a log without the error that the server appends; unlike output of a step, it has no line end."""
    written, begin, rest = log.rpartition(LOG_ERROR)
    with suppress(ValueError):
        if begin and not rest.endswith("\n") and json.loads(begin + rest):
            return written
    return log


def _succeeded(node: PodNode | None) -> bool:
    return node is not None and node.phase == "Succeeded"
