"""The pod of a step: made of the compiled pipeline, as KFP's driver makes it, and followed to its end."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
RUN = "modelyard.dev/run"
STEP_PODS = f"app.kubernetes.io/component=step,{RUN}"
"""Selects the pods of all runs."""
PAUSE, MEMORY_PAUSE = 0.3, 3.0
LAST_LINES = 100
NOT_RETRYABLE = (StuckError, OutOfMemoryError, DeadlineError)


class PodFailedError(ClusterError):
    """A pod failed, or cannot start; `failure` is the record of why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    @property
    def is_retryable(self) -> bool:
        """Whether another attempt may end better."""
        return not issubclass(type(self.failure.to_error()), NOT_RETRYABLE)


def create_step_pod(compiled: tuple[Json, Json], step: str, environment: Environment) -> Json:
    """Return the pod of a step, without a name, a command and artifacts.

    Args:
        compiled: the two documents of the compiled pipeline: its specification, and its platform's.
        step: the step's name.
        environment: where it runs.
    """
    pipeline, platform = compiled
    container = pipeline["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{step}"]
    made: Json = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    made["metadata"]["labels"].update(settings["podMetadata"]["labels"])
    spec = made["spec"]
    spec["serviceAccountName"] = environment.runs.service_account
    spec["automountServiceAccountToken"] = STEPS[step].kubernetes
    spec["activeDeadlineSeconds"] = int(settings.get("activeDeadlineSeconds", environment.active_deadline))
    spec["securityContext"].update(_user(settings["securityContext"]))
    spec["nodeSelector"] = settings.get("nodeSelector", {}).get("labels", {})
    spec["tolerations"] = settings.get("tolerations", [])
    for mount in settings["emptyDirMounts"]:
        volume = next(one for one in spec["volumes"] if one["name"] == mount["volumeName"])
        volume["emptyDir"] = {"sizeLimit": mount["sizeLimit"]} if "sizeLimit" in mount else {}
    (fetch, main), (put,) = spec["initContainers"], spec["containers"]
    artifacts = find_storage(environment.artifact_store().url, "environment.pipeline_root")
    for one in (*spec["initContainers"], *spec["containers"]):
        tmp, mount = one["volumeMounts"]
        one["volumeMounts"] = [tmp, {**mount, "mountPath": artifacts.mount}]
    fetch["image"] = put["image"] = environment.image(STAGING_IMAGE)
    main.update(image=container["image"], env=container.get("env", []), resources=_resources(container))
    return made


def _user(settings: Json) -> Json:
    """Return the security context of the pod; the volumes belong to its group."""
    user, group = int(settings["runAsUser"]), int(settings["runAsGroup"])
    return {"runAsUser": user, "runAsGroup": group, "fsGroup": group, "runAsNonRoot": True}


def _resources(container: Json) -> Json:
    asked = container.get("resources", {})
    accelerator = asked.get("accelerator", {})
    requests = {"cpu": asked.get("resourceCpuRequest"), "memory": asked.get("resourceMemoryRequest")}
    limits = {"memory": asked.get("resourceMemoryLimit")}
    if accelerator:
        limits[accelerator["resourceType"]] = accelerator["resourceCount"]
    sizes = {"requests": requests, "limits": limits}
    return {kind: {name: size for name, size in amounts.items() if size} for kind, amounts in sizes.items()}


def print_line(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201


def run_pod(
    cluster: Cluster,
    pod: Json,
    start_timeout: float,
    on_line: Callable[[str], None] = print_line,
    on_wait: Callable[[str], None] = print_line,
) -> str:
    """Create a pod, show what its step prints, remove it; return the step's termination message.

    Args:
        cluster: with the pod's namespace.
        pod: the pod; see step.yaml.
        start_timeout: seconds that it may wait for what may still come, such as a node.
        on_line: takes each line of its log.
        on_wait: is told what keeps it from starting.

    Raises:
        ClusterError: it is refused.
        PodFailedError: it cannot run, was stopped, or its step failed.
    """
    name, step = pod["metadata"]["name"], pod["metadata"]["labels"]["modelyard.dev/step"]
    if not cluster.apply(pod, FIELD_MANAGER):
        raise ClusterError(f"The pod {name} was made by somebody else meanwhile. Run it again.")
    messages = []
    log: deque[str] = deque(maxlen=LAST_LINES)

    def handle_line(line: str) -> None:
        log.append(line)
        on_line(line)

    try:
        for container in (STEP, "put"):
            started = _wait_for_start(cluster, name, step, container, start_timeout, on_wait)
            with sample_memory(cluster, started, container) as last_use:
                ended = _show_log(cluster, name, step, container, handle_line)
            if ended["exitCode"]:
                seen = _get(cluster, name, step)
                raise PodFailedError(pod_failure(step, seen, log=log, used_memory=last_use()))
            messages.append(str(ended.get("message", "")))
        return messages[0]
    finally:
        remove_pod(cluster, name)


def remove_pod(cluster: Cluster, name: str) -> None:
    """Delete a pod, whatever its state."""

    def delete() -> bool | None:
        seen = cluster.get("Pod", name)
        if seen is None or "deletionTimestamp" in seen["metadata"]:
            return True
        return cluster.delete("Pod", seen) or None

    retry_on_conflict(f"Pod {name}", delete)


def list_active_runs(environment: Environment) -> Iterator[str]:
    """Yield the runs whose steps are at work as pods, also of other machines."""
    for pod in connect(environment.runs.namespace).list_objects("Pod", STEP_PODS):
        if pod["status"].get("phase") not in ("Succeeded", "Failed"):
            yield pod["metadata"]["labels"][RUN]


def remove_pods(cluster: Cluster, run: str) -> bool:
    """Remove the pods of a run that nothing leads any more; say whether there were any.

    Raises:
        ClusterError: the cluster does not answer; the next run removes them.
    """
    found = cluster.list_objects("Pod", labels=f"{STEP_PODS}={run}")
    for pod in found:
        remove_pod(cluster, pod["metadata"]["name"])
    return bool(found)


def _wait_for_start(
    cluster: Cluster,
    name: str,
    step: str,
    container: str,
    start_timeout: float,
    on_wait: Callable[[str], None],
) -> Json:
    """Return the pod when a container has started.

    Raises:
        PodFailedError: it cannot start, or one before it failed.
    """
    since: dict[str, float] = {}
    while True:
        pod = _get(cluster, name, step)
        if _has_started(_states(pod).get(container, {})):
            return pod
        if pod["status"].get("phase") == "Failed":
            raise PodFailedError(pod_failure(step, pod))
        now = time.monotonic()
        found = find_problem(pod, cluster.list_events(pod), cluster.nodes)
        if found and found.reason not in since:
            on_wait(found.message)
        waited = now - since.setdefault(found.reason if found else "", now)
        limit = (
            start_timeout if not found or found.wait_limit is None else min(start_timeout, found.wait_limit)
        )
        if found and waited >= limit:
            stuck = find_start_error(step, found, None) or StuckError(found.message)
            raise PodFailedError(Failure.from_error(stuck, step))
        if not found and waited > start_timeout and not any(map(_has_started, _states(pod).values())):
            stuck = StuckError(
                f"The pod {name} did not start within {start_timeout:g} s, and Kubernetes does not say why. "
                f"`kubectl describe pods -n {cluster.namespace}` shows more."
            )
            raise PodFailedError(Failure.from_error(stuck, step))
        time.sleep(PAUSE)


def _show_log(cluster: Cluster, name: str, step: str, container: str, on_line: Callable[[str], None]) -> Json:
    """Show a container's log until it ends, and return its state then: exit code, termination message."""
    lines = 0
    while True:
        # asked before the log is read: what it printed between a cut of the stream and its end is read, too
        ended: Json | None = _states(_get(cluster, name, step))[container].get("terminated")
        for line in cluster.stream_log(name, container, skip=lines, ended=bool(ended)):
            on_line(line)
            lines += 1
        if ended:
            return ended
        time.sleep(PAUSE)


def _get(cluster: Cluster, name: str, step: str) -> Json:
    if pod := cluster.get("Pod", name):
        return pod
    raise PodFailedError(Failure.from_error(pod_deleted_error(step), step))


def _states(pod: Json) -> dict[str, Json]:
    """Return the state of each container of which there is one."""
    status = pod["status"]
    every = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return {one["name"]: one["state"] for one in every}


def _has_started(state: Json) -> bool:
    return "running" in state or "terminated" in state


@contextmanager
def sample_memory(cluster: Cluster, pod: Json, container: str) -> Iterator[Callable[[], float | None]]:
    """Sample a container's memory during a block; yield a function that returns the bytes last seen, if any.

    When a container was killed, Kubernetes does not say how much it used.

    Args:
        cluster: with the pod's namespace.
        pod: the pod, on its node.
        container: which of its containers.
    """
    seen: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.is_set():
            try:
                used = cluster.read_memory_usage(pod, container)
            except ClusterError:
                return  # it may not be read, or the cluster is away: nothing depends on it
            seen[:] = [used] if used else seen
            ended.wait(MEMORY_PAUSE)

    threading.Thread(target=sample, name=f"memory of {container}", daemon=True).start()
    try:
        yield lambda: seen[-1] if seen else None
    finally:
        ended.set()
