"""What real pods' states mean in plain words."""

from copy import deepcopy

import pytest

from modelyard.components.kubernetes.pod_problem import (
    count_restarts,
    explain_impossible,
    find_problem,
    is_ready,
    not_ready_problem,
    unschedulable_problem,
)

SAID = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are …"


@pytest.mark.parametrize(
    ("name", "reason", "patience", "words"),
    [
        (
            "unschedulable",
            "Unschedulable",
            60,
            ["asks for 64 cores and 1 GiB of memory", "1 Insufficient cpu."],
        ),
        ("image-not-found", "ImagePull", 0, ["Image modelyard/serve:absent", "absent: not found."]),
        ("root-image", "CreateContainerConfigError", 0, ["image will run as root. Correct"]),
        ("out-of-memory", "OOMKilled", 0, ["its limit is 64 MiB. Give it more memory"]),
        ("crash-loop", "CrashLoopBackOff", None, ["exit code 8", "cannot be loaded by ONNX Runtime."]),
    ],
)
def test_problems(recorded, node, name, reason, patience, words):
    seen = recorded(name)
    problem = find_problem(seen["pod"], seen["events"], [node])
    assert problem
    assert (problem.reason, problem.patience) == (reason, patience)
    for word in (seen["pod"]["metadata"]["name"], *words):
        assert word in problem.message
    assert "\n" not in problem.message
    assert ".." not in problem.message


def test_a_pod_that_only_needs_time_has_no_problem(recorded):
    seen = recorded("unready")
    assert find_problem(seen["pod"], seen["events"]) is None
    assert not is_ready(seen["pod"])
    why = not_ready_problem(seen["pod"], seen["events"], 5)
    assert "not ready within 5 s: Startup probe failed" in why.message
    assert "connection refused" in why.message


def test_memory_names_what_was_seen(recorded):
    problem = find_problem(recorded("out-of-memory")["pod"], used=61 * 2**20)
    assert problem
    assert "last seen to use 61 MiB" in problem.message


def test_a_crash_is_counted_while_its_container_is_still_down(recorded):
    pod = recorded("out-of-memory")["pod"]  # restarted twice, and terminated again
    assert count_restarts(pod) == 3
    pod["status"]["containerStatuses"][0]["state"] = {"running": {}}
    assert count_restarts(pod) == 2


def test_a_registry_that_is_away_for_a_moment_may_come_back(recorded):
    pod = recorded("image-not-found")["pod"]
    waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]
    waiting["message"] = "rpc error: code = Unavailable desc = dial tcp: connection refused"
    problem = find_problem(pod)
    assert problem
    assert problem.patience is None


def test_a_server_that_ended_as_it_should_is_no_problem(recorded):
    pod = recorded("crash-loop")["pod"]
    status = pod["status"]["containerStatuses"][0]
    status["state"], status["lastState"] = {"running": {}}, {"terminated": {"exitCode": 0}}
    assert find_problem(pod) is None


def test_an_evicted_pod_says_why(recorded):
    pod = recorded("unready")["pod"]
    pod["status"] = {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: memory. ",
    }
    problem = find_problem(pod)
    assert problem
    assert "low on resource: memory." in problem.message


@pytest.fixture
def pod(recorded):
    return recorded("unschedulable")["pod"]


def why(pod, nodes, *events):
    problem = unschedulable_problem(pod, SAID, [{"reason": event} for event in events], nodes)
    assert problem.message.endswith("The scheduler says: 0/1 nodes are available: 1 Insufficient cpu.")
    return problem


def test_says_what_would_fit(pod, node):
    assert "At most 2 cores and 23.3 GiB of memory fit on an empty node (yard)" in why(pod, [node]).message


def test_without_the_right_to_read_nodes_it_says_what_it_knows(pod):
    assert "Ask for less, or add a node that has it." in why(pod, []).message


def test_nodes_that_are_full(pod, node):
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2"
    assert "It would fit on an empty yard, but others use it" in why(pod, [node]).message


def test_no_node_with_its_labels(pod, node):
    pod["spec"]["nodeSelector"] = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    said = why(pod, [node]).message
    assert "on a node with cloud.google.com/gke-accelerator=nvidia-l4" in said
    assert "None of the 1 nodes has these labels" in said


def test_a_taint_keeps_it_away_unless_it_is_tolerated(pod, node):
    tainted = deepcopy(node)
    tainted["spec"]["taints"] = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    assert "tainted (nvidia.com/gpu=present:NoSchedule)" in why(pod, [tainted]).message
    pod["spec"]["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "At most 2 cores" in why(pod, [tainted]).message


def test_an_accelerator_that_no_node_has(pod, node):
    pod["spec"]["containers"][0]["resources"]["requests"] = {"nvidia.com/gpu": "1"}
    said = why(pod, [node]).message
    assert "asks for 1 nvidia.com/gpu" in said
    assert "At most 0 nvidia.com/gpu fit" in said


@pytest.mark.parametrize(
    ("events", "patience"), [((), 60.0), (("TriggeredScaleUp",), None), (("NotTriggerScaleUp",), 0.0)]
)
def test_waiting_helps_only_while_an_autoscaler_works(pod, node, events, patience):
    assert why(pod, [node], *events).patience == patience


def test_what_no_node_could_ever_take(pod, node):
    assert "asks for 64 cores and 1 GiB of memory. At most 2 cores" in (explain_impossible(pod, [node]) or "")
    assert explain_impossible(pod, []) is None, "nothing is known"
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2"
    assert explain_impossible(pod, [node]) is None
