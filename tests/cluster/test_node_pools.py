"""Scheduling of the pods of the compiled pipeline on nodes like those of GKE's node pools.

The nodes are objects without a machine, so nothing runs on them. Taints keep other pods away. A thread
renews the leases of the nodes; otherwise Kubernetes would consider them lost within a minute.
"""

import json
import threading
import time
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from modelyard.components.kubernetes.cluster import connect
from modelyard.components.kubernetes.pod_problem import find_problem
from modelyard.pipelines.compile.compiler import compile_package, parse_package
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.runners.pods.pod import create_step_pod
from modelyard.pipelines.steps import STEPS

pytestmark = pytest.mark.cluster

NAMESPACE, LEASES = "modelyard-runs", "kube-node-lease"
KEY, VALUE = "modelyard.dev/test", "pool"
POOL = f"{KEY}={VALUE}"
GPU, TPU, SPOT = "nvidia.com/gpu", "google.com/tpu", "cloud.google.com/gke-spot"
ACCELERATOR, TPU_TYPE = "cloud.google.com/gke-accelerator", "cloud.google.com/gke-tpu-accelerator"
TOPOLOGY = "cloud.google.com/gke-tpu-topology"

# The labels, the resource with its number, and the taints that GKE sets on the nodes of each pool.
POOLS = {
    "l4": ({ACCELERATOR: "nvidia-l4"}, (GPU, 2), [(GPU, "present")]),
    "l4-spot": ({ACCELERATOR: "nvidia-l4", SPOT: "true"}, (GPU, 2), [(GPU, "present"), (SPOT, "true")]),
    "t4": ({ACCELERATOR: "nvidia-tesla-t4"}, (GPU, 4), [(GPU, "present")]),
    "v6e-2x2": ({TPU_TYPE: "tpu-v6e-slice", TOPOLOGY: "2x2"}, (TPU, 4), [(TPU, "present")]),
    "v6e-2x4": ({TPU_TYPE: "tpu-v6e-slice", TOPOLOGY: "2x4"}, (TPU, 8), [(TPU, "present")]),
    "v5e-2x4": ({TPU_TYPE: "tpu-v5-lite-podslice", TOPOLOGY: "2x4"}, (TPU, 8), [(TPU, "present")]),
}

REQUESTS = {
    "l4": "accelerator: {type: nvidia-l4, count: 2}",
    "l4-spot": "accelerator: {type: nvidia-l4, count: 2}, spot: true",
    "t4": "accelerator: {type: nvidia-tesla-t4, count: 4}",
    "v6e-2x2": "accelerator: {type: tpu-v6e-slice, count: 4, topology: 2x2}",
    "v6e-2x4": "accelerator: {type: tpu-v6e-slice, count: 8, topology: 2x4}",
    "v5e-2x4": "accelerator: {type: tpu-v5-lite-podslice, count: 8, topology: 2x4}",
}

ENVIRONMENT = """
kind: kubernetes
store: gs://modelyard/models
pipeline_root: gs://modelyard/runs
keras_backend: {backend}
images: {{fingerprint: a, ingest: a, preprocess: a, train: a, train-cuda: a, train-tpu: a, evaluate: a,
  deploy: a, serve: a}}
defaults: {{cpu: 100m, memory: 64Mi}}
steps: {{train: {{{train}}}}}
"""


@pytest.fixture(scope="module", autouse=True)
def _pools(kubectl):
    """Create the nodes, and delete them with their pods."""
    nodes = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": f"pool-{name}", "labels": {**labels, KEY: VALUE}},
            "spec": {
                "taints": [{"key": key, "value": value, "effect": "NoSchedule"} for key, value in taints]
            },
        }
        for name, (labels, _, taints) in POOLS.items()
    ]
    kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes}))
    for name, (_, (resource, count), _) in POOLS.items():
        size = {"cpu": "8", "memory": "32Gi", "pods": "20", resource: str(count)}
        ready = {"type": "Ready", "status": "True", "reason": "Test"}
        status = {"status": {"capacity": size, "allocatable": size, "conditions": [ready]}}
        kubectl("patch", "node", f"pool-{name}", "--subresource=status", "-p", json.dumps(status))
    stopped = threading.Event()
    thread = threading.Thread(target=renew_leases, args=(kubectl, stopped))
    thread.start()
    yield
    stopped.set()
    thread.join()
    kubectl("delete", "node", "-l", POOL)
    kubectl("delete", "lease", "-n", LEASES, "-l", POOL)


def renew_leases(kubectl, stopped):
    """Renew the leases of the nodes, as the kubelet of a node does."""
    while True:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        leases = [
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": f"pool-{name}", "namespace": LEASES, "labels": {KEY: VALUE}},
                "spec": {"holderIdentity": f"pool-{name}", "leaseDurationSeconds": 40, "renewTime": now},
            }
            for name in POOLS
        ]
        kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": leases}))
        if stopped.wait(10):
            return


@pytest.fixture
def create_pod(kubectl, tmp_path):
    """Return a function that creates the pod of a step of the compiled pipeline and returns its name."""
    names = []

    def create(train, step="train"):
        path = tmp_path / "environment.yaml"
        backend = "jax" if "tpu" in train else "tensorflow"
        path.write_text(ENVIRONMENT.format(train=train, backend=backend))
        environment = load_environment(str(path), environ={})
        compiled = parse_package(compile_package(environment))
        pod = create_step_pod(compiled, step, environment)
        name = f"pool-{uuid4().hex[:8]}"
        pod["metadata"] |= {"name": name, "namespace": NAMESPACE}
        names.append(name)
        kubectl("apply", "-f", "-", text=json.dumps(pod))
        return name

    yield create
    kubectl("delete", "pod", "-n", NAMESPACE, "--force", "--grace-period=0", "--ignore-not-found", *names)


def wait_for_node(name: str) -> str:
    """Return the node on which a pod is scheduled, or the reason why it cannot be scheduled."""
    cluster, deadline = connect(NAMESPACE), time.monotonic() + 240
    while time.monotonic() < deadline:
        pod = cluster.get("Pod", name)
        if node := pod["spec"].get("nodeName"):
            return str(node)
        if problem := find_problem(pod, cluster.list_events(pod), cluster.nodes):
            return problem.message
        time.sleep(0.1)
    raise AssertionError(f"pod {name} has no node and no event")


@pytest.mark.parametrize("pool", POOLS)
def test_train_is_scheduled_on_the_requested_pool(create_pod, pool):
    assert wait_for_node(create_pod(REQUESTS[pool])) == f"pool-{pool}"
    reason = wait_for_node(create_pod(REQUESTS[pool]))  # the pool is full now; the others are free
    assert "cannot be scheduled" in reason
    assert f" fit on pool-{pool} " in reason or f"(pool-{pool})" in reason


def test_step_with_any_gpu_is_not_scheduled_on_spot_nodes(create_pod):
    assert wait_for_node(create_pod("accelerator: {type: gpu, count: 2}")) in ("pool-l4", "pool-t4")


def test_other_steps_are_not_scheduled_on_the_pools(create_pod):
    pods = {step: create_pod(REQUESTS["l4"], step) for step in STEPS if step != "train"}
    nodes = {step: wait_for_node(name) for step, name in pods.items()}
    assert [step for step, node in nodes.items() if node.startswith("pool-")] == []


def test_missing_pool_is_named_by_its_labels(create_pod):
    message = wait_for_node(create_pod("accelerator: {type: nvidia-h100-80gb, count: 8}"))
    assert "cannot be scheduled" in message
    assert "cloud.google.com/gke-accelerator=nvidia-h100-80gb" in message.replace(": ", "=")
