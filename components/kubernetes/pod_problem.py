"""Why a pod does not run, and whether waiting helps."""

import re
from collections.abc import Iterator, Sequence

from modelyard.components.artifacts import Record
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.quantities import format_bytes, parse_quantity
from modelyard.components.kubernetes.scheduling import explain_unschedulable
from modelyard.components.records import Failure

OUT_OF_MEMORY = "OOMKilled"
PULL_REASONS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
)
CREATE_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
PERMANENT = re.compile(r"not found|NotFound|denied|unauthorized|forbidden|invalid", re.IGNORECASE)
MISSING_OBJECT = re.compile(
    r'(secret|configmap) "[^"]+" not found|references non-existent (secret|config) key: \S+'
)
SECRET_TIMEOUT = 30.0  # seconds; cert-manager may create it meanwhile
LOG_LINES = 5


class PodProblem(Record):
    """Why a pod does not run.

    `reason` is for programs, `message` for people. `wait_limit` is the number of seconds for which waiting
    may help: 0 if it does not, None if only the caller knows. `detail` describes the memory of a container
    that ran out of memory. `error` is the class of the error that the container recorded.
    """

    reason: str
    message: str
    wait_limit: float | None = None
    detail: str = ""
    error: str = ""


def find_problem(
    pod: Json, events: Sequence[Json] = (), nodes: Sequence[Json] = (), memory_used: float | None = None
) -> PodProblem | None:
    """Return why a pod does not run, or None if it runs.

    `nodes` are the nodes of the cluster, to compare with the pod's requests; empty without permission.
    `memory_used` is the last measured memory usage of its container in bytes.
    """
    if condition := _find_condition(pod, "PodScheduled", "False"):
        if condition.get("reason") == "Unschedulable":
            scheduler = condition.get("message", "")
            message, wait_limit = explain_unschedulable(pod, scheduler, events, nodes)
            return PodProblem(reason="Unschedulable", message=message, wait_limit=wait_limit)
        return None
    if pod["status"].get("phase") == "Pending" and (missing := _find_missing_secret(events)):
        message = f"Pod {_name(pod)} cannot start: {missing}. Create it, or correct its name."
        return PodProblem(reason="FailedMount", message=message, wait_limit=SECRET_TIMEOUT)
    for status in container_statuses(pod):
        if problem := _find_container_problem(pod, status, memory_used):
            return problem
    if pod["status"].get("phase") == "Failed":
        reason = pod["status"].get("message") or pod["status"].get("reason") or "no reason given"
        return PodProblem(reason="Failed", message=f"Pod {_name(pod)} failed: {reason.rstrip('.')}.")
    return None


def is_ready(pod: Json) -> bool:
    """Return whether a pod receives requests: it is ready and not terminating."""
    return bool(_find_condition(pod, "Ready", "True")) and "deletionTimestamp" not in pod["metadata"]


def is_running(pod: Json) -> bool:
    """Return whether all containers of a pod run, ready or not."""
    return all(
        "running" in status.get("state", {}) for status in pod["status"].get("containerStatuses", [{}])
    )


def count_restarts(pod: Json) -> int:
    """Return how often containers of a pod terminated, including the current termination."""
    return sum(
        status.get("restartCount", 0) + ("terminated" in status.get("state", {}))
        for status in container_statuses(pod)
    )


def describe_unready(pod: Json, events: Sequence[Json], seconds: float) -> str:
    """Return the message that a running pod was not ready in time, with the last probe failure."""
    probes = [event["message"] for event in events if event.get("reason") == "Unhealthy"]
    failure = f": {probes[-1].strip().rstrip('.')}" if probes else ""
    return (
        f"Pod {_name(pod)} was not ready within {seconds:g} s{failure}. See its log; raise "
        "rollout.ready_timeout if it only needs longer."
    )


def _find_missing_secret(events: Sequence[Json]) -> str | None:
    """Return the missing Secret, ConfigMap or key that the last failed mount names."""
    failures = [event["message"] for event in events if event.get("reason") == "FailedMount"][-1:]
    match = MISSING_OBJECT.search(failures[0]) if failures else None
    return match[0] if match else None


def _find_container_problem(pod: Json, status: Json, memory_used: float | None) -> PodProblem | None:
    waiting = status.get("state", {}).get("waiting", {})
    reason, status_message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in PULL_REASONS:
        return _describe_image_problem(pod, status["image"], reason, status_message)
    if reason in CREATE_REASONS:
        return PodProblem(
            reason=reason,
            message=f"Container {status['name']} of pod {_name(pod)} cannot be created: "
            f"{status_message.split(' (pod:')[0] or reason}. Correct the image, or the names of Secrets and "
            "ConfigMaps.",
            wait_limit=0.0,
        )
    end = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated")
    if not end or end.get("exitCode") == 0:
        return None
    if end.get("reason") == OUT_OF_MEMORY:
        return _describe_memory_problem(pod, status["name"], memory_used)
    return _describe_crash(pod, status, end, reason == "CrashLoopBackOff")


def _describe_image_problem(pod: Json, image: str, reason: str, status_message: str) -> PodProblem:
    permanent = reason in ("InvalidImageName", "ErrImageNeverPull") or bool(PERMANENT.search(status_message))
    cause = status_message.rsplit("desc = ", 1)[-1] or reason
    return PodProblem(
        reason="ImagePull",
        message=f"Image {image} of pod {_name(pod)} cannot be pulled: {cause.rstrip('.')}. Push it "
        "(`make images`), correct the reference, or give the nodes access to the registry.",
        wait_limit=0.0 if permanent else None,
    )


def _describe_memory_problem(pod: Json, container: str, memory_used: float | None) -> PodProblem:
    containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    spec = next(item for item in containers if item["name"] == container)
    limit = spec.get("resources", {}).get("limits", {}).get("memory")
    cause = f"its limit is {format_bytes(parse_quantity(limit))}" if limit else "its node ran out of memory"
    usage = f", and it last used {format_bytes(memory_used)}" if memory_used else ""
    return PodProblem(
        reason=OUT_OF_MEMORY,
        message=f"Container {container} of pod {_name(pod)} was killed because it used too much memory: "
        f"{cause}{usage}. Give it more memory, or use a smaller model or batch.",
        wait_limit=0.0,
        detail=f"{cause}{usage}",
    )


def _describe_crash(pod: Json, status: Json, end: Json, looping: bool) -> PodProblem:
    record = Failure.parse(end.get("message", ""))
    log_message = record.message if record else end.get("message", "")
    lines = [line.strip() for line in log_message.splitlines() if line.strip()]
    log_end = " | ".join(lines[-LOG_LINES:]).rstrip(".") or "nothing"
    times = status.get("restartCount", 0) + ("terminated" in status.get("state", {}))
    frequency = "once" if times == 1 else f"{times} times, last"
    return PodProblem(
        reason="CrashLoopBackOff" if looping else "Crashed",
        message=f"Container {status['name']} of pod {_name(pod)} ended {frequency} with exit code "
        f"{end['exitCode']}. Its log ends with: {log_end}.",
        error=record.kind if record else "",
    )


def container_statuses(pod: Json) -> Iterator[Json]:
    """Yield the statuses of the containers of a pod, init containers first."""
    for kind in ("initContainerStatuses", "containerStatuses"):
        yield from pod["status"].get(kind, [])


def _find_condition(pod: Json, kind: str, status: str) -> Json | None:
    conditions = pod["status"].get("conditions", [])
    return next((item for item in conditions if item["type"] == kind and item["status"] == status), None)


def _name(pod: Json) -> str:
    return str(pod["metadata"]["name"])
