"""What keeps a pod from running, in a sentence, and whether waiting helps."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelyard.components.artifacts import Record
from modelyard.components.kubernetes.quantities import format_amount, format_bytes, number, pod_requests

PULLING = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
CREATING = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
HOPELESS = re.compile(r"not found|NotFound|denied|unauthorized|forbidden|invalid", re.IGNORECASE)
LAST_LINES = 5
# Seconds in which a cluster autoscaler says whether it makes a node: 30 on a small cluster, 60 on a large.
AUTOSCALER_ANSWERS = 60.0
NAMED = 3
ASIDE = re.compile(r"\.? (?:no new claims|preemption:)")  # what it says about other means


Json = dict[str, Any]
"""An object as the API server gives it."""


class PodProblem(Record):
    """What keeps a pod from running.

    `reason` is one word for programs, `message` a paragraph for people. `patience` is how long waiting may
    help, in seconds: 0 when it does not, None when only the caller can say.
    """

    reason: str
    message: str
    patience: float | None = None


def find_problem(
    pod: Json, events: Sequence[Json] = (), nodes: Sequence[Json] = (), used: float | None = None
) -> PodProblem | None:
    """Return what keeps a pod from running as it should, or None when nothing does.

    Args:
        pod: the pod.
        events: of the pod.
        nodes: of the cluster, to say what would fit; none when they may not be read.
        used: bytes of memory that its container was last seen to use.
    """
    if scheduled := _condition(pod, "PodScheduled", "False"):
        if scheduled.get("reason") == "Unschedulable":
            return unschedulable_problem(pod, scheduled.get("message", ""), events, nodes)
        return None
    for status in _statuses(pod):
        if found := _container_problem(pod, status, used):
            return found
    if pod["status"].get("phase") == "Failed":
        why = pod["status"].get("message") or pod["status"].get("reason") or "it does not say why"
        return PodProblem(reason="Failed", message=f"Pod {_name(pod)} failed: {why.rstrip('.')}.")
    return None


def is_ready(pod: Json) -> bool:
    """Say whether a pod takes requests: it is ready and is not being deleted."""
    return bool(_condition(pod, "Ready", "True")) and "deletionTimestamp" not in pod["metadata"]


def is_running(pod: Json) -> bool:
    """Say whether a pod's containers run, ready or not."""
    return all(
        "running" in status.get("state", {}) for status in pod["status"].get("containerStatuses", [{}])
    )


def count_restarts(pod: Json) -> int:
    """Return how often the pod's containers ended when they should have run."""
    return sum(
        status.get("restartCount", 0) + ("terminated" in status.get("state", {})) for status in _statuses(pod)
    )


def not_ready_problem(pod: Json, events: Sequence[Json], seconds: float) -> PodProblem:
    """Return that a running pod did not become ready in time, with what its probe met last."""
    probes = [event["message"] for event in events if event.get("reason") == "Unhealthy"]
    said = f": {probes[-1].strip().rstrip('.')}" if probes else ""
    return PodProblem(
        reason="NotReady",
        message=f"Pod {_name(pod)} runs and was not ready within {seconds:g} s{said}. Its log says what it "
        "does; give it more time (rollout.ready_timeout) if it is only slow.",
        patience=0.0,
    )


def _container_problem(pod: Json, status: Json, used: float | None) -> PodProblem | None:
    waiting = status.get("state", {}).get("waiting", {})
    reason, said = waiting.get("reason", ""), waiting.get("message", "")
    if reason in PULLING:
        return _image_problem(pod, status["image"], reason, said)
    if reason in CREATING:
        return PodProblem(
            reason=reason,
            message=f"Container {status['name']} of pod {_name(pod)} cannot be created: "
            f"{said.split(' (pod:')[0] or reason}. Correct the image or what its pod refers to.",
            patience=0.0,
        )
    ended = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated")
    if not ended or ended.get("exitCode") == 0:
        return None
    if ended.get("reason") == "OOMKilled":
        return _memory_problem(pod, status["name"], used)
    return _crash_problem(pod, status, ended, reason == "CrashLoopBackOff")


def _image_problem(pod: Json, image: str, reason: str, said: str) -> PodProblem:
    hopeless = reason in ("InvalidImageName", "ErrImageNeverPull") or bool(HOPELESS.search(said))
    cause = said.rsplit("desc = ", 1)[-1] or reason
    return PodProblem(
        reason="ImagePull",
        message=f"Image {image} of pod {_name(pod)} cannot be pulled: {cause.rstrip('.')}. Push it "
        "(`make images`), correct its reference, or let the node's account read the registry.",
        patience=0.0 if hopeless else None,
    )


def _memory_problem(pod: Json, container: str, used: float | None) -> PodProblem:
    containers = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    spec = next(one for one in containers if one["name"] == container)
    limit = spec.get("resources", {}).get("limits", {}).get("memory")
    allowed = f"its limit is {format_bytes(number(limit))}" if limit else "its node ran out of memory"
    seen = f", and it was last seen to use {format_bytes(used)}" if used else ""
    return PodProblem(
        reason="OOMKilled",
        message=f"Container {container} of pod {_name(pod)} was killed because it used too much memory: "
        f"{allowed}{seen}. Give it more memory, or a smaller model or batch.",
        patience=0.0,
    )


def _crash_problem(pod: Json, status: Json, ended: Json, looping: bool) -> PodProblem:
    lines = [line.strip() for line in ended.get("message", "").splitlines() if line.strip()]
    words = " | ".join(lines[-LAST_LINES:]).rstrip(".") or "it left no message"
    times = status.get("restartCount", 0) + ("terminated" in status.get("state", {}))
    often = "once" if times == 1 else f"{times} times"
    return PodProblem(
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


def unschedulable_problem(pod: Json, said: str, events: Sequence[Json], nodes: Sequence[Json]) -> PodProblem:
    """Return why a pod waits for a node.

    Args:
        pod: the pod.
        said: the scheduler's words.
        events: of the pod; an autoscaler's are among them.
        nodes: of the cluster; none when they may not be read.
    """
    asked = pod_requests(pod)
    request = _format_amounts(asked) or "nothing in particular"
    selector = pod["spec"].get("nodeSelector", {})
    place = f" on a node with {_format_labels(selector)}" if selector else ""
    begin = f"Pod {pod['metadata']['name']} cannot be scheduled: it asks for {request}{place}"
    reasons = {event.get("reason") for event in events}
    patience: float | None = AUTOSCALER_ANSWERS
    if "TriggeredScaleUp" in reasons:
        begin, patience = f"{begin}; a node is being made for it", None
    elif "NotTriggerScaleUp" in reasons:
        begin, patience = f"{begin}, and the autoscaler makes no node for it", 0.0
    message = f"{begin}. {_fitting(pod, asked, nodes)} The scheduler says: {ASIDE.split(said)[0]}."
    return PodProblem(reason="Unschedulable", message=message.strip(), patience=patience)


def explain_impossible(pod: Json, nodes: Sequence[Json]) -> str | None:
    """Return why none of the nodes could take a pod even if it were empty; None when one could.

    Args:
        pod: with what the scheduler looks at.
        nodes: of the cluster; of none, nothing is known.
    """
    asked = pod_requests(pod)
    if not nodes or any(_takes(node, pod, asked) for node in nodes):
        return None
    wants = _format_amounts(asked) or "nothing in particular"
    return f"{pod['metadata']['name']} asks for {wants}. {_fitting(pod, asked, nodes)}".rstrip(".")


def _takes(node: Json, pod: Json, asked: Mapping[str, float]) -> bool:
    labelled = pod["spec"].get("nodeSelector", {}).items() <= node["metadata"].get("labels", {}).items()
    enough = all(_has(node, resource) >= amount for resource, amount in asked.items())
    return labelled and enough and not _taints(node, pod)


def _fitting(pod: Json, asked: Mapping[str, float], nodes: Sequence[Json]) -> str:
    """Say which nodes there are for the pod, and what would fit on one."""
    if not nodes:
        return "Ask for less, or add a node that has it."
    selector = pod["spec"].get("nodeSelector", {})
    labelled = [node for node in nodes if selector.items() <= node["metadata"].get("labels", {}).items()]
    if not labelled:
        return f"None of the {len(nodes)} nodes has these labels. Add such a node, or correct the selector."
    open_to_it = [node for node in labelled if not _taints(node, pod)]
    if not open_to_it:
        taints = ", ".join(sorted({taint for node in labelled for taint in _taints(node, pod)}))
        return f"Each such node is tainted ({taints}). Tolerate the taint, or add a node without it."
    largest = {r: max(_has(node, r) for node in open_to_it) for r in asked}
    named = ", ".join(node["metadata"]["name"] for node in open_to_it[:NAMED])
    named += f" and {len(open_to_it) - NAMED} more" if len(open_to_it) > NAMED else ""
    if any(all(_has(node, r) >= amount for r, amount in asked.items()) for node in open_to_it):
        return f"It would fit on an empty {named}, but others use it. Free some, or add a node."
    most = _format_amounts(largest)
    return f"At most {most} fit on an empty node ({named}). Ask for less, or add a larger node."


def _has(node: Json, resource: str) -> float:
    return number(node["status"].get("allocatable", {}).get(resource, "0"))


def _taints(node: Json, pod: Json) -> list[str]:
    """Return the taints of a node that keep the pod away."""
    tolerations = pod["spec"].get("tolerations", [])
    return [
        f"{taint['key']}={taint.get('value', '')}:{taint['effect']}"
        for taint in node["spec"].get("taints", [])
        if taint["effect"] != "PreferNoSchedule" and not any(_tolerates(one, taint) for one in tolerations)
    ]


def _tolerates(toleration: Json, taint: Json) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("key") not in (None, "", taint["key"]):
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")


def _format_amounts(amounts: Mapping[str, float]) -> str:
    return " and ".join(format_amount(resource, amount) for resource, amount in sorted(amounts.items()))


def _format_labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
