"""Why a step failed, as the same record for a process, a pod and a step on Kubeflow Pipelines.

A failing step writes a record (components/step.py). External causes are in the exit code of its process, the
status of its pod, and its node in the Workflow. Logs are quoted only if nothing else is known.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial

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
    container_statuses,
    find_problem,
)
from modelyard.components.records import Failure
from modelyard.components.step import RUN_AGAIN, killed_message, out_of_memory_message

DEADLINE = "DeadlineExceeded"
DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"  # of the kubelet
NODE_MESSAGE = re.compile(
    r"(?P<container>[\w-]+): (?P<reason>\w+) \(exit code (?P<code>\d+)\)(?:: (?P<document>.*))?", re.DOTALL
)
"""The message of an Argo node: the state of a container, and its termination message."""
SIGKILL = 9
TERMINATION_KINDS = (KilledError.__name__, CancelledError.__name__)  # their records lack the cause
START_ERRORS: dict[str, tuple[type[StuckError], str]] = {
    "Unschedulable": (
        UnschedulableError,
        " Its resources are set by environment.steps.{step} and environment.defaults.",
    ),
    **dict.fromkeys(
        ("ImagePull", *PULL_REASONS, *CREATE_REASONS),
        (ImageError, " Its image is set by environment.images.{step}."),
    ),
}
"""The error for each Kubernetes reason why a pod may never start, and the configuration keys to change."""


def process_failure(step: str, exit_code: int, memory_ran_out: bool, log: Sequence[str]) -> Failure:
    """Return why the process of a step ended without a record.

    The exit code is negative, or more than 128, after a signal. `memory_ran_out` is whether the kernel killed
    a process during the step because memory ran out.
    """
    signal = -exit_code if exit_code < 0 else max(0, exit_code - 128)
    if signal == SIGKILL and memory_ran_out:
        return Failure.from_error(
            OutOfMemoryError(out_of_memory_message(step, ", so the kernel killed it.")), step
        )
    if signal:
        return Failure.from_error(KilledError(killed_message(step)), step)
    return Failure.from_error(_unknown_error(step, exit_code, "", log), step)


def pod_failure(
    step: str,
    pod: Json | None,
    node: PodNode | None = None,
    *,
    log: Sequence[str] = (),
    memory_used: float | None = None,
    events: Sequence[Json] = (),
    cluster_nodes: Sequence[Json] = (),
) -> Failure:
    """Return why the pod of a step failed, or cannot start.

    `pod` is None if it was deleted. `node` is its node in the Workflow, and `log` the log of its container.
    `find_problem` describes the other arguments.
    """
    status = pod["status"] if pod else {}
    problem = find_problem(pod, events, cluster_nodes, memory_used) if pod else None
    container_end = NODE_MESSAGE.fullmatch(node.message) if node else None
    create_failure = partial(Failure.from_error, step=step)
    if node and node.driver:
        return create_failure(_driver_error(node, problem, log))
    if status.get("reason") == DEADLINE or (node and node.message.startswith(DEADLINE_MESSAGE)):
        return create_failure(_deadline_error(step, pod))
    reasons = (problem.reason if problem else "", container_end["reason"] if container_end else "")
    if OUT_OF_MEMORY in reasons:
        evidence = f": {problem.detail}." if problem and problem.detail else ", so the kernel killed it."
        return create_failure(OutOfMemoryError(out_of_memory_message(step, evidence)))
    record = _parse_record(pod, container_end["document"] if container_end else None)
    if record and record.kind not in TERMINATION_KINDS:
        return record.model_copy(update={"step": step})
    if pod and "deletionTimestamp" in pod["metadata"]:
        return create_failure(pod_deleted_error(step))
    if reason := status.get("reason"):  # such as Evicted
        detail = str(status.get("message", "")).rstrip(".") or "no message"
        message = f"The node of the step {step} stopped its pod ({reason}: {detail}). {RUN_AGAIN}"
        return create_failure(
            KilledError(f"{message} environment.steps.{step}.retries does this automatically.")
        )
    if record:
        return record.model_copy(update={"step": step})
    exit_code = _find_exit_code(pod) or (int(container_end["code"]) if container_end else None)
    start_error = find_start_error(step, problem, node)
    return create_failure(start_error or _unknown_error(step, exit_code, node.message if node else "", log))


def find_start_error(step: str, problem: PodProblem | None, node: PodNode | None) -> StuckError | None:
    """Return the error of a pod that cannot start, with the keys to change; None without a known problem.

    The node in the Workflow has fewer details than the problem in the pod's status, but outlives the pod.
    """
    reason = problem.reason if problem else node.start_problem if node else ""
    message = problem.message if problem else f"{node.message.rstrip('.')}." if node else ""
    kind, keys = START_ERRORS.get(reason, (None, ""))
    if kind is None:
        return None
    if not (node and node.driver):  # no configuration key sets the resources of a driver
        message += keys.format(step=step)
    return kind(message)


def pod_deleted_error(step: str) -> KilledError:
    """Return the error of a step whose pod was deleted."""
    return KilledError(f"The pod of the step {step} was deleted while it ran. {RUN_AGAIN}")


def _deadline_error(step: str, pod: Json | None) -> DeadlineError:
    seconds = pod["spec"].get("activeDeadlineSeconds") if pod else None
    limit = f"{seconds} s" if seconds else "its time limit"
    return DeadlineError(
        f"The step {step} was stopped because it did not end within {limit}. Raise "
        f"environment.steps.{step}.timeout, or reduce its work."
    )


def _driver_error(node: PodNode, problem: PodProblem | None, log: Sequence[str]) -> ModelyardError:
    if error := find_start_error(node.step, problem, node) if node.phase == "Pending" else None:
        return error
    detail = f" ({node.message})" if node.message else ""
    return ClusterError(
        f"The driver of Kubeflow Pipelines, which runs before the step {node.step}, failed{detail}. Ask the "
        f"administrator of the KFP server. {quote_end(log)}"
    )


def _failed_containers(pod: Json | None) -> Iterator[Json]:
    for status in container_statuses(pod) if pod else ():
        termination = status.get("state", {}).get("terminated") or {}
        if termination.get("exitCode"):
            yield termination


def _parse_record(pod: Json | None, document: str | None) -> Failure | None:
    """Return the record in the termination message of a failed container."""
    documents = [document or "", *(termination.get("message", "") for termination in _failed_containers(pod))]
    return next(filter(None, map(Failure.parse, documents)), None)


def _find_exit_code(pod: Json | None) -> int | None:
    return next((int(termination["exitCode"]) for termination in _failed_containers(pod)), None)


def _unknown_error(step: str, exit_code: int | None, message: str, log: Sequence[str]) -> ModelyardError:
    result = "ended" if exit_code is None else f"ended with exit code {exit_code}"
    detail = f" ({message})" if message else ""
    end = quote_end(log) if log else "Its log is not available; try `modelyard runs logs`."
    return ModelyardError(f"The step {step} {result}{detail} without a failure record. {end}")
