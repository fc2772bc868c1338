"""Two Deployments and a Service: owner of the candidate, route of the Service, pods of stable."""

import json
from datetime import UTC, datetime

import pytest

from modelyard.components.deploy.platforms import deployment, objects
from modelyard.components.deploy.platforms.base import HEARTBEAT_TIMEOUT, Superseded
from modelyard.components.errors import ClusterError, ConfigError, DeployError, ServeError
from modelyard.components.kubernetes.cluster import Cluster
from modelyard.components.server import predict_one
from tests.unit.deploy.conftest import intercept


@pytest.fixture
def stable(platform):
    """The servers of stable, of version 1."""
    servers = platform.describe_servers(1, "d" * 64)
    platform.reconcile(servers, None)
    return servers


@pytest.fixture
def state(platform):
    """Return a function that returns the versions of stable and candidate.

    Its third value is whether the Service selects only stable.
    """

    def read_state():
        status = platform.status()
        tracks = [track.version if track else None for track in (status.stable, status.candidate)]
        service = platform.cluster.get("Service", "digits")
        return (*tracks, service is None or objects.TRACK_LABEL in service["spec"]["selector"])

    return read_state


def service_token(platform):
    """Return the token of the Service."""
    return objects.token(platform.cluster.get("Service", "digits"))


@pytest.mark.usefixtures("stable")
def test_candidate_that_was_taken_over_is_not_routed(platform, claim, state):
    claim("early")
    intercept(platform, "deployment", after=lambda: claim("late"))  # before the Service is changed
    with pytest.raises(Superseded):
        platform.route_to_candidate("early")
    assert state() == (1, 2, True)


@pytest.mark.usefixtures("stable")
def test_killed_rollout_that_annotated_the_service_does_not_block(platform, cluster, clock, claim, state):
    claim()
    platform._write_service(None, canary=False, token="killed")  # noqa: S106
    start, get = clock.time, cluster.get

    def get_slowly(kind, name):
        clock.time += 0.2
        return get(kind, name)

    cluster.get = get_slowly
    platform.route_to_candidate("token")
    assert clock.time - start >= deployment.TAKEOVER_TIMEOUT, "the Service was changed before the time-out"
    assert state() == (1, 2, False)


@pytest.mark.usefixtures("stable")
def test_late_withdrawal_keeps_the_candidate_of_another_rollout(platform, claim, state):
    claim("early")

    def take_over():
        claim("late")
        platform.route_to_candidate("late")

    intercept(platform, "deployment", after=take_over)
    assert platform.withdraw("early") is None
    assert state() == (1, 2, False)


@pytest.mark.usefixtures("stable")
def test_takeover_annotates_the_service_before_it_changes_the_candidate(platform, cluster, claim, state):
    claim("early")
    platform.route_to_candidate("early")
    apply = cluster.apply

    def apply_late_claim(desired, manager):
        if desired["kind"] == "Deployment" and objects.token(desired) == "late":
            cluster.apply = apply
            assert service_token(platform) == "late"
            assert state()[-1], "clients reach the candidate while it changes"
            platform._write_service(None, canary=True, token="early")  # noqa: S106
        return apply(desired, manager)

    cluster.apply = apply_late_claim
    claim("late")
    assert state() == (1, 2, True)


@pytest.mark.usefixtures("stable")
def test_late_claim_keeps_the_route_of_another_rollout(platform, claim, state):
    def take_over():
        claim("late")
        platform.route_to_candidate("late")

    intercept(platform, "write_heartbeat", before=take_over)
    with pytest.raises(Superseded, match="replaced the candidate"):
        claim("early")
    assert state() == (1, 2, False)
    assert service_token(platform) == "late"


def test_matching_candidate_is_kept_and_another_is_deleted(platform, cluster, claim):
    claim("early")
    uid = cluster.objects["Deployment digits-candidate"]["metadata"]["uid"]
    claim("late")
    assert cluster.objects["Deployment digits-candidate"]["metadata"]["uid"] == uid
    platform.target = platform.target.model_copy(update={"image": "serve:2"})
    claim("later")
    assert cluster.objects["Deployment digits-candidate"]["metadata"]["uid"] != uid


def test_permanent_conflict_is_an_error(platform, cluster):
    cluster.apply = lambda *_: None
    with pytest.raises(ClusterError, match="digits-stable was changed by other clients 60 times"):
        platform.reconcile(platform.describe_servers(1, "d" * 64), None)


# A quota without room --------------------------------------------------------------------------------


@pytest.fixture
def quota(cluster, pod, stable):  # noqa: ARG001
    """No room for version 2 beside the terminating pod of an earlier candidate."""
    pod.json["metadata"]["deletionTimestamp"] = "now"
    cluster.broken.add(2)


@pytest.mark.usefixtures("quota")
def test_candidate_without_room_in_the_quota_waits_for_terminating_pods(platform, cluster, clock, pod, claim):
    def end_pod():
        assert platform.deployment("candidate") is None, "created before the pod ended"
        cluster.pods.remove(pod.json)
        cluster.broken.clear()

    clock.during = end_pod
    claim()
    assert len(platform.ready_pods("candidate")) == 1


@pytest.mark.usefixtures("quota")
def test_pods_that_never_end_do_not_block_a_rollout(platform, clock, claim):
    claim()  # the pod is on a lost node
    assert clock.time > deployment.TERMINATION_TIMEOUT
    assert platform.status().candidate.version == 2


@pytest.mark.usefixtures("stable")
def test_wait_for_terminating_pods_is_limited(cluster, clock, pod, claim, monkeypatch):
    pod.json["metadata"]["deletionTimestamp"] = "now"
    monkeypatch.setattr(cluster, "_run", lambda written: written.update(status={}))
    claim()
    assert deployment.TERMINATION_TIMEOUT < clock.time < 2 * deployment.TERMINATION_TIMEOUT


def test_candidate_that_is_not_deleted_is_an_error(platform, cluster, claim):
    claim()
    cluster.objects["Deployment digits-candidate"]["metadata"]["deletionTimestamp"] = "now"
    with pytest.raises(DeployError, match="digits-candidate still exists"):
        claim("another")
    assert platform.status().candidate is None


@pytest.mark.usefixtures("stable")
def test_terminating_pods_are_ignored_if_the_quota_has_room(clock, pod, claim):
    pod.json["metadata"]["deletionTimestamp"] = "now"
    claim()
    assert clock.time < 1


# Stable ----------------------------------------------------------------------------------------------


def test_stable_is_changed_only_from_the_observed_state(platform, stable):
    v3 = platform.describe_servers(3, "d" * 64)
    platform.reconcile(v3, stable)
    with pytest.raises(Superseded):
        platform.reconcile(platform.describe_servers(2, "d" * 64), stable)
    platform.reconcile(v3, stable)  # repeated, as after a lost reply
    with pytest.raises(Superseded):
        platform.reconcile(None, stable)
    with pytest.raises(Superseded):
        platform.verify(stable, lambda _: None)
    platform.reconcile(None, v3)
    assert platform.status().stable is None


@pytest.mark.usefixtures("stable")
def test_stable_gets_exactly_the_given_pods(platform, claim):
    before = platform.status().stable
    claim()
    candidate = platform.status().candidate
    platform.target = platform.target.model_copy(update={"image": "serve:of-another-environment"})
    platform.reconcile(candidate, before)
    assert platform.status().stable.image == "serve:1"
    assert platform.status().stable.matches(candidate)
    template = platform.deployment("stable")["spec"]["template"]
    assert template["metadata"]["labels"][objects.TRACK_LABEL] == "stable"
    platform.reconcile(before, candidate)
    assert platform.deployment("stable")["spec"]["template"] == before.state


def test_replicas_of_an_autoscaler_are_kept(platform, cluster, stable):
    owner = {"manager": "hpa", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    cluster.objects["Deployment digits-stable"]["metadata"]["managedFields"] = [owner]
    manifests, apply = [], cluster.apply
    cluster.apply = lambda desired, manager: manifests.append(desired) or apply(desired, manager)
    platform.reconcile(platform.describe_servers(2, "d" * 64), stable)
    (written,) = (manifest for manifest in manifests if manifest["kind"] == "Deployment")
    assert "replicas" not in written["spec"]


def test_stable_is_verified_again_after_a_pod_ended(platform, stable):
    failed_targets = []

    def check(target):
        if not failed_targets:
            failed_targets.append(target)
            raise ClusterError("the pod is gone")

    assert platform.verify(stable, check) == 1


def test_candidate_without_pods_is_not_verified(platform, cluster, claim):
    servers = claim()
    cluster.deployment_pods.pop("digits-candidate")
    assert platform.verify(servers, lambda _: None, "token") == 0


@pytest.mark.usefixtures("stable")
def test_rollback_uses_the_last_image_of_the_version(platform, cluster):
    template = {"spec": {"containers": [{"image": "serve:earlier"}]}}
    sets = [{"metadata": {"annotations": {deployment.REVISION: "3"}}, "spec": {"template": template}}]
    list_objects = cluster.list_objects
    cluster.list_objects = lambda kind, labels: sets if kind == "ReplicaSet" else list_objects(kind, labels)
    assert platform.describe_servers(2, "d" * 64, as_last_served=True).image == "serve:earlier"
    sets.clear()
    platform.target = platform.target.model_copy(update={"image": None})
    assert platform.describe_servers(2, "d" * 64, as_last_served=True).image == "serve:1", (
        "the image of stable"
    )
    with pytest.raises(ConfigError, match=r"environment\.images\.serve"):
        platform.describe_servers(2, "d" * 64)


# Status -----------------------------------------------------------------------------------------


def test_model_name_must_be_a_service_name(platform):
    platform.name = "7segments"
    with pytest.raises(ConfigError, match="'7segments' cannot be served on Kubernetes"):
        platform.describe_servers(1, "d" * 64)


@pytest.mark.usefixtures("stable")
def test_loaded_versions_include_those_of_remaining_pods(platform, pod, claim):
    assert platform.id == platform.cluster.objects["Service digits"]["metadata"]["uid"]
    claim()
    pod.json["metadata"]["labels"][objects.VERSION_LABEL] = "7"
    assert platform.status().loaded_versions == {1, 2, 7}


def test_heartbeat_is_written_only_to_the_candidate_of_the_rollout(platform, cluster, claim):
    claim()
    assert not platform.status().abandoned
    metadata = cluster.objects["Deployment digits-candidate"]["metadata"]
    long_ago = datetime.now(UTC) - 2 * HEARTBEAT_TIMEOUT
    metadata["annotations"][objects.HEARTBEAT_ANNOTATION] = long_ago.isoformat()
    platform.write_heartbeat("another")
    assert platform.status().abandoned
    platform.write_heartbeat("token")
    assert not platform.status().abandoned


@pytest.mark.parametrize(
    "at", ["2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05", "2026-01-02T05:04:05+02:00"]
)
def test_heartbeat_is_read_in_any_time_zone(at):
    candidate = {
        "metadata": {
            "annotations": {objects.HEARTBEAT_ANNOTATION: at},
            "creationTimestamp": "2025-01-01T00:00:00Z",
        }
    }
    assert objects.last_heartbeat(candidate) == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    del candidate["metadata"]["annotations"]
    assert objects.last_heartbeat(candidate) == datetime(2025, 1, 1, tzinfo=UTC)


# The API server ----------------------------------------------------------------------------------


class Api:
    """The Kubernetes client of an API server that sends these replies in order."""

    def __init__(self, *replies):
        self.replies = list(replies)

    def call_api(self, *_, **__):
        from kubernetes.client import ApiException

        status, body = self.replies.pop(0)
        if status != 200:
            error = ApiException(status=status, reason="no")
            error.body = json.dumps(body).encode()
            raise error
        return type("Response", (), {"data": json.dumps(body).encode()})()


BUSY = 503, {"kind": "Status", "message": "the server is currently unable to handle the request"}
FAILED = 503, {"error": "overloaded"}
PREDICTION = 200, {"predictions": [[1.0]]}


@pytest.mark.parametrize(
    ("replies", "retry_seconds", "succeeds"),
    [
        ((BUSY, BUSY, PREDICTION), 60.0, True),
        ((BUSY, PREDICTION), 0.0, False),
        ((FAILED, PREDICTION), 60.0, False),
    ],
)
@pytest.mark.usefixtures("cluster")
def test_golden_requests_are_retried_only_for_the_api_server(
    platform, claim, replies, retry_seconds, succeeds
):
    claim()
    (pod,) = platform.pods("candidate")
    platform.cluster = Cluster(Api(*replies), "serving", in_cluster=False)
    server = platform.pod_server(pod, retry_seconds)
    if succeeds:
        assert predict_one(server, "digits", [1]) == [1.0]
    else:
        with pytest.raises(ServeError, match=r"unable to handle|503"):
            predict_one(server, "digits", [1])


# With the controller of the rollout --------------------------------------------------------------


def test_versions_are_promoted_rejected_and_rolled_back(
    new_controller, platform, cluster, models, publish, state
):
    controller = new_controller(platform)
    v1, v2, v3 = publish(), publish(), publish()
    for pin in (v1, v2):
        assert controller.roll_out(pin, None, "better").decision == "promote"
    assert state() == (2, None, True)
    before = cluster.objects["Deployment digits-stable"]
    cluster.broken.add(v3.version)
    with pytest.raises(
        DeployError, match=r"The quota small .* Version 3 was not promoted, and stable serves"
    ):
        controller.roll_out(v3, None, "better")
    assert cluster.objects["Deployment digits-stable"] is before
    assert controller.rollback(None, "bad").version == 1
    assert state() == (1, None, True)
    (record,) = models.served_versions("digits")
    assert (record.platform, record.location, record.versions) == (platform.id, "serving", (1,))
