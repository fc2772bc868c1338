"""Which nodes could take a pod, and why none does."""

import re
from collections.abc import Mapping, Sequence

from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.quantities import format_amount, parse_quantity, pod_requests

# Seconds in which a cluster autoscaler says whether it makes a node: 30 on a small cluster, 60 on a large.
AUTOSCALER_TIMEOUT = 60.0
MAX_NAMES = 3
PREEMPTION_NOTE = re.compile(r"\.? (?:no new claims|preemption:)")  # what it says about other means


def explain_unschedulable(
    pod: Json, scheduler: str, events: Sequence[Json], nodes: Sequence[Json]
) -> tuple[str, float | None]:
    """Return why a pod waits for a node, and how many seconds waiting may help, as in `PodProblem`.

    Args:
        pod: the pod.
        scheduler: the scheduler's message.
        events: of the pod; an autoscaler's are among them.
        nodes: of the cluster; none when they may not be read.
    """
    requested = pod_requests(pod)
    request = _format_amounts(requested) or "nothing in particular"
    selector = pod["spec"].get("nodeSelector", {})
    place = f" on a node with {_format_labels(selector)}" if selector else ""
    beginning = f"Pod {pod['metadata']['name']} cannot be scheduled: it asks for {request}{place}"
    reasons = {event.get("reason") for event in events}
    wait_limit: float | None = AUTOSCALER_TIMEOUT
    if "TriggeredScaleUp" in reasons:
        beginning, wait_limit = f"{beginning}; a node is being made for it", None
    elif "NotTriggerScaleUp" in reasons:
        beginning, wait_limit = f"{beginning}, and the autoscaler makes no node for it", 0.0
    scheduler = PREEMPTION_NOTE.split(scheduler)[0]
    message = f"{beginning}. {_describe_fit(pod, requested, nodes)} The scheduler says: {scheduler}."
    return message.strip(), wait_limit


def explain_impossible(pod: Json, nodes: Sequence[Json]) -> str | None:
    """Return why none of the nodes could take a pod even if it were empty; None when one could.

    Args:
        pod: with what the scheduler looks at.
        nodes: of the cluster; of none, nothing is known.
    """
    requested = pod_requests(pod)
    if not nodes or any(_fits(node, pod, requested) for node in nodes):
        return None
    wants = _format_amounts(requested) or "nothing in particular"
    return f"{pod['metadata']['name']} asks for {wants}. {_describe_fit(pod, requested, nodes)}".rstrip(".")


def _fits(node: Json, pod: Json, requested: Mapping[str, float]) -> bool:
    labelled = pod["spec"].get("nodeSelector", {}).items() <= node["metadata"].get("labels", {}).items()
    enough = all(_allocatable(node, resource) >= amount for resource, amount in requested.items())
    return labelled and enough and not _taints(node, pod)


def _describe_fit(pod: Json, requested: Mapping[str, float], nodes: Sequence[Json]) -> str:
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
    largest = {r: max(_allocatable(node, r) for node in open_to_it) for r in requested}
    named = ", ".join(node["metadata"]["name"] for node in open_to_it[:MAX_NAMES])
    named += f" and {len(open_to_it) - MAX_NAMES} more" if len(open_to_it) > MAX_NAMES else ""
    if any(all(_allocatable(node, r) >= amount for r, amount in requested.items()) for node in open_to_it):
        return f"It would fit on an empty {named}, but others use it. Free some, or add a node."
    most = _format_amounts(largest)
    return f"At most {most} fit on an empty node ({named}). Ask for less, or add a larger node."


def _allocatable(node: Json, resource: str) -> float:
    return parse_quantity(node["status"].get("allocatable", {}).get(resource, "0"))


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
