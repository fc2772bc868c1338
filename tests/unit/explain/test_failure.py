"""The reason of a failed step, from its record and the fields of its process, pod and workflow node."""

import json
from typing import Any

import pytest

from modelyard.components.errors import DataError
from modelyard.components.explain.failure import pod_failure, process_failure
from modelyard.components.explain.kfp_run import Evidence
from modelyard.components.explain.workflow import PodNode
from modelyard.components.records import Failure
from modelyard.components.step import failure_document, killed_message

EXIT_1 = "main: Error (exit code 1)"
RECORD = failure_document(DataError("No such file. Name one."), "train").decode()
KILLED = json.dumps({"version": 1, "step": "train", "kind": "KilledError", "message": "x", "exit_code": 14})
LIMIT = {"resources": {"limits": {"memory": "200Mi"}}}


def node(message: str = EXIT_1, *, driver: bool = False, phase: str = "Failed") -> PodNode:
    return PodNode("train", driver, "pod-1", phase, message, "", "")


def pod(
    code: int, reason: str = "Error", pod_reason: str = "", message: str = "", container: str = "main"
) -> Any:
    """Return a pod whose container ended; `pod_reason` is the reason in the status of the pod."""
    terminated = {"exitCode": code, "reason": reason, "message": message}
    status = {"name": container, "state": {"terminated": terminated}}
    return {
        "metadata": {"name": "pod-1"},
        "spec": {"containers": [{"name": container, **LIMIT}], "activeDeadlineSeconds": 60},
        "status": {
            "phase": "Failed",
            "reason": pod_reason,
            "message": "low on memory",
            "containerStatuses": [status],
        },
    }


def deleted() -> Any:
    failure = pod(137, message=KILLED)
    failure["metadata"]["deletionTimestamp"] = "now"
    return failure


@pytest.mark.parametrize(
    ("status", "message", "kind", "parts"),
    [
        (pod(1, message=RECORD), EXIT_1, "DataError", ("No such file. Name one.",)),
        (None, f"{EXIT_1}: {RECORD}", "DataError", ("No such file. Name one.",)),
        (pod(137, "OOMKilled"), "", "OutOfMemoryError", ("200 MiB", "environment.steps.train.memory")),
        (
            pod(1, message=KILLED),
            "main: OOMKilled (exit code 1)",
            "OutOfMemoryError",
            ("steps.train.memory",),
        ),
        (None, f"main: OOMKilled (exit code 1): {KILLED}", "OutOfMemoryError", ("steps.train.memory",)),
        (
            pod(137, pod_reason="DeadlineExceeded"),
            "",
            "DeadlineError",
            ("60 s", "environment.steps.train.timeout"),
        ),
        (
            None,
            "Pod was active on the node longer than the specified deadline",
            "DeadlineError",
            ("environment.steps.train.timeout",),
        ),
        (
            pod(137, pod_reason="Evicted"),
            "",
            "KilledError",
            ("Evicted: low on memory", "environment.steps.train.retries"),
        ),
        (deleted(), "", "KilledError", ("deleted",)),
        (pod(1, message=KILLED), EXIT_1, "KilledError", ("x",)),
        (None, "Unschedulable: 0/1 nodes fit.", "ModelyardError", ("0/1 nodes fit",)),
        (
            None,
            "Pod failed before main container starts due to Unschedulable: 0/1 nodes fit.",
            "UnschedulableError",
            ("environment.steps.train",),
        ),
        (
            None,
            "Pod failed before main container starts due to ImagePullBackOff: no such image",
            "ImageError",
            ("environment.images.train",),
        ),
        (pod(3), EXIT_1, "ModelyardError", ("exit code 3", EXIT_1, "modelyard runs logs")),
        (None, EXIT_1, "ModelyardError", ("exit code 1", "modelyard runs logs")),
        (None, "pod deleted", "ModelyardError", ("pod deleted",)),
    ],
)
def test_record_and_fields_determine_the_error_class_and_the_remedy(
    status: Any, message: str, kind: str, parts: tuple[str, ...]
) -> None:
    failure = pod_failure("train", status, node(message))
    assert (failure.kind, failure.step) == (kind, "train"), failure
    assert all(part in failure.message for part in parts), failure


def test_a_pod_without_a_workflow_node_gives_the_same_failure() -> None:
    """Its containers fetch artifacts, execute the step and put artifacts."""
    for container in ("fetch", "step", "put"):
        assert pod_failure("train", pod(1, message=RECORD, container=container)).kind == "DataError"
    assert pod_failure("train", pod(137, "OOMKilled"), memory_used=150 * 2**20).message.count("150 MiB") == 1


@pytest.mark.parametrize(
    ("code", "memory", "kind"),
    [
        (-9, False, "KilledError"),
        (137, False, "KilledError"),
        (137, True, "OutOfMemoryError"),
        (-6, True, "KilledError"),
        (1, True, "ModelyardError"),
    ],
)
def test_a_process_without_a_record_fails_with_its_signal_or_exit_code(
    code: int, memory: bool, kind: str
) -> None:
    failure = process_failure("train", code, memory, ["epoch 1", "ImportError: no"])
    assert failure.kind == kind
    if kind == "ModelyardError":
        assert "ImportError: no" in failure.message


def test_processes_and_pods_have_the_same_messages() -> None:
    remedy = "environment.steps.train.memory on a cluster, a larger machine otherwise."
    failures = (process_failure("train", -9, True, []), pod_failure("train", pod(137, "OOMKilled")))
    assert all(failure.message.endswith(remedy) for failure in failures)
    assert process_failure("train", -9, False, []).message == killed_message("train")


def test_without_a_record_the_exit_code_and_the_last_lines_are_quoted() -> None:
    log = ["epoch 1", "epoch 2", "Fatal Python error: Segmentation fault"]
    failure = pod_failure("train", pod(139), node(), log=log)
    assert "exit code 139" in failure.message
    assert failure.message.endswith("\n".join(log))


def test_a_failed_driver_is_not_blamed_on_the_step() -> None:
    failure = pod_failure("train", None, node(driver=True), log=["no such host"])
    assert "driver of Kubeflow Pipelines" in failure.message
    assert "no such host" in failure.message
    assert "environment.steps" not in failure.message


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Unschedulable: 0/1 nodes fit.", "UnschedulableError"),
        ('ImagePullBackOff: Back-off pulling image "x"', "ImageError"),
        ('CreateContainerConfigError: secret "x" not found', "ImageError"),
        ("PodInitializing", "NoneType"),
        ("", "NoneType"),
    ],
)
def test_the_start_error_of_a_deleted_pod_comes_from_its_node(message: str, kind: str) -> None:
    failure = Evidence(node(message, phase="Pending")).start_error
    assert type(failure).__name__ == kind
    assert str(failure or message).startswith(message)


def test_termination_messages_are_sanitized() -> None:
    forged = json.dumps({**json.loads(RECORD), "message": "\x1b[2J" + 9000 * "x", "kind": "Unknown\n"})
    failure = pod_failure("train", pod(1, message=forged))
    assert len(failure.message) <= 2000
    assert "\x1b" not in failure.message
    assert Failure.parse("{}") is None
