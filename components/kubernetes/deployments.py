"""How far a Deployment is."""

from modelyard.components.kubernetes.api_errors import explain_refusal
from modelyard.components.kubernetes.pod_problem import Json, PodProblem


def complete(deployment: Json) -> bool:
    """Say whether all its pods are of the present template and available, and no other is left."""
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    counts = (status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas"))
    return _seen(deployment) and all(count == wanted for count in counts)


def progress(deployment: Json) -> tuple[int, int]:
    """Return how many of its pods are of the present template, and how many are available, if known."""
    status = deployment.get("status", {}) if _seen(deployment) else {}
    return status.get("updatedReplicas", 0), status.get("availableReplicas", 0)


def refused(deployment: Json) -> PodProblem | None:
    """Return why its pods may not be created, or None when they may."""
    for condition in deployment.get("status", {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True" and _seen(deployment):
            return explain_refusal(condition.get("message", ""))
    return None


def _seen(deployment: Json) -> bool:
    generation = deployment["metadata"].get("generation", 0)
    return bool(deployment.get("status", {}).get("observedGeneration", 0) >= generation)
