"""Rollouts that succeed without a failed request, and keep the fields of other managers."""

import time

import pytest

from modelyard.components.errors import DeployError
from tests.cluster.rollout.conftest import LONG_BAKE_SECONDS
from tests.integration.serve.attackers import SHARE

pytestmark = pytest.mark.cluster

SUMMARY = "0 client requests and 40 golden requests, 0 failed"


def test_first_rollout_sends_golden_requests(workspace):
    v1 = workspace.publish()
    outcome = workspace.deploy(v1, expected=0)
    assert (outcome.decision, outcome.version) == ("promote", v1)
    workspace.assert_settled(v1)
    assert SUMMARY in workspace.log(), "the summary has the golden requests"
    assert "latency is not compared" in workspace.log()
    assert SUMMARY in workspace.models.champion(workspace.name).reason


def deploy_new_version(workspace, **changes):
    """Deploy another version and return its number."""
    version = workspace.publish()
    assert workspace.deploy(version, workspace.platform_with(**changes)).decision == "promote"
    workspace.assert_settled(version)
    return version


def test_promotion_under_load_fails_no_request(served):
    with served.load().running(8) as clients:
        version = deploy_new_version(served, bake_seconds=LONG_BAKE_SECONDS)
        served.wait_for_other_pods(version)
    assert clients.failed == []
    assert clients.sent > 100
    summary = next(line for line in reversed(served.log_lines) if line.startswith("canary analysis: "))
    assert "and 0 golden requests" in summary, "clients sent enough"
    assert version == served.stable()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_promotions_under_load_fail_no_request(served):
    with served.load().running(4) as clients:
        for _ in range(max(1, int(50 * SHARE))):
            version = deploy_new_version(served)
    served.wait_for_other_pods(version)
    assert clients.failed == []


def test_deploying_the_served_version_changes_nothing(served):
    version = served.stable()
    before = served.platform.deployment("stable")
    assert served.deploy(version, expected=version - 1).decision == "promote"
    after = served.platform.deployment("stable")
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    served.assert_settled(version)


def test_champion_with_other_servers_is_verified_as_a_candidate(served, missing_image):
    version, before = served.stable(), served.platform.deployment("stable")
    with served.load().running() as clients:
        with pytest.raises(DeployError, match=f"Version {version} was not deployed, and stable serves ver"):
            served.deploy(version, served.platform_with(image=missing_image))
        generation = served.platform.deployment("stable")["metadata"]["generation"]
        assert generation == before["metadata"]["generation"], "stable is unchanged"
        served.log_lines.clear()
        assert served.deploy(version, served.platform_with(ready_timeout=61.0)).decision == "promote"
    assert clients.failed == []
    served.assert_settled(version)
    assert "canary analysis: " in served.log()
    assert served.platform.deployment("stable")["metadata"]["generation"] > generation
    assert served.models.history(served.name)[-1].attempt, "the pointer did not move"


def test_version_compared_with_another_champion_is_held(served):
    version = served.stable()
    outcome = served.deploy(served.publish(), expected=version + 100)
    assert outcome.decision == "hold"
    assert f"to version {version}" in outcome.reason
    served.assert_settled(version)


@pytest.mark.soak  # waits for an autoscaler
def test_fields_of_other_managers_are_kept(served, kubectl):
    name, namespace = f"{served.name}-stable", served.platform.cluster.namespace
    kubectl("annotate", "deployment", name, "team=vision", "-n", namespace)
    kubectl("patch", "service", served.name, "-n", namespace, "-p", '{"spec": {"type": "NodePort"}}')
    kubectl("autoscale", "deployment", name, "--min=2", "--max=3", "-n", namespace)
    deadline = time.monotonic() + 60
    while served.platform.deployment("stable")["spec"]["replicas"] != 2:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    deploy_new_version(served)
    stable, service = (
        served.platform.deployment("stable"),
        served.platform.cluster.get("Service", served.name),
    )
    assert stable["spec"]["replicas"] == 2, "the autoscaler's replicas are kept"
    assert stable["metadata"]["annotations"]["team"] == "vision"
    assert service["spec"]["type"] == "NodePort"
    kubectl("delete", "hpa", name, "-n", namespace)
    kubectl("scale", "deployment", name, "--replicas=1", "-n", namespace)
    deploy_new_version(served)
    assert served.platform.deployment("stable")["spec"]["replicas"] == 1, "replicas that were scaled are kept"


def test_stable_is_first_updated_to_the_pointer(served):
    old, new = served.stable(), served.publish()
    served.models.promote(served.name, new, reason="without a rollout", by="test")
    version = deploy_new_version(served)
    assert f"stable serves version {old} and the champion is version {new}" in served.log()
    assert version == served.stable()


def test_version_is_deployed_although_its_champion_never_was(workspace):
    v1, v2 = workspace.publish(), workspace.publish()
    workspace.models.promote(workspace.name, v1, reason="without a rollout", by="test")
    assert workspace.deploy(v2).decision == "promote"
    workspace.assert_settled(v2)
    assert f"stable serves nothing and the champion is version {v1}" in workspace.log()


def test_pods_have_no_permissions(served):
    (pod,) = served.platform.ready_pods("stable")
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert spec["automountServiceAccountToken"] is False
    assert not any("serviceAccountToken" in str(volume) for volume in spec["volumes"])
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["resources"]["limits"]["memory"] == "256Mi"
