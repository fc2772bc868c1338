"""Why a step failed on a cluster and what to change: from its pod, its node in the Workflow and its log.

What Kubernetes says in fields is read: reasons, conditions, exit codes. Messages and logs are quoted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.components.errors import from_log
from modelyard.components.explain.log_lines import quote_end
from modelyard.components.explain.workflow import PodNode
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.pod_problem import PULLING, PodProblem, find_problem

MAIN = "main"  # the container of a step in a pod of Argo
MEMORY, TIMEOUT = "OOMKilled", "DeadlineExceeded"
SETTINGS = {
    "Unschedulable": " Its resources are in environment.steps.{step} and environment.defaults.",
    **dict.fromkeys(("ImagePull", *PULLING), " Its image is environment.images.{step}."),
    MEMORY: " Its memory is environment.steps.{step}.memory.",
}


@dataclass(frozen=True)
class Evidence:
    """What is known of a pod that failed or waits; `pod` is None when it is gone."""

    node: PodNode
    log: Sequence[str] = ()
    pod: Json | None = None
    events: Sequence[Json] = ()
    nodes: Sequence[Json] = field(default=())

    @property
    def problem(self) -> PodProblem | None:
        """What keeps, or kept, the pod from running, according to its status."""
        return find_problem(self.pod, self.events, self.nodes) if self.pod else None


def failure_reason(found: Evidence) -> str:
    """Return why a pod failed, and what to change."""
    step, status = found.node.step, (found.pod or {}).get("status", {})
    if found.node.driver:
        driver = "It is the driver of Kubeflow Pipelines, which runs before the step: ask who operates it. "
        return _ended(found, driver)
    if status.get("reason") == TIMEOUT:
        return _ended(found, f"It took too long: raise environment.steps.{step}.timeout, or do less. ")
    if (seen := found.problem) and seen.reason == MEMORY:
        return seen.message + _settings(seen.reason, found.node)
    if known := from_log(list(found.log)):
        return str(known)
    if reason := status.get("reason"):  # such as Evicted
        return (
            f"its node stopped its pod ({reason}: {status.get('message', '')}). Run it again: what is "
            f"done is cached. environment.steps.{step}.retries does that by itself."
        )
    return _ended(found)


def waiting_reason(found: Evidence) -> str | None:
    """Return what keeps a pod from starting, and what to change; None when nothing is known to."""
    if seen := found.problem:
        return seen.message + _settings(seen.reason, found.node)
    if reason := found.node.blocked_by:
        return f"{found.node.message.rstrip('.')}.{_settings(reason, found.node)}"
    return None


def _settings(reason: str, node: PodNode) -> str:
    """Return which keys of the configuration say what a pod asks for; none say it of a driver."""
    return "" if node.driver else SETTINGS.get(reason, "").format(step=node.step)


def _ended(found: Evidence, hint: str = "") -> str:
    """Return how a container ended, with the message of its node and the last lines of its log."""
    code = _exit_code((found.pod or {}).get("status", {}))
    ended = "it ended" if code is None else f"it ended with exit code {code}"
    said = f" ({found.node.message})" if found.node.message else ""
    end = quote_end(found.log) if found.log else "Its log cannot be read from here; try `modelyard logs`."
    return f"{ended}{said}. {hint}{end}"


def _exit_code(status: dict[str, Any]) -> int | None:
    states = [one["state"] for one in status.get("containerStatuses", ()) if one["name"] == MAIN]
    return states[0].get("terminated", {}).get("exitCode") if states else None
