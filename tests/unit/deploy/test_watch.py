"""What counts against a candidate while it is watched, and what was over before."""

import pytest

from modelyard.components.artifacts import Golden
from modelyard.components.deploy import objects, stages, waiting
from modelyard.components.deploy.version import Served
from modelyard.components.deploy.waiting import Watchman
from modelyard.components.errors import DeployError

SERVED = Served(2, "d" * 64, Golden(instances=[[0]], predictions=[[1.0]]))


def watch(site, ready=1):
    counts = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": ready}
    return stages.watch(site, SERVED, lambda _: {"metadata": {}, "spec": {}, "status": counts})


@pytest.mark.usefixtures("pod")
def test_a_restart_before_the_watch_does_not_count(site):
    assert "0 failed" in watch(site)


def test_a_restart_in_the_watch_counts(site, cluster, pod):
    cluster.look = lambda: pod.runs(restarts=3 if cluster.answered else 2)
    with pytest.raises(DeployError, match="ended 3 times, last with exit code 8"):
        watch(site)


@pytest.mark.usefixtures("pod")
def test_a_candidate_that_is_not_ready_at_the_end_of_its_watch_does_not_pass(site, monkeypatch):
    monkeypatch.setattr(stages, "EXTRA", 0.0)
    with pytest.raises(DeployError, match="did not pass its watch: it does not answer, or is not ready"):
        watch(site, ready=0)


@pytest.mark.usefixtures("pod")
def test_a_candidate_that_hangs_at_the_end_of_its_watch_does_not_pass(site, cluster, monkeypatch):
    monkeypatch.setattr(stages, "EXTRA", 0.0)
    site.rollout = site.rollout.model_copy(update={"min_requests": 0})  # it answered enough before
    proxied = cluster.proxy_request
    cluster.proxy_request = lambda *asked: (504, b"silent") if cluster.answered else proxied(*asked)
    with pytest.raises(DeployError, match="did not pass its watch: it does not answer, or is not ready"):
        watch(site)


def test_a_pod_that_is_ready_again_has_its_whole_time_again(site, pod, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])
    watchman = Watchman(site)
    for at, ready in ((0.0, False), (1.0, True), (150.0, False), (240.0, False)):
        now[0] = at
        pod.runs(restarts=0, ready=ready)
        watchman.judge(pod.json)
    now[0] = 251.0
    with pytest.raises(DeployError, match="was not ready within 100 s"):
        watchman.judge(pod.json)


def test_pods_that_ended_are_not_looked_at(site, pod):
    assert len(site.pods("candidate")) == 1
    pod.json["status"]["phase"] = "Failed"
    assert site.pods("candidate") == []


def killed(pod, *, restarts, ready):
    """Let the pod's container have used too much memory the last time that it ended."""
    pod.runs(restarts=restarts, ready=ready)
    ended = {"exitCode": 137, "reason": "OOMKilled"}
    pod.json["status"]["containerStatuses"][0]["lastState"] = {"terminated": ended}


def test_memory_that_was_short_before_the_watch_does_not_make_a_blip_fatal(site, pod):
    killed(pod, restarts=2, ready=True)
    watchman = Watchman(site, [pod.json])
    killed(pod, restarts=2, ready=False)
    watchman.judge(pod.json)
    killed(pod, restarts=3, ready=False)
    with pytest.raises(DeployError, match="was killed because it used too much memory"):
        watchman.judge(pod.json)


def test_memory_that_is_short_in_the_watch_is_fatal_at_once(site, cluster, pod):
    killed(pod, restarts=2, ready=True)
    cluster.look = lambda: killed(pod, restarts=3 if cluster.answered else 2, ready=not cluster.answered)
    with pytest.raises(DeployError, match="was killed because it used too much memory"):
        watch(site)


def test_the_trouble_of_a_pod_is_seen_whatever_a_cluster_added_to_it(site, cluster):
    found = site.put_candidate(2, "d" * 64, "attempt", None)
    (pod,) = cluster.list("Pod", "modelyard.dev/track=candidate")
    pod["metadata"] |= found["spec"]["template"]["metadata"]
    pod["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1"}}  # as a LimitRange does
    looks, waiting_for = iter([{**found, "status": {}}]), {"reason": "ErrImagePull", "message": "not found"}
    pod["status"]["conditions"] = []
    pod["status"]["containerStatuses"][0] |= {"state": {"waiting": waiting_for}}
    with pytest.raises(DeployError, match=r"Image \S+ of pod digits-candidate-2 cannot be pulled: not found"):
        waiting.until_complete(site, "candidate", lambda _: next(looks))


def test_the_trouble_of_a_pod_of_an_earlier_template_is_none(site):
    before = site.put_candidate(2, "d" * 64, "attempt", None)
    pod = {"metadata": before["spec"]["template"]["metadata"]}
    assert objects.made_from(before, pod)
    site.target = site.target.model_copy(update={"image": "serve:2"})
    assert not objects.made_from(site.put_candidate(2, "d" * 64, "attempt", None), pod)


def test_a_pod_that_comes_and_goes_is_no_progress(site, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(waiting.time, "sleep", lambda _: now.__setitem__(0, now[0] + 10))
    site.put_candidate(2, "d" * 64, "attempt", None)

    def flapping(found):
        status = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1}
        return {**found, "status": {**status, "availableReplicas": int(now[0] / 10) % 2}}

    with pytest.raises(DeployError, match="came no further for 520 s"):
        waiting.until_complete(site, "candidate", flapping)
    assert now[0] < 600
