"""Why a step failed, as the same record whether it ran as a process, as a pod, or on Kubeflow Pipelines.

A step that fails leaves a record (components/step.py). What ended it from outside is in fields: the exit code
of its process, the status of its pod, its node in the Workflow. Logs are quoted where nothing else is known.
"""

import re
from collections.abc import Sequence

from modelyard.components.errors import (
    CancelledError,
    ClusterError,
    DeadlineError,
    ImageError,
    KilledError,
    ModelyardError,
    OutOfMemoryError,
    StuckError,
    UnschedulableError,
)
from modelyard.components.explain.explanation import quote_end
from modelyard.components.explain.workflow import PodNode
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.pod_problem import (
    CREATE_REASONS,
    OUT_OF_MEMORY,
    PULL_REASONS,
    PodProblem,
    find_problem,
)
from modelyard.components.records import Failure
from modelyard.components.step import RUN_AGAIN, killed, out_of_memory

DEADLINE = "DeadlineExceeded"
DEADLINE_MESSAGE = (
    "Pod was active on the node longer than the specified deadline"  # of the kubelet, with DEADLINE
)
NODE_MESSAGE = re.compile(
    r"(?P<container>[\w-]+): (?P<reason>\w+) \(exit code (?P<code>\d+)\)(?:: (?P<document>.*))?", re.DOTALL
)
"""How Argo writes the state of a container into a node: with its termination message at the end."""
SIGKILL = 9
TOLD_TO_END = (KilledError.__name__, CancelledError.__name__)  # the pod may say by whom
STUCK: dict[str, tuple[type[StuckError], str]] = {
    "Unschedulable": (
        UnschedulableError,
        " Its resources are in environment.steps.{step} and environment.defaults.",
    ),
    **dict.fromkeys(
        ("ImagePull", *PULL_REASONS, *CREATE_REASONS),
        (ImageError, " Its image is environment.images.{step}."),
    ),
}
"""The error for each of Kubernetes' reasons why a pod may never start, and the keys for what it asks."""


def of_process(step: str, code: int, memory_ran_out: bool, log: Sequence[str]) -> Failure:
    """Return why a process ended that left no record.

    Args:
        step: its step.
        code: its exit code; negative, or more than 128, after a signal.
        memory_ran_out: whether the kernel killed a process meanwhile because memory ran out.
        log: its lines.
    """
    signal = -code if code < 0 else max(0, code - 128)
    if signal == SIGKILL and memory_ran_out:
        return Failure.of(OutOfMemoryError(out_of_memory(step, ", so the kernel killed it.")), step)
    if signal:
        return Failure.of(KilledError(killed(step)), step)
    return Failure.of(_unknown(step, code, "", log), step)


def of_pod(
    step: str,
    pod: Json | None,
    node: PodNode | None = None,
    *,
    log: Sequence[str] = (),
    used: float | None = None,
    events: Sequence[Json] = (),
    nodes: Sequence[Json] = (),
) -> Failure:
    """Return why a pod failed, or cannot start.

    Args:
        step: its step.
        pod: the pod; None when it is gone.
        node: its node in the Workflow, if it has one.
        log: lines of its step's container.
        used: bytes of memory that it was last seen to use.
        events: of the pod.
        nodes: of the cluster, to say what would fit.
    """
    status = pod["status"] if pod else {}
    problem = find_problem(pod, events, nodes, used) if pod else None
    written = NODE_MESSAGE.fullmatch(node.message) if node else None
    if node and node.driver:
        return Failure.of(_driver(node, problem, log), step)
    if status.get("reason") == DEADLINE or (node and node.message.startswith(DEADLINE_MESSAGE)):
        return Failure.of(_late(step, pod), step)
    if (problem and problem.reason == OUT_OF_MEMORY) or (written and written["reason"] == OUT_OF_MEMORY):
        seen = f": {problem.detail}." if problem and problem.detail else ", so the kernel killed it."
        return Failure.of(OutOfMemoryError(out_of_memory(step, seen)), step)
    record = _record(pod, written["document"] if written else None)
    if record and record.kind not in TOLD_TO_END:
        return record.model_copy(update={"step": step})
    if pod and "deletionTimestamp" in pod["metadata"]:
        return Failure.of(deleted(step), step)
    if reason := status.get("reason"):  # such as Evicted
        said = str(status.get("message", "")).rstrip(".") or "it does not say more"
        return Failure.of(
            KilledError(
                f"The node of the step {step} stopped its pod ({reason}: {said}). {RUN_AGAIN} "
                f"environment.steps.{step}.retries does that by itself."
            ),
            step,
        )
    if record:
        return record.model_copy(update={"step": step})
    if stuck := of_waiting(step, problem, node):
        return Failure.of(stuck, step)
    code = _exit_code(pod) or (int(written["code"]) if written else None)
    return Failure.of(_unknown(step, code, node.message if node else "", log), step)


def of_waiting(step: str, problem: PodProblem | None, node: PodNode | None) -> StuckError | None:
    """Return what keeps a pod from starting, and what to change; None when nothing is known to.

    Args:
        step: its step.
        problem: what its status says.
        node: its node in the Workflow, which says less, and stays.
    """
    reason = problem.reason if problem else node.blocked_by if node else ""
    message = problem.message if problem else f"{node.message.rstrip('.')}." if node else ""
    kind, where = STUCK.get(reason, (None, ""))
    if kind is None:
        return None
    own = not (node and node.driver)  # no key of the configuration says what a driver asks for
    return kind(message + where.format(step=step) * own)


def deleted(step: str) -> KilledError:
    """Return that the pod of a step was deleted."""
    return KilledError(f"The pod of the step {step} was deleted while it ran. {RUN_AGAIN}")


def _late(step: str, pod: Json | None) -> DeadlineError:
    seconds = pod["spec"].get("activeDeadlineSeconds") if pod else None
    within = f"within {seconds} s" if seconds else "in the time that it may take"
    return DeadlineError(
        f"The step {step} was stopped because it did not end {within}. Give it more time "
        f"(environment.steps.{step}.timeout), or less to do."
    )


def _driver(node: PodNode, problem: PodProblem | None, log: Sequence[str]) -> ModelyardError:
    if stuck := of_waiting(node.step, problem, node) if node.phase == "Pending" else None:
        return stuck
    said = f" ({node.message})" if node.message else ""
    return ClusterError(
        f"The driver of Kubeflow Pipelines, which runs before the step {node.step}, failed{said}. Ask who "
        f"operates it. {quote_end(log)}"
    )


def _record(pod: Json | None, document: str | None) -> Failure | None:
    """Return the record in the termination message of a container that failed."""
    found = [document or ""]
    for kind in ("initContainerStatuses", "containerStatuses"):
        for one in pod["status"].get(kind, []) if pod else []:
            ended = one.get("state", {}).get("terminated") or {}
            found += [ended.get("message", "")] if ended.get("exitCode") else []
    return next(filter(None, map(Failure.parse, found)), None)


def _exit_code(pod: Json | None) -> int | None:
    for kind in ("initContainerStatuses", "containerStatuses"):
        for one in pod["status"].get(kind, []) if pod else []:
            if code := (one.get("state", {}).get("terminated") or {}).get("exitCode"):
                return int(code)
    return None


def _unknown(step: str, code: int | None, message: str, log: Sequence[str]) -> ModelyardError:
    ended = "ended" if code is None else f"ended with exit code {code}"
    said = f" ({message})" if message else ""
    end = quote_end(log) if log else "Its log cannot be read from here; try `modelyard runs logs`."
    return ModelyardError(f"The step {step} {ended}{said} outside of its work, and left no record. {end}")
