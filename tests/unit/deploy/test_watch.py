"""What counts against a candidate while it is watched, and what was over before."""

import pytest

from components.artifacts import Golden
from components.deploy import stages, waiting
from components.deploy.version import Served
from components.deploy.waiting import Watchman
from components.errors import DeployError

SERVED = Served(2, "d" * 64, Golden(instances=[[0]], predictions=[[1.0]]))


def watch(site):
    return stages.watch(site, SERVED, lambda found: found or {"metadata": {}})


@pytest.mark.usefixtures("pod")
def test_a_restart_before_the_watch_does_not_count(site):
    assert "0 failed" in watch(site)


def test_a_restart_in_the_watch_counts(site, cluster, pod):
    cluster.look = lambda: pod.runs(restarts=3 if cluster.answered else 2)
    with pytest.raises(DeployError, match="ended 3 times, last with exit code 8"):
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
