"""Finds, lists and cancels runs on the server; reads their Workflows and logs.

The server keeps Workflows and logs after the pods are deleted, but its API v2beta1 does not return them: the
Workflow is a field of the run in v1beta1, and a log has a path without a generated client. Pods that still
exist have more details.
"""

import json
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
from modelyard.pipelines.runners.base import KFP_RUN_ID, check_not_ended
from modelyard.pipelines.runners.kfp.client import (
    PAGE_SIZE,
    Backend,
    equals_filter,
    find_experiment,
    list_items,
)
from modelyard.pipelines.steps import deploy_spec

LOG_ERROR = '{"error_message":'  # of a missing log; the status of the response is 200
PAUSE = 2.0  # seconds between two polls of a run
LOG_PAUSE = 5.0  # seconds between two polls of a log; the server sends all lines each time


def find_run(backend: Backend, name_or_id: str) -> Any:
    """Return a run by its ID, or the latest run with its name.

    Raises:
        NotFoundError: there is no such run.
    """
    run_id = name_or_id
    if not KFP_RUN_ID.fullmatch(name_or_id):
        page = backend.runs.run_service_list_runs(
            page_size=1,
            sort_by="created_at desc",
            filter=equals_filter("display_name", name_or_id),
            **backend.scope_arguments(),
        )
        run_id = page.runs[0].run_id if page.runs else ""
    with suppress(NotFoundError):
        if run_id:
            return backend.runs.run_service_get_run(run_id)
    raise NotFoundError(
        f"There is no run {name_or_id!r} at {backend.endpoint}; it may have been deleted. `modelyard runs "
        "list` shows the existing runs."
    )


def list_runs(backend: Backend, model: str | None, limit: int) -> list[Any]:
    """Return the latest runs of a model, or of all models, newest first.

    Raises:
        NotFoundError: the model has no experiment on the server.
    """
    options: dict[str, Any] = backend.scope_arguments()
    if model:
        experiment = find_experiment(backend, model)
        if experiment is None:
            raise NotFoundError(
                f"There is no run of {model!r} at {backend.endpoint}. `modelyard submit` starts one."
            )
        options = {"experiment_id": experiment.experiment_id}
    options |= {"sort_by": "created_at desc", "page_size": min(limit, PAGE_SIZE)}
    return list(islice(list_items(backend.runs.run_service_list_runs, "runs", **options), limit))


def duration(run: Any) -> float:
    """Return the seconds of a run, until its end or until now."""
    ended = run.finished_at if run.finished_at and run.finished_at.year > 1970 else None
    seconds: float = ((ended or datetime.now(UTC)) - run.created_at).total_seconds()
    return round(seconds, 1)


def state(run: Any) -> str:
    """Return the state of a run: `cancelled` for a terminated run, which the server reports as failed."""
    current = _normalize_state(run.state)
    history = [_normalize_state(status.state) for status in run.state_history or ()]
    for earlier_state in reversed(history) if current == "failed" else ():
        if earlier_state == "running":  # the run was retried after it was cancelled
            break
        if earlier_state in ("cancelling", "cancelled"):
            return "cancelled"
    return current


def _normalize_state(state: str | None) -> str:
    return (state or "pending").lower().replace("cancel", "cancell")


def model_and_store(run: Any, environment: Environment) -> tuple[str, Store]:
    """Return the model and the store of a run, with the endpoint for this machine.

    No other arguments are read, because another version of modelyard may have started the run.

    Raises:
        BackendError: modelyard did not start the run.
    """
    deploy = deploy_spec(run_parameters(run))
    try:
        return deploy["name"], environment.for_this_machine(Store.model_validate(deploy["store"]))
    except (KeyError, ValidationError) as error:
        raise BackendError(
            f"The run {run.display_name} was not started by `modelyard submit`: its arguments have no model "
            "and store, so it cannot be followed. `modelyard explain` shows its state."
        ) from error


def run_parameters(run: Any) -> dict[str, Any]:
    """Return the arguments of a run or recurring run."""
    return (run.runtime_config.parameters if run.runtime_config else None) or {}


def last_start_time(run: Any) -> str:
    """Return when a run started or was last retried, as ISO 8601 in UTC."""
    history = run.state_history or ()
    times = [status.update_time for status in history if _normalize_state(status.state) == "running"]
    start_time: datetime = max([run.created_at, *filter(None, times)])
    return start_time.astimezone(UTC).isoformat(timespec="milliseconds")


def cancel(backend: Backend, run: Any) -> None:
    """Cancel a run; its exit task does not run.

    Raises:
        ConfigError: the run has already ended.
    """
    check_not_ended(run.display_name, state(run))
    backend.runs.run_service_terminate_run(run.run_id)


class RunArchive:
    """The Workflow, pods and logs of a run. `cluster` is None without access to the pods."""

    def __init__(self, backend: Backend, run_id: str) -> None:
        self._backend, self._run_id = backend, run_id
        self.cluster: Cluster | None = None
        with suppress(ClusterError):
            self.cluster = connect(backend.namespace)

    def workflow(self) -> Workflow:
        """Return the last reported Workflow; it has no nodes before the first report.

        Raises:
            NotFoundError: the run was deleted.
        """
        run = json.loads(self._backend.get_text(f"/apis/v1beta1/runs/{self._run_id}"))
        manifest = run.get("pipeline_runtime", {}).get("workflow_manifest")
        return Workflow(json.loads(manifest) if manifest else {"metadata": {"name": ""}})

    def log(self, node: PodNode) -> Sequence[str]:
        """Return the log of a pod; empty when the log no longer exists."""
        try:
            text = self._backend.get_text(f"/apis/v1alpha1/runs/{self._run_id}/nodes/{node.pod}/log")
        except NotFoundError:
            return []
        return _remove_error(text).splitlines()

    def evidence(self, node: PodNode) -> Evidence:
        """Return the pod, its log and events, as far as they exist."""
        pending, pod = node.phase == "Pending", None
        try:
            pod = self.cluster.get("Pod", node.pod) if self.cluster else None
        except ClusterError:
            self.cluster = None
        if self.cluster is None or pod is None:
            return Evidence(node, self.log(node))
        log = [] if pending else self.log(node)
        return Evidence(node, log, pod, self.cluster.list_events(pod), self.cluster.nodes if pending else [])

    def logs(self, steps: Sequence[str], follow: bool = False) -> Iterator[tuple[str, Iterator[str]]]:
        """Yield the started attempts of steps with their log lines; see `Run.logs`."""
        yielded_pods: set[str] = set()
        while True:
            workflow = self.workflow()
            for node in workflow.pods():
                started = not node.driver and node.phase != "Pending"
                if started and node.step in steps and node.pod not in yielded_pods:
                    yielded_pods.add(node.pod)
                    yield node.step, self._follow_log(node) if follow else iter(self.log(node))
            pods = {step: workflow.step_pod(step) for step in steps}
            ended = (
                workflow.cached(step) or (pod and pod.phase == "Succeeded") for step, pod in pods.items()
            )
            if not follow or workflow.ended or all(ended):
                return
            time.sleep(PAUSE)

    def _follow_log(self, node: PodNode) -> Iterator[str]:
        lines = 0
        while True:
            phases = {pod.pod: pod.phase for pod in self.workflow().pods()}  # read before the log
            log = self.log(node)
            yield from log[lines:]
            lines = max(lines, len(log))
            if phases.get(node.pod) not in ("Pending", "Running"):
                return
            time.sleep(LOG_PAUSE)


def _remove_error(log: str) -> str:
    """Return a log without the error that the server appends; unlike output of a step, it has no newline."""
    output, prefix, rest = log.rpartition(LOG_ERROR)
    with suppress(ValueError):
        if prefix and not rest.endswith("\n") and json.loads(prefix + rest):
            return output
    return log
