"""Explanations of unschedulable pods."""

from copy import deepcopy

import pytest

from modelyard.components.kubernetes.scheduling import explain_impossible, explain_unschedulable

SCHEDULER_MESSAGE = (
    "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are …"
)


@pytest.fixture
def pod(recorded):
    return recorded("unschedulable")["pod"]


def explain(pod, nodes, *events):
    message, wait_limit = explain_unschedulable(
        pod, SCHEDULER_MESSAGE, [{"reason": event} for event in events], nodes
    )
    assert message.endswith("0/1 nodes are available: 1 Insufficient cpu.")
    return message, wait_limit


def test_message_has_the_largest_pod_that_fits(pod, node):
    assert "An empty node has at most 2 cores and 23.3 GiB of memory (yard)" in explain(pod, [node])[0]


def test_message_without_permission_to_read_nodes(pod):
    assert "Request less, or add a larger node." in explain(pod, [])[0]


def test_message_names_a_node_that_is_full(pod, node):
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2"
    assert "It would fit on yard without the other pods" in explain(pod, [node])[0]


def test_no_node_with_the_labels(pod, node):
    pod["spec"]["nodeSelector"] = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    explanation = explain(pod, [node])[0]
    assert "on a node with cloud.google.com/gke-accelerator=nvidia-l4" in explanation
    assert "No node has these labels" in explanation


def test_taints_must_be_tolerated(pod, node):
    tainted = deepcopy(node)
    tainted["spec"]["taints"] = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    assert "tainted (nvidia.com/gpu=present:NoSchedule)" in explain(pod, [tainted])[0]
    pod["spec"]["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "at most 2 cores" in explain(pod, [tainted])[0]


def test_no_node_with_the_accelerator(pod, node):
    pod["spec"]["containers"][0]["resources"]["requests"] = {"nvidia.com/gpu": "1"}
    explanation = explain(pod, [node])[0]
    assert "requests 1 nvidia.com/gpu" in explanation
    assert "at most 0 nvidia.com/gpu" in explanation


@pytest.mark.parametrize(
    ("events", "wait_limit"), [((), 60.0), (("TriggeredScaleUp",), None), (("NotTriggerScaleUp",), 0.0)]
)
def test_wait_limit_depends_on_the_autoscaler(pod, node, events, wait_limit):
    assert explain(pod, [node], *events)[1] == wait_limit


def test_pod_that_fits_on_no_node(pod, node):
    assert "requests 64 cores and 1 GiB of memory. An empty node has at most 2 cores" in (
        explain_impossible(pod, [node]) or ""
    )
    assert explain_impossible(pod, []) is None, "the nodes are unknown"
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2"
    assert explain_impossible(pod, [node]) is None
