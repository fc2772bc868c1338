"""Why a pod is not scheduled."""

import re
from collections.abc import Mapping, Sequence

from modelyard.components.errors import summarize_names
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.quantities import format_amount, parse_quantity, pod_requests

# Seconds in which a cluster autoscaler decides about a node: 30 in a small cluster, 60 in a large one.
AUTOSCALER_TIMEOUT = 60.0
MAX_NAMES = 3
PREEMPTION_NOTE = re.compile(r"\.? (?:no new claims|preemption:)")  # the part about preemption and claims


def explain_unschedulable(
    pod: Json, scheduler_message: str, events: Sequence[Json], nodes: Sequence[Json]
) -> tuple[str, float | None]:
    """Return why a pod is not scheduled, and for how many seconds waiting may help, as in `PodProblem`.

    `events` include those of an autoscaler. See `find_problem`.
    """
    requests = pod_requests(pod)
    request = _format_amounts(requests) or "no resources"
    selector = pod["spec"].get("nodeSelector", {})
    labels = f" on a node with {_format_labels(selector)}" if selector else ""
    beginning = f"Pod {pod['metadata']['name']} cannot be scheduled: it requests {request}{labels}"
    reasons = {event.get("reason") for event in events}
    wait_limit: float | None = AUTOSCALER_TIMEOUT
    if "TriggeredScaleUp" in reasons:
        beginning, wait_limit = f"{beginning}; the autoscaler is adding a node", None
    elif "NotTriggerScaleUp" in reasons:
        beginning, wait_limit = f"{beginning}, and the autoscaler adds no node for it", 0.0
    reason = PREEMPTION_NOTE.split(scheduler_message)[0].rstrip(".")
    message = f"{beginning}. {_describe_fit(pod, requests, nodes)} Message of the scheduler: {reason}."
    return message.strip(), wait_limit


def explain_impossible(pod: Json, nodes: Sequence[Json]) -> str | None:
    """Return why a pod does not fit on any node, even an empty one; None if it fits, or without nodes."""
    requests = pod_requests(pod)
    candidates = [node for node in nodes if _matches_selector(node, pod) and not _find_taints(node, pod)]
    if not nodes or any(_has_capacity(node, requests) for node in candidates):
        return None
    request = _format_amounts(requests) or "no resources"
    return f"{pod['metadata']['name']} requests {request}. {_describe_fit(pod, requests, nodes)}".rstrip(".")


def _matches_selector(node: Json, pod: Json) -> bool:
    selector, labels = pod["spec"].get("nodeSelector", {}), node["metadata"].get("labels", {})
    return bool(selector.items() <= labels.items())


def _has_capacity(node: Json, requests: Mapping[str, float]) -> bool:
    """Return whether a node has enough resources for a pod without other pods."""
    return all(_allocatable(node, resource) >= amount for resource, amount in requests.items())


def _describe_fit(pod: Json, requests: Mapping[str, float], nodes: Sequence[Json]) -> str:
    """Return which nodes match a pod, and what fits on one."""
    if not nodes:
        return "Request less, or add a larger node."
    matching_nodes = [node for node in nodes if _matches_selector(node, pod)]
    if not matching_nodes:
        return "No node has these labels. Add such a node, or correct the node selector."
    candidates = [node for node in matching_nodes if not _find_taints(node, pod)]
    if not candidates:
        taints = ", ".join(sorted({taint for node in matching_nodes for taint in _find_taints(node, pod)}))
        return f"All nodes that match are tainted ({taints}). Add a toleration, or a node without the taint."
    names = summarize_names([node["metadata"]["name"] for node in candidates], MAX_NAMES)
    if any(_has_capacity(node, requests) for node in candidates):
        return f"It would fit on {names} without the other pods. Delete pods, or add a node."
    largest = {resource: max(_allocatable(node, resource) for node in candidates) for resource in requests}
    maximum = _format_amounts(largest)
    return f"An empty node has at most {maximum} ({names}). Request less, or add a larger node."


def _allocatable(node: Json, resource: str) -> float:
    return parse_quantity(node["status"].get("allocatable", {}).get(resource, "0"))


def _find_taints(node: Json, pod: Json) -> list[str]:
    """Return the taints of a node that the pod does not tolerate."""
    tolerations = pod["spec"].get("tolerations", [])
    return [
        f"{taint['key']}={taint.get('value', '')}:{taint['effect']}"
        for taint in node["spec"].get("taints", [])
        if taint["effect"] != "PreferNoSchedule"
        and not any(_tolerates(toleration, taint) for toleration in tolerations)
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
