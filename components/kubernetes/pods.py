"""What a pod's state means in plain words."""

import re
from collections.abc import Iterator, Sequence

from modelyard.components.kubernetes.quantities import number, size
from modelyard.components.kubernetes.scheduling import unschedulable
from modelyard.components.kubernetes.trouble import Json, Trouble

PULLING = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
CREATING = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
HOPELESS = re.compile(r"not found|NotFound|denied|unauthorized|forbidden|invalid", re.IGNORECASE)
LAST_LINES = 5


def trouble(
    pod: Json, events: Sequence[Json] = (), nodes: Sequence[Json] = (), used: float | None = None
) -> Trouble | None:
    """Return what keeps a pod from running as it should, or None when nothing does.

    Args:
        pod: the pod.
        events: of the pod.
        nodes: of the cluster, to say what would fit; none when they may not be read.
        used: bytes of memory that its container was last seen to use.
    """
    if scheduled := _condition(pod, "PodScheduled", "False"):
        if scheduled.get("reason") == "Unschedulable":
            return unschedulable(pod, scheduled.get("message", ""), events, nodes)
        return None
    for status in _statuses(pod):
        if found := _container_trouble(pod, status, used):
            return found
    if pod["status"].get("phase") == "Failed":
        why = pod["status"].get("message") or pod["status"].get("reason") or "it does not say why"
        return Trouble(reason="Failed", message=f"Pod {_name(pod)} failed: {why.rstrip('.')}.")
    return None


def ready(pod: Json) -> bool:
    """Say whether a pod takes requests: it is ready and is not being deleted."""
    return bool(_condition(pod, "Ready", "True")) and "deletionTimestamp" not in pod["metadata"]


def running(pod: Json) -> bool:
    """Say whether a pod's containers run, ready or not."""
    return all(
        "running" in status.get("state", {}) for status in pod["status"].get("containerStatuses", [{}])
    )


def restarts(pod: Json) -> int:
    """Return how often the pod's containers ended when they should have run."""
    return sum(
        status.get("restartCount", 0) + ("terminated" in status.get("state", {})) for status in _statuses(pod)
    )


def unready(pod: Json, events: Sequence[Json], seconds: float) -> Trouble:
    """Return that a running pod did not become ready in time, with what its probe met last."""
    probes = [event["message"] for event in events if event.get("reason") == "Unhealthy"]
    said = f": {probes[-1].strip().rstrip('.')}" if probes else ""
    return Trouble(
        reason="NotReady",
        message=f"Pod {_name(pod)} runs and was not ready within {seconds:g} s{said}. Its log says what it "
        "does; give it more time (rollout.ready_timeout) if it is only slow.",
        patience=0.0,
    )


def _container_trouble(pod: Json, status: Json, used: float | None) -> Trouble | None:
    waiting = status.get("state", {}).get("waiting", {})
    reason, said = waiting.get("reason", ""), waiting.get("message", "")
    if reason in PULLING:
        return _image_trouble(pod, status["image"], reason, said)
    if reason in CREATING:
        return Trouble(
            reason=reason,
            message=f"Container {status['name']} of pod {_name(pod)} cannot be created: "
            f"{said.split(' (pod:')[0] or reason}. Correct the image or what its pod refers to.",
            patience=0.0,
        )
    ended = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated")
    if not ended or ended.get("exitCode") == 0:
        return None
    if ended.get("reason") == "OOMKilled":
        return _memory_trouble(pod, status["name"], used)
    return _crash(pod, status, ended, reason == "CrashLoopBackOff")


def _image_trouble(pod: Json, image: str, reason: str, said: str) -> Trouble:
    hopeless = reason in ("InvalidImageName", "ErrImageNeverPull") or bool(HOPELESS.search(said))
    cause = said.rsplit("desc = ", 1)[-1] or reason
    return Trouble(
        reason="ImagePull",
        message=f"Image {image} of pod {_name(pod)} cannot be pulled: {cause.rstrip('.')}. Push it "
        "(`make images`), correct its reference, or let the node's account read the registry.",
        patience=0.0 if hopeless else None,
    )


def _memory_trouble(pod: Json, container: str, used: float | None) -> Trouble:
    containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    spec = next(one for one in containers if one["name"] == container)
    limit = spec.get("resources", {}).get("limits", {}).get("memory")
    allowed = f"its limit is {size(number(limit))}" if limit else "its node ran out of memory"
    seen = f", and it was last seen to use {size(used)}" if used else ""
    return Trouble(
        reason="OOMKilled",
        message=f"Container {container} of pod {_name(pod)} was killed because it used too much memory: "
        f"{allowed}{seen}. Give it more memory, or a smaller model or batch.",
        patience=0.0,
    )


def _crash(pod: Json, status: Json, ended: Json, looping: bool) -> Trouble:
    lines = [line.strip() for line in ended.get("message", "").splitlines() if line.strip()]
    words = " | ".join(lines[-LAST_LINES:]).rstrip(".") or "it left no message"
    times = status.get("restartCount", 0) + ("terminated" in status.get("state", {}))
    often = "once" if times == 1 else f"{times} times"
    return Trouble(
        reason="CrashLoopBackOff" if looping else "Crashed",
        message=f"Container {status['name']} of pod {_name(pod)} ended {often}, last with exit code "
        f"{ended['exitCode']}. Its last words: {words}.",
    )


def _statuses(pod: Json) -> Iterator[Json]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        yield from pod["status"].get(kind, [])


def _condition(pod: Json, kind: str, status: str) -> Json | None:
    conditions = pod["status"].get("conditions", [])
    return next((one for one in conditions if one["type"] == kind and one["status"] == status), None)


def _name(pod: Json) -> str:
    return str(pod["metadata"]["name"])
