"""Creates the pod of a step from the compiled pipeline, as KFP's driver does, and follows it to its end."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path

import yaml

from modelyard.components.errors import ClusterError, DeadlineError, OutOfMemoryError, StuckError
from modelyard.components.explain.failure import find_start_error, pod_deleted_error, pod_failure
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.cluster import Cluster, connect, retry_on_conflict
from modelyard.components.kubernetes.pod_problem import find_problem
from modelyard.components.records import Failure
from modelyard.components.store.storage import find_storage
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.steps import STAGING_IMAGE, STEPS

TEMPLATE = Path(__file__).parent / "step.yaml"
FIELD_MANAGER = "modelyard-run"
STEP = "step"
RUN_LABEL = "modelyard.dev/run"
STEP_PODS = f"app.kubernetes.io/component=step,{RUN_LABEL}"
"""Selects the pods of all runs."""
PAUSE, MEMORY_PAUSE = 0.3, 3.0
LAST_LINES = 100
NOT_RETRYABLE = (StuckError, OutOfMemoryError, DeadlineError)


class PodFailedError(ClusterError):
    """A pod failed or cannot start; `failure` has the reason."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    @property
    def is_retryable(self) -> bool:
        """Whether another attempt may succeed."""
        return not issubclass(type(self.failure.to_error()), NOT_RETRYABLE)


def create_step_pod(compiled_pipeline: tuple[Json, Json], step: str, environment: Environment) -> Json:
    """Return the pod of a step in a pipeline of `parse_package`, without its name, commands and artifacts."""
    pipeline, platform = compiled_pipeline
    container = pipeline["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{step}"]
    pod: Json = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    pod["metadata"]["labels"].update(settings["podMetadata"]["labels"])
    spec = pod["spec"]
    spec["serviceAccountName"] = environment.runs.service_account
    spec["automountServiceAccountToken"] = STEPS[step].uses_kubernetes
    spec["activeDeadlineSeconds"] = int(settings.get("activeDeadlineSeconds", environment.active_deadline))
    user, group = (int(settings["securityContext"][key]) for key in ("runAsUser", "runAsGroup"))
    spec["securityContext"].update(runAsUser=user, runAsGroup=group, fsGroup=group, runAsNonRoot=True)
    spec["nodeSelector"] = settings.get("nodeSelector", {}).get("labels", {})
    spec["tolerations"] = settings.get("tolerations", [])
    for mount in settings["emptyDirMounts"]:
        volume = next(volume for volume in spec["volumes"] if volume["name"] == mount["volumeName"])
        volume["emptyDir"] = {"sizeLimit": mount["sizeLimit"]} if "sizeLimit" in mount else {}
    (fetch, main), (put,) = spec["initContainers"], spec["containers"]
    artifacts = find_storage(environment.artifact_store().url, "environment.pipeline_root")
    for pod_container in (fetch, main, put):
        tmp, mount = pod_container["volumeMounts"]
        pod_container["volumeMounts"] = [tmp, {**mount, "mountPath": artifacts.mount}]
    fetch["image"] = put["image"] = environment.image(STAGING_IMAGE)
    main.update(
        image=container["image"], env=container.get("env", []), resources=_convert_resources(container)
    )
    return pod


def _convert_resources(container: Json) -> Json:
    """Return the resources of a container of KFP as those of Kubernetes."""
    values = container.get("resources", {})
    requests = {"cpu": values.get("resourceCpuRequest"), "memory": values.get("resourceMemoryRequest")}
    limits = {"memory": values.get("resourceMemoryLimit")}
    if accelerator := values.get("accelerator"):
        limits[accelerator["resourceType"]] = accelerator["resourceCount"]
    resources = {"requests": requests, "limits": limits}
    return {kind: {name: size for name, size in sizes.items() if size} for kind, sizes in resources.items()}


def print_line(line: str) -> None:
    """Print a line and flush."""
    print(line, flush=True)  # noqa: T201


def run_pod(
    cluster: Cluster,
    pod: Json,
    start_timeout: float,
    on_line: Callable[[str], None] = print_line,
    on_wait: Callable[[str], None] = print_line,
) -> str:
    """Create a pod, follow it to its end and delete it; return the termination message of its step.

    `start_timeout` is the maximum number of seconds to wait for a container to start. `on_line` is called
    with each line of the log, `on_wait` with each reason why the pod cannot start yet.

    Raises:
        ClusterError: the cluster rejects the pod.
        PodFailedError: the pod cannot start, was deleted, or its step failed.
    """
    name, step = pod["metadata"]["name"], pod["metadata"]["labels"]["modelyard.dev/step"]
    if not cluster.apply(pod, FIELD_MANAGER):
        raise ClusterError(f"The pod {name} already exists. Retry the run.")
    messages = []
    log: deque[str] = deque(maxlen=LAST_LINES)

    def handle_line(line: str) -> None:
        log.append(line)
        on_line(line)

    try:
        for container in (STEP, "put"):
            started = _wait_for_start(cluster, name, step, container, start_timeout, on_wait)
            with sample_memory(cluster, started, container) as last_usage:
                state = _follow_log(cluster, name, step, container, handle_line)
            if state["exitCode"]:
                ended = _get_pod(cluster, name, step)
                raise PodFailedError(pod_failure(step, ended, log=log, memory_used=last_usage()))
            messages.append(str(state.get("message", "")))
        return messages[0]
    finally:
        remove_pod(cluster, name)


def remove_pod(cluster: Cluster, name: str) -> None:
    """Delete a pod in any state."""

    def delete() -> bool | None:
        pod = cluster.get("Pod", name)
        if pod is None or "deletionTimestamp" in pod["metadata"]:
            return True
        return cluster.delete("Pod", pod) or None

    retry_on_conflict(f"Pod {name}", delete)


def list_active_runs(environment: Environment) -> Iterator[str]:
    """Yield the runs with active pods, including those of other machines."""
    for pod in connect(environment.runs.namespace).list_objects("Pod", STEP_PODS):
        if pod["status"].get("phase") not in ("Succeeded", "Failed"):
            yield pod["metadata"]["labels"][RUN_LABEL]


def remove_pods(cluster: Cluster, run: str) -> bool:
    """Delete the pods of a run whose parent process has ended; return whether there were any.

    Raises:
        ClusterError: the cluster does not respond; the next run deletes them.
    """
    pods = cluster.list_objects("Pod", labels=f"{STEP_PODS}={run}")
    for pod in pods:
        remove_pod(cluster, pod["metadata"]["name"])
    return bool(pods)


def _wait_for_start(
    cluster: Cluster,
    name: str,
    step: str,
    container: str,
    start_timeout: float,
    on_wait: Callable[[str], None],
) -> Json:
    """Return the pod when a container has started; raise PodFailedError if it cannot start."""
    first_seen: dict[str, float] = {}  # the time at which each reason was first seen
    while True:
        pod = _get_pod(cluster, name, step)
        states = _container_states(pod)
        if _has_started(states.get(container, {})):
            return pod
        if pod["status"].get("phase") == "Failed":
            raise PodFailedError(pod_failure(step, pod))
        now = time.monotonic()
        problem = find_problem(pod, cluster.list_events(pod), cluster.nodes)
        if problem and problem.reason not in first_seen:
            on_wait(problem.message)
        waited_seconds = now - first_seen.setdefault(problem.reason if problem else "", now)
        if problem:
            wait_limit = inf if problem.wait_limit is None else problem.wait_limit
            if waited_seconds >= min(start_timeout, wait_limit):
                error = find_start_error(step, problem, None) or StuckError(problem.message)
                raise PodFailedError(Failure.from_error(error, step))
        elif waited_seconds > start_timeout and not any(map(_has_started, states.values())):
            error = StuckError(
                f"The pod {name} did not start within {start_timeout:g} s, and Kubernetes reports no reason. "
                f"`kubectl describe pods -n {cluster.namespace}` shows more."
            )
            raise PodFailedError(Failure.from_error(error, step))
        time.sleep(PAUSE)


def _follow_log(
    cluster: Cluster, name: str, step: str, container: str, on_line: Callable[[str], None]
) -> Json:
    """Read the log of a container until it terminates, and return its terminated state."""
    lines = 0
    while True:
        # The state is read before the log, so that the last lines of an interrupted stream are not lost.
        state: Json | None = _container_states(_get_pod(cluster, name, step))[container].get("terminated")
        for line in cluster.stream_log(name, container, skip=lines, ended=bool(state)):
            on_line(line)
            lines += 1
        if state:
            return state
        time.sleep(PAUSE)


def _get_pod(cluster: Cluster, name: str, step: str) -> Json:
    if pod := cluster.get("Pod", name):
        return pod
    raise PodFailedError(Failure.from_error(pod_deleted_error(step), step))


def _container_states(pod: Json) -> dict[str, Json]:
    """Return the state of each container that has one, by name."""
    status = pod["status"]
    statuses = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return {container["name"]: container["state"] for container in statuses}


def _has_started(state: Json) -> bool:
    return "running" in state or "terminated" in state


@contextmanager
def sample_memory(cluster: Cluster, pod: Json, container: str) -> Iterator[Callable[[], float | None]]:
    """Sample the memory of a container during a block; yield a function that returns the last value in bytes.

    Kubernetes does not report the memory of a container that was killed.
    """
    usage: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.is_set():
            try:
                memory = cluster.read_memory_usage(pod, container)
            except ClusterError:
                return  # no permission, or no response; the run does not need it
            usage[:] = [memory] if memory else usage
            ended.wait(MEMORY_PAUSE)

    threading.Thread(target=sample, name=f"memory of {container}", daemon=True).start()
    try:
        yield lambda: usage[-1] if usage else None
    finally:
        ended.set()
