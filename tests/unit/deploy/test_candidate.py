"""Whose a candidate is, who leads clients to it, and what becomes of one that a killed rollout left."""

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from modelyard.components.deploy import candidate, objects, pulse, rollout, stages
from modelyard.components.deploy.candidate import Superseded
from modelyard.components.errors import ClusterError
from modelyard.components.kubernetes import cluster as kubernetes


@pytest.fixture
def one(version, deploy):
    """Version 1, before clients."""
    served = version()
    deploy(served)
    return served


def old(site):
    """Let nobody have watched the candidate for a while."""
    long_ago = datetime.now(UTC) - pulse.SILENCE - timedelta(seconds=1)
    found = site.cluster.objects["Deployment digits-candidate"]
    found["metadata"]["annotations"][objects.WATCHED] = long_ago.isoformat(timespec="seconds")


def left(site, served, joined=True):
    """Leave a candidate behind, as a rollout does that is killed in its watch."""
    candidate.claim(site, served, "killed")
    if joined:
        stages._join(site, candidate.owner(site, "killed"))
    old(site)


@pytest.mark.usefixtures("one")
def test_no_rollout_leads_clients_to_a_candidate_that_another_one_takes_over(site, version, state):
    two = version()
    candidate.claim(site, two, "early")
    mine, races = candidate.owner(site, "early"), [lambda: candidate.claim(site, two, "late")]

    def overtaken(found):
        mine(found)
        if races:
            races.pop()()  # between the last look and the switch
        return found

    with pytest.raises(Superseded):
        stages._join(site, lambda found: overtaken(found) if races else mine(found))
    assert state() == (1, 1, 2, True)


@pytest.mark.usefixtures("one")
def test_a_rollout_that_marked_the_service_and_was_killed_keeps_nobody_from_joining(
    site, version, state, monkeypatch
):
    candidate.claim(site, version(), "mine")
    site.lead(canary=False, attempt="killed")
    monkeypatch.setattr(stages, "TAKING", 0.2)
    monkeypatch.setattr(kubernetes, "PAUSE", 0.05)
    began = time.monotonic()
    stages._join(site, candidate.owner(site, "mine"))
    assert time.monotonic() - began >= 0.2, "it had its time"
    assert state() == (1, 1, 2, False)


@pytest.mark.usefixtures("one")
def test_an_end_that_comes_late_takes_no_other_rollouts_candidate_from_clients(site, cluster, version, state):
    two = version()
    candidate.claim(site, two, "early")
    get = cluster.get

    def raced(kind, name):
        found = get(kind, name)
        if name == "digits-candidate":  # the early one has looked, and the late one is faster
            cluster.get = get
            candidate.claim(site, two, "late")
            stages._join(site, candidate.owner(site, "late"))
        return found

    cluster.get = raced
    assert candidate.withdraw(site, "early") is None
    assert state() == (1, 1, 2, False)


@pytest.mark.usefixtures("one")
def test_a_takeover_marks_the_service_before_and_switches_it_after(site, cluster, version, state):
    two, apply = version(), cluster.apply
    candidate.claim(site, two, "early")
    stages._join(site, candidate.owner(site, "early"))

    def late(wanted, manager):
        if wanted["kind"] == "Deployment" and objects.annotation(wanted, objects.ATTEMPT) == "late":
            cluster.apply = apply
            assert objects.annotation(site.service(), objects.ATTEMPT) == "late"
            assert state()[3], "clients reach stable alone before the candidate changes"
            site.lead(canary=True, attempt="early")
        return apply(wanted, manager)

    cluster.apply = late
    candidate.claim(site, two, "late")
    assert state() == (1, 1, 2, True)


def test_what_others_write_each_time_is_not_written_for_ever(site, cluster, monkeypatch):
    monkeypatch.setattr(kubernetes, "PAUSE", 0.0)
    cluster.apply = lambda *_: None
    with pytest.raises(ClusterError, match="digits-stable was changed by others 60 times in a row"):
        site.put_stable(1, "d" * 64)


@pytest.fixture
def quota(cluster, pod):
    """Have no room for version 2 beside the server of an earlier candidate, which ends."""
    pod.json["metadata"]["deletionTimestamp"] = "now"
    cluster.broken.add(2)


@pytest.mark.usefixtures("one", "quota")
def test_a_candidate_that_a_quota_has_no_room_for_waits_for_the_one_before(
    site, cluster, pod, version, said, monkeypatch
):
    def end(_):
        assert site.deployment("candidate") is None, "it is made anew, for Kubernetes to try at once"
        cluster.pods.remove(pod.json)
        cluster.broken.clear()

    monkeypatch.setattr(candidate.time, "sleep", end)
    candidate.claim(site, version(), "mine")
    assert said[-2].startswith("waiting for the servers of the candidate before")
    assert len(site.ready_pods("candidate")) == 1


@pytest.mark.usefixtures("one", "quota")
def test_servers_that_never_end_hold_nobody_up(site, version, monkeypatch):
    monkeypatch.setattr(candidate, "ENDING", 0.0)  # as when their node is gone
    candidate.claim(site, version(), "mine")
    assert objects.version(candidate.find(site)) == 2


@pytest.mark.usefixtures("one")
def test_a_candidate_whose_pods_are_not_made_is_not_looked_at_for_ever(
    site, cluster, pod, version, monkeypatch
):
    pod.json["metadata"]["deletionTimestamp"] = "now"
    looks = []

    def sleep(_):
        looks.append(1)
        assert len(looks) < 100
        threading.Event().wait(0.01)

    monkeypatch.setattr(cluster, "_run", lambda deployment: deployment.update(status={}))
    monkeypatch.setattr(candidate, "ENDING", 0.1)
    monkeypatch.setattr(candidate.time, "sleep", sleep)
    candidate.claim(site, version(), "mine")
    assert looks


@pytest.mark.usefixtures("one")
def test_a_claim_that_comes_late_leaves_clients_to_the_one_who_took_it(site, version, state, monkeypatch):
    two, beat = version(), pulse.beat

    def overtaken(place, attempt):
        monkeypatch.setattr(pulse, "beat", beat)
        candidate.claim(site, two, "late")
        stages._join(site, candidate.owner(site, "late"))
        beat(place, attempt)

    monkeypatch.setattr(pulse, "beat", overtaken)
    with pytest.raises(Superseded, match="took the candidate's place"):
        candidate.claim(site, two, "early")
    assert state() == (1, 1, 2, False)
    assert objects.annotation(site.service(), objects.ATTEMPT) == "late"


@pytest.mark.usefixtures("one")
def test_where_there_is_room_nobody_is_waited_for(site, pod, version, said):
    pod.json["metadata"]["deletionTimestamp"] = "now"
    candidate.claim(site, version(), "mine")
    assert said[-1].startswith("candidate: ")
    assert not any("waiting" in sentence for sentence in said)


@pytest.mark.parametrize("how", ["deploy", "overtaken", "rollback"])
def test_a_candidate_that_nobody_watches_goes(site, one, version, deploy, state, how):
    two = version()
    deploy(two)
    left(site, version())
    assert state() == (2, 2, 3, False)
    if how == "deploy":
        deploy(two)
    elif how == "overtaken":
        assert rollout.roll_out(site, version(), one.version, "better", "test").decision == "hold"
    else:
        rollout.rollback(site, None, "bad", "test")
    assert state() == (1 if how == "rollback" else 2, 1 if how == "rollback" else 2, None, True)


def test_a_candidate_that_is_watched_stays(site, one, version, deploy, state):
    left(site, version())
    pulse.beat(site, "killed")
    deploy(one)
    assert state() == (1, 1, 2, False)


def test_a_candidate_stays_where_stable_answers_nobody(site, one, cluster, version, state):
    left(site, version())
    cluster._of.pop("digits-stable")
    candidate.clear(site)
    assert state() == (one.version, 1, 2, False), "it is all that clients have"


def test_the_first_candidate_stays_before_clients_when_its_rollout_is_killed_and_run_again(
    site, cluster, version, deploy
):
    one, leads = version(), []
    left(site, one)
    apply = cluster.apply

    def seen(wanted, manager):
        written = apply(wanted, manager)
        leads.append(objects.TRACK not in site.service()["spec"]["selector"] or site.deployment("stable"))
        return written

    cluster.apply = seen
    assert deploy(one).decision == "promote"
    assert all(leads), "somebody answers clients at any time"
    assert site.deployment("candidate") is None


@pytest.mark.usefixtures("one")
def test_a_candidate_that_its_watcher_rejects_is_not_promoted_by_hand(site, version, state):
    candidate.claim(site, version(), "watched")

    def say(sentence):
        if sentence.startswith("verified: "):
            candidate.withdraw(site, "watched")

    site.say = say
    with pytest.raises(Superseded, match="was withdrawn by somebody else"):
        rollout.promote_candidate(site, candidate.find(site), "it is good", "test")
    assert state() == (1, 1, None, True)


@pytest.mark.usefixtures("one")
@pytest.mark.parametrize("moved", [False, True])
def test_aborting_says_of_no_champion_that_it_was_not_promoted(site, version, state, moved):
    two = version()
    candidate.claim(site, two, "mine")
    if moved:
        site.models.promote("digits", two.version, reason="better", by="test")
    assert rollout.abort(site, "by hand", "test") == 2
    assert site.models.history("digits")[-1].attempt is not moved
    assert state() == (2 if moved else 1, 1, None, True)


@pytest.mark.usefixtures("one")
def test_a_pulse_beats_at_its_own_candidate_alone(site, version, monkeypatch):
    left(site, version(), joined=False)
    monkeypatch.setattr(pulse, "BEAT", 0.01)
    with pulse.beating(site, "another"):
        time.sleep(0.1)
        assert pulse.stopped(candidate.find(site))
    with pulse.beating(site, "killed"):
        for _ in range(200):
            if not pulse.stopped(candidate.find(site)):
                break
            time.sleep(0.01)
        assert not pulse.stopped(candidate.find(site))
    for thread in threading.enumerate():
        if thread.name == "pulse":
            thread.join(30)
            assert not thread.is_alive(), "it ends with its rollout"
