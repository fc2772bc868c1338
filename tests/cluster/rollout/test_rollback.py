"""Candidates that fail are rolled back with a reason, and stable never fails a request."""

import re
from dataclasses import replace

import pytest
from kubernetes.config import new_client_from_config

from modelyard.components.errors import ClusterError, DeployError
from modelyard.components.kubernetes.cluster import Cluster
from modelyard.components.server import send
from tests.cluster.rollout.conftest import LONG_BAKE_SECONDS

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def stable(served):
    """The served model; each test deploys another version."""
    return served


@pytest.fixture
def deploy_rejected(stable):
    """Return a function that deploys a version, asserts that it is rolled back, and returns why.

    It returns the message of the error, and the clients of stable.
    """

    def deploy(version, platform=None, **load):
        served_version = stable.stable()
        stable.wait_until_serving()
        with stable.load(**load).running() as clients, pytest.raises(DeployError) as error:
            stable.deploy(version, platform)
        stable.assert_settled(served_version)
        attempt = stable.models.history(stable.name)[-1]
        assert (attempt.version, attempt.attempt) == (version, True)
        assert str(error.value.__cause__) in attempt.reason
        assert f"Version {version} was not promoted" in str(error.value)
        assert f"stable serves version {served_version} as before" in str(error.value)
        assert "\n" not in str(error.value)
        return str(error.value), clients

    return deploy


def test_candidate_with_different_predictions_is_rejected(deploy_rejected, stable):
    reason, clients = deploy_rejected(stable.publish(recorded=0.7))
    assert "probabilities differ by 0.7" in reason
    assert clients.failed == [], "the candidate was never in the Service"


def test_candidate_slower_than_stable_is_rejected(deploy_rejected, stable):
    # Each request takes a second on a slow machine.
    platform = stable.platform_with(latency_margin=0.01, min_requests=5)
    reason, clients = deploy_rejected(stable.publish("slow"), platform)
    assert "rollout.max_latency_ratio" in reason
    assert clients.failed == []


def test_candidate_out_of_memory_for_some_requests_is_rejected(deploy_rejected, stable):
    platform = stable.platform_with(bake_seconds=LONG_BAKE_SECONDS)
    reason, _ = deploy_rejected(stable.publish("large"), platform, instance=[1.0] * 4)
    assert "was killed because it used too much memory: its limit is 256 MiB" in reason
    assert re.search(r"it last used \d+ MiB", reason)
    (pod, *_) = stable.platform.ready_pods("stable")
    metrics = send(stable.platform.pod_server(pod), "GET", "/metrics").decode()
    assert not re.search(r'code="5\d\d"', metrics), "a request to stable failed"


def test_model_that_onnx_runtime_cannot_load_is_rejected(deploy_rejected, stable):
    reason, clients = deploy_rejected(stable.publish(onnx=b"nonsense"))
    assert "exit code 8" in reason
    assert "cannot be loaded by ONNX Runtime" in reason
    assert clients.failed == []


def test_candidate_that_is_never_ready_is_rejected(deploy_rejected, stable):
    reason, clients = deploy_rejected(stable.publish("endless"), stable.platform_with(ready_timeout=6.0))
    assert "was not ready within 6 s" in reason
    assert "connection refused" in reason
    assert clients.failed == []


def test_candidate_with_a_missing_image_is_rejected(deploy_rejected, stable, missing_image):
    reason, clients = deploy_rejected(stable.publish(), stable.platform_with(image=missing_image))
    assert f"Image {missing_image}" in reason
    assert "not found" in reason
    assert clients.failed == []


def test_candidate_that_fits_on_no_node_is_rejected(deploy_rejected, stable, no_new_nodes):
    labels = f"app.kubernetes.io/name={stable.name},modelyard.dev/track=candidate"
    no_new_nodes(stable.platform.cluster.namespace, labels)
    resources = stable.platform.target.resources.model_copy(update={"cpu": "64"})
    reason, clients = deploy_rejected(stable.publish(), stable.platform_with(resources=resources))
    assert "it requests 64 cores and 256 MiB of memory, and the autoscaler adds no node for it" in reason
    assert re.search(r"An empty node has at most \d+ cores and \S+ GiB of memory", reason)
    assert clients.failed == []


def test_model_with_a_changed_byte_is_not_deployed(stable, bucket):
    version = stable.publish()
    bucket.corrupt(f"store/{stable.name}/versions/{version:06d}/model.onnx")
    with pytest.raises(DeployError, match="is damaged: its SHA-256 is"):
        stable.deploy(version)
    stable.assert_settled(1)


def test_version_without_golden_requests_is_not_deployed(stable):
    version = stable.publish(golden=False)
    with pytest.raises(DeployError, match=r"has no golden\.json"):
        stable.deploy(version)
    stable.assert_settled(1)


def test_candidate_that_exceeds_a_quota_is_rejected(deploy_rejected, stable):
    resources = stable.platform.target.resources.model_copy(update={"memory": "200Gi"})
    reason, clients = deploy_rejected(stable.publish(), stable.platform_with(resources=resources))
    assert "The quota memory of the namespace refuses the pod: requested: requests.memory=200Gi" in reason
    assert clients.failed == []


def test_account_without_permissions_deploys_nothing(stable):
    namespace = stable.platform.cluster.namespace
    api = new_client_from_config()
    api.set_default_header("Impersonate-User", f"system:serviceaccount:{namespace}:modelyard-serve")
    platform = replace(stable.platform, cluster=Cluster(api, namespace, in_cluster=False))
    with pytest.raises(ClusterError, match=r"may not get deployments\.apps in the namespace") as error:
        stable.deploy(stable.publish(), platform)
    assert 'resources: ["deployments"], verbs: ["get"]' in str(error.value)
    stable.assert_settled(1)


def test_candidate_with_a_missing_service_account_is_rejected(deploy_rejected, stable):
    reason, clients = deploy_rejected(stable.publish(), stable.platform_with(service_account="missing"))
    assert "There is no service account missing in the namespace" in reason
    assert clients.failed == []
