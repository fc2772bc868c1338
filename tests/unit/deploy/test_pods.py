"""Waiting for pods: time-outs, and problems that fail immediately."""

import base64
import json

import pytest

from modelyard.components.deploy.platforms.pods import PodWatcher, find_refusal, is_complete
from modelyard.components.errors import ConfigError, DeployError, UnreachableError
from modelyard.components.server import HttpServer
from modelyard.components.step import failure_document
from tests.unit.deploy.conftest import RECORDED


def test_time_out_starts_again_after_a_pod_was_ready(platform, clock, pod):
    watcher = PodWatcher(platform)
    for at, ready in ((0.0, False), (1.0, True), (150.0, False), (240.0, False)):
        clock.time = at
        pod.set_running(restarts=0, ready=ready)
        watcher.check(pod.json)
    clock.time = 251.0
    with pytest.raises(DeployError, match="was not ready within 100 s"):
        watcher.check(pod.json)


FAILED_MOUNT = 'MountVolume.SetUp failed for volume "tls" : secret "model-tls" not found'


@pytest.mark.parametrize(
    ("events", "seconds", "message"),
    [
        ([], 300, "did not start within 300 s"),
        ([{"reason": "FailedMount", "message": FAILED_MOUNT}], 30, 'secret "model-tls" not found'),
    ],
    ids=["start_timeout", "missing secret"],
)
def test_pod_that_does_not_start_fails_after_its_limit(
    platform, cluster, clock, pod, events, seconds, message
):
    pod.json["status"] = {"phase": "Pending"}
    cluster.list_events = lambda _: events
    watcher = PodWatcher(platform)
    watcher.check(pod.json)
    clock.time = seconds + 1.0
    with pytest.raises(DeployError, match=message):
        watcher.check(pod.json)


def test_crash_by_an_unreachable_store_fails_after_store_timeout(platform, clock, pod):
    pod.set_running(restarts=3, ready=False)
    status = pod.json["status"]["containerStatuses"][0]
    status["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
    record = failure_document(UnreachableError("the store is unreachable"), None).decode()
    status["lastState"] = {"terminated": {"exitCode": 7, "message": record}}
    watcher = PodWatcher(platform)
    watcher.check(pod.json)
    clock.time = 181.0
    with pytest.raises(DeployError, match="the store is unreachable"):
        watcher.check(pod.json)


def test_requests_have_the_present_token_of_the_secret(platform, cluster, clock, pod):
    platform.target = platform.target.model_copy(
        update={"token_secret": "model-token", "tls_secret": "model-tls"}
    )
    with pytest.raises(ConfigError, match="kubectl create secret generic model-token"):
        platform.describe_servers(2, "d" * 64)
    for text, token in ((b"old\nnew\n", "old"), (b"new\n", "new")):
        cluster.objects["Secret model-token"] = {"data": {"token": base64.b64encode(text).decode()}}
        assert platform.service().token == token
        assert platform.pod_server(pod.json).token == token
        assert token not in repr(platform.service())
        clock.time += 11.0
    pod.json["spec"]["volumes"].append({"name": "tls"})
    assert [platform.service().tls, platform.pod_server(pod.json).tls] == [True, True]
    cluster.in_cluster = True
    pod.json["status"]["podIP"] = "fd00::1"
    assert platform.pod_server(pod.json) == HttpServer("https://[fd00::1]:8501", token=token, verify=False)
    assert platform.service() == HttpServer("https://digits.serving:8501", token=token, verify=False)


def test_ended_pods_are_ignored(platform, pod):
    assert len(platform.pods("candidate")) == 1
    pod.json["status"]["phase"] = "Failed"
    assert platform.pods("candidate") == []


def test_earlier_out_of_memory_is_ignored(platform, pod):
    pod.set_out_of_memory(restarts=2, ready=True)
    watcher = PodWatcher(platform, [pod.json])
    pod.set_out_of_memory(restarts=2, ready=False)
    watcher.check(pod.json)
    pod.set_out_of_memory(restarts=3, ready=False)
    with pytest.raises(DeployError, match="was killed because it used too much memory"):
        watcher.check(pod.json)


def test_problem_of_a_pod_is_found_after_admission_changed_the_pod(platform, cluster, claim):
    claim()
    deployment = platform.deployment("candidate")
    (pod,) = cluster.list_objects("Pod", "modelyard.dev/track=candidate")
    pod["metadata"] |= deployment["spec"]["template"]["metadata"]
    pod["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1"}}  # as a LimitRange does
    pod["status"]["conditions"] = []
    waiting = {"reason": "ErrImagePull", "message": "not found"}
    pod["status"]["containerStatuses"][0] |= {"state": {"waiting": waiting}}
    with pytest.raises(DeployError, match=r"Image \S+ of pod digits-candidate-2 cannot be pulled: not found"):
        platform.wait_until_complete("candidate", lambda: {**deployment, "status": {}})


def test_flapping_pod_is_no_progress(platform, clock, claim):
    claim()
    deployment = platform.deployment("candidate")
    clock.during = lambda: setattr(clock, "time", clock.time + 9.5)

    def flapping():
        status = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1}
        return {**deployment, "status": {**status, "availableReplicas": int(clock.time / 10) % 2}}

    with pytest.raises(DeployError, match="made no progress for 520 s"):
        platform.wait_until_complete("candidate", flapping)
    assert clock.time < 600


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quota", "The quota small of the namespace refuses the pod: requested: requests.cpu=64"),
        ("pod-security", "(restricted) refuses the pod: allowPrivilegeEscalation != false"),
    ],
)
def test_refusal_of_pods_is_explained(name, message):
    deployment = json.loads((RECORDED / f"{name}.json").read_text())["deployment"]
    assert message in find_refusal(deployment)
    deployment["metadata"]["generation"] += 1
    assert find_refusal(deployment) is None, "the refusal is of an older template"
    assert not is_complete(deployment)
