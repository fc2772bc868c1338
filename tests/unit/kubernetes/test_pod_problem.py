"""Explanations of recorded pod states."""

import pytest

from modelyard.components.kubernetes.pod_problem import (
    count_restarts,
    describe_unready,
    find_problem,
    is_ready,
)


@pytest.mark.parametrize(
    ("name", "reason", "wait_limit", "parts"),
    [
        (
            "unschedulable",
            "Unschedulable",
            60,
            ["requests 64 cores and 1 GiB of memory", "1 Insufficient cpu."],
        ),
        ("image-not-found", "ImagePull", 0, ["Image modelyard/serve:absent", "absent: not found."]),
        ("root-image", "CreateContainerConfigError", 0, ["image will run as root. Correct"]),
        ("out-of-memory", "OOMKilled", 0, ["its limit is 64 MiB. Give it more memory"]),
        ("crash-loop", "CrashLoopBackOff", None, ["exit code 8", "cannot be loaded by ONNX Runtime."]),
    ],
)
def test_problem_of_a_recorded_pod_is_explained(recorded, node, name, reason, wait_limit, parts):
    state = recorded(name)
    problem = find_problem(state["pod"], state["events"], [node])
    assert problem
    assert (problem.reason, problem.wait_limit) == (reason, wait_limit)
    for part in (state["pod"]["metadata"]["name"], *parts):
        assert part in problem.message
    assert "\n" not in problem.message
    assert ".." not in problem.message


def test_unready_pod_has_no_problem(recorded):
    state = recorded("unready")
    assert find_problem(state["pod"], state["events"]) is None
    assert not is_ready(state["pod"])
    message = describe_unready(state["pod"], state["events"], 5)
    assert "not ready within 5 s: Startup probe failed" in message
    assert "connection refused" in message


def test_out_of_memory_message_has_the_last_measurement(recorded):
    problem = find_problem(recorded("out-of-memory")["pod"], memory_used=61 * 2**20)
    assert problem
    assert "last used 61 MiB" in problem.message


def test_restart_count_includes_a_terminated_container(recorded):
    pod = recorded("out-of-memory")["pod"]  # restarted twice, and terminated again
    assert count_restarts(pod) == 3
    pod["status"]["containerStatuses"][0]["state"] = {"running": {}}
    assert count_restarts(pod) == 2


def test_unavailable_registry_is_retried(recorded):
    pod = recorded("image-not-found")["pod"]
    waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]
    waiting["message"] = "rpc error: code = Unavailable desc = dial tcp: connection refused"
    problem = find_problem(pod)
    assert problem
    assert problem.wait_limit is None


def test_container_with_exit_code_0_is_no_problem(recorded):
    pod = recorded("crash-loop")["pod"]
    status = pod["status"]["containerStatuses"][0]
    status["state"], status["lastState"] = {"running": {}}, {"terminated": {"exitCode": 0}}
    assert find_problem(pod) is None


def test_evicted_pod_has_the_reason(recorded):
    pod = recorded("unready")["pod"]
    pod["status"] = {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: memory. ",
    }
    problem = find_problem(pod)
    assert problem
    assert "low on resource: memory." in problem.message
