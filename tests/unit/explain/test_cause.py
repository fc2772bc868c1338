"""Why a step failed, from the message of its node and its log."""

import pytest

from modelyard.components.explain.cause import Evidence, cause
from modelyard.components.explain.workflow import PodNode

LAUNCHER = [
    "I1126 22:13:44.735500      15 main.go:67] Setting log level to: '1'",
    "E1126 22:16:05.756622      15 launcher_v2.go:449] Component failed: exit status 1",
    "F1126 22:16:07.031499      15 main.go:59] failed to execute component: exit status 1",
    'time=2026-11-26T22:16:07.928Z level=INFO msg="sub-process exited" argo=true error="exit status 1"',
    "Error: exit status 1",
]

TOO_LONG = "Pod was active on the node longer than the specified deadline"


def node(message: str = "main: Error (exit code 1)", *, driver: bool = False, step: str = "train") -> PodNode:
    return PodNode(step, driver, "pod-1", "Failed", message, "", "", "a-node")


@pytest.mark.parametrize(
    ("message", "log", "said"),
    [
        ("pod deleted", [], "its pod was lost (pod deleted)"),
        ("pod deleted", [], "environment.steps.train.retries"),
        ("The node was low on resource: memory.", [], "its pod was lost"),
        (TOO_LONG, [], "environment.steps.train.timeout"),
        ("main: OOMKilled (exit code 1)", [], "environment.steps.train.memory"),
        (
            "main: Error (exit code 1)",
            ["E1126 22:16:05.756622      15 launcher_v2.go:449] Component failed: exit status 137"],
            "environment.steps.train.memory",
        ),
        (
            "main: Error (exit code 1)",
            ["Traceback (most recent call last):", "OSError: [Errno 28] No space left on device"],
            "environment.steps.train.ephemeral_storage",
        ),
        (
            'pods "x" is forbidden: exceeded quota: small, requested: cpu=1, used: cpu=1, limited: cpu=1',
            [],
            "The quota small of the namespace allows no pod",
        ),
        ("main: Error (exit code 1)", LAUNCHER, "Its log ends: failed to execute component: exit status 1"),
        ("main: Error (exit code 1)", [], "no log of it can be read from here"),
        ("Unschedulable: 0/1 nodes fit.", [], "no node took its pod. The scheduler said: 0/1 nodes fit."),
        ('CreateContainerConfigError: secret "x" not found', [], 'be created: secret "x" not found'),
    ],
)  # fmt: skip
def test_the_cause_and_what_to_change(message: str, log: list[str], said: str) -> None:
    assert said in cause(Evidence(node(message), log))


def test_an_error_that_a_step_raised_on_purpose_is_its_own_words() -> None:
    log = [
        "Traceback (most recent call last):",
        "modelyard.components.errors.DataError: No such file. Name one.",
    ]
    assert cause(Evidence(node(), [*log, *LAUNCHER])) == "No such file. Name one."


def test_lines_before_an_unexpected_end_are_told_without_the_launchers() -> None:
    log = ["epoch 1", "epoch 2", "", "Fatal Python error: Segmentation fault", *LAUNCHER]
    said = cause(Evidence(node(), log))
    assert said.endswith("Its log ends: epoch 1 | epoch 2 | Fatal Python error: Segmentation fault.")


def test_a_driver_that_fails_is_not_the_steps_fault() -> None:
    said = cause(Evidence(node(driver=True), LAUNCHER))
    assert "the driver of Kubeflow Pipelines" in said
    assert "environment.steps" not in said
