"""Why a step failed on a cluster, from the fields of its pod, the message of its node and its log."""

from typing import Any

import pytest

from modelyard.components.explain.kfp_run import Evidence, failure_reason, waiting_reason
from modelyard.components.explain.workflow import PodNode

EXIT_1 = "main: Error (exit code 1)"
ERROR = [
    "Traceback (most recent call last):",
    "modelyard.components.errors.DataError: No such file. Name one.",
]


def node(message: str = EXIT_1, *, driver: bool = False, phase: str = "Failed") -> PodNode:
    return PodNode("train", driver, "pod-1", phase, message, "", "", "a-node")


def pod(code: int, reason: str = "Error", why: str = "") -> dict[str, Any]:
    """Return a pod whose container ended; `why` is the reason in the pod's own status."""
    main = {"name": "main", "state": {"terminated": {"exitCode": code, "reason": reason}}}
    return {
        "metadata": {"name": "pod-1"},
        "spec": {"containers": [{"name": "main", "resources": {"limits": {"memory": "200Mi"}}}]},
        "status": {"phase": "Failed", "reason": why, "message": "as told", "containerStatuses": [main]},
    }


@pytest.mark.parametrize(
    ("status", "parts"),
    [
        (pod(137, "OOMKilled"), ("200 MiB", "environment.steps.train.memory")),
        (pod(137, why="DeadlineExceeded"), ("environment.steps.train.timeout", "exit code 137")),
        (pod(137, why="Evicted"), ("Evicted: as told", "environment.steps.train.retries")),
        (pod(3), ("exit code 3", EXIT_1, "modelyard runs logs")),
        (None, (EXIT_1, "modelyard runs logs")),
    ],
)
def test_the_fields_of_a_pod_say_the_reason_and_what_to_change(status: Any, parts: tuple[str, ...]) -> None:
    found = failure_reason(Evidence(node(), [], status))
    assert all(part in found for part in parts), found


def test_the_error_that_a_step_raised_is_the_reason() -> None:
    assert failure_reason(Evidence(node(), ERROR, pod(1))) == "No such file. Name one."


def test_without_a_known_error_the_exit_code_and_the_last_lines_are_quoted() -> None:
    log = ["epoch 1", "epoch 2", "Fatal Python error: Segmentation fault"]
    found = failure_reason(Evidence(node(), log, pod(139)))
    assert "exit code 139" in found
    assert found.endswith("\n".join(log))


@pytest.mark.parametrize("message", ["pod deleted", 'pods "x" is forbidden: exceeded quota: small'])
def test_the_message_of_a_node_is_quoted(message: str) -> None:
    assert message in failure_reason(Evidence(node(message)))


def test_a_driver_that_fails_is_not_the_steps_fault() -> None:
    found = failure_reason(Evidence(node(driver=True), ["no such host"]))
    assert "the driver of Kubeflow Pipelines" in found
    assert "no such host" in found
    assert "environment.steps" not in found


@pytest.mark.parametrize(
    ("message", "blocked"),
    [
        ("Unschedulable: 0/1 nodes fit.", True),
        ('ImagePullBackOff: Back-off pulling image "x"', True),
        ('CreateContainerConfigError: secret "x" not found', True),
        ("PodInitializing", False),
        ("", False),
    ],
)
def test_a_pod_that_is_gone_or_hidden_waits_for_what_its_node_says(message: str, blocked: bool) -> None:
    waits = Evidence(node(message, phase="Pending"))
    assert bool(waits.node.blocked_by) == blocked
    assert (waiting_reason(waits) or "").startswith(message if blocked else "")
