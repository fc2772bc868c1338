"""Kubernetes quantities such as 500m and 2Gi."""

from collections.abc import Mapping
from typing import Any

RESOURCE_NAMES = {"memory": "memory", "ephemeral-storage": "disk", "pods": "pods"}
UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def parse_quantity(quantity: str) -> float:
    """Return a quantity in its base unit: cores, bytes, devices."""
    from kubernetes.utils.quantity import parse_quantity as parse  # its import takes half a second

    return float(parse(quantity))


def format_amount(resource: str, amount: float) -> str:
    """Return an amount of a resource, as "0.5 cores", "2 GiB of memory" or "1 nvidia.com/gpu"."""
    if resource == "cpu":
        return f"{amount:g} core{'' if amount == 1 else 's'}"
    if resource in ("memory", "ephemeral-storage"):
        return f"{format_bytes(amount)} of {RESOURCE_NAMES[resource]}"
    return f"{amount:g} {RESOURCE_NAMES.get(resource, resource)}"


def format_bytes(amount: float) -> str:
    """Return a number of bytes with a unit, as "2 GiB"."""
    name, unit = next(((name, unit) for name, unit in UNITS if amount >= unit), ("B", 1))
    return f"{amount / unit:.3g} {name}"


def pod_requests(pod: Mapping[str, Any]) -> Mapping[str, float]:
    """Return the resource requests of a pod: the sum of its containers, or a larger init container."""
    spec = pod["spec"]
    total: dict[str, float] = {}
    for container in spec["containers"]:
        for resource, quantity in container.get("resources", {}).get("requests", {}).items():
            total[resource] = total.get(resource, 0.0) + parse_quantity(quantity)
    for container in spec.get("initContainers", []):
        for resource, quantity in container.get("resources", {}).get("requests", {}).items():
            total[resource] = max(total.get(resource, 0.0), parse_quantity(quantity))
    return total
