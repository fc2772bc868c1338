"""Whose a candidate is, who leads clients to it, and what becomes of one that a killed rollout left."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from modelyard.components.deploy import canary_analysis, heartbeat, objects, rollout, tracks
from modelyard.components.deploy.canary_analysis import join_service
from modelyard.components.deploy.tracks import Superseded
from modelyard.components.errors import ClusterError, DeployError


@pytest.fixture
def one(version, deploy):
    """Version 1, promoted."""
    pinned = version()
    deploy(pinned)
    return pinned


def claim_and_join(platform, pinned, token):
    tracks.claim(platform, pinned, token)
    join_service(platform, token)


def leave_behind(platform, pinned, join=True):
    """Leave a candidate as a rollout does that was killed during its canary analysis."""
    (claim_and_join if join else tracks.claim)(platform, pinned, "killed")
    long_ago = datetime.now(UTC) - heartbeat.HEARTBEAT_LOST - timedelta(seconds=1)
    found = platform.cluster.objects["Deployment digits-candidate"]
    found["metadata"]["annotations"][objects.HEARTBEAT] = long_ago.isoformat(timespec="seconds")


@pytest.mark.usefixtures("one")
def test_no_rollout_leads_clients_to_a_candidate_that_another_one_takes_over(
    platform, cluster, version, state
):
    two = version()
    tracks.claim(platform, two, "early")
    get = cluster.get

    def overtaken(kind, name):
        found = get(kind, name)
        if name == "digits-candidate":  # between the last look and the switch
            cluster.get = get
            tracks.claim(platform, two, "late")
        return found

    cluster.get = overtaken
    with pytest.raises(Superseded):
        join_service(platform, "early")
    assert state() == (1, 1, 2, True)


@pytest.mark.usefixtures("one")
def test_a_rollout_that_marked_the_service_and_was_killed_blocks_no_other(
    platform, cluster, clock, version, state
):
    tracks.claim(platform, version(), "mine")
    platform.route(canary=False, token="killed")  # noqa: S106
    began, get = clock.time, cluster.get

    def slow(kind, name):
        clock.time += 0.2
        return get(kind, name)

    cluster.get = slow
    join_service(platform, "mine")
    assert clock.time - began >= canary_analysis.CLAIMING, "it had its time"
    assert state() == (1, 1, 2, False)


@pytest.mark.usefixtures("one")
def test_an_end_that_comes_late_leaves_the_candidate_of_another_rollout(platform, cluster, version, state):
    two = version()
    tracks.claim(platform, two, "early")
    get = cluster.get

    def raced(kind, name):
        found = get(kind, name)
        if name == "digits-candidate":  # the early one has looked, and the late one is faster
            cluster.get = get
            claim_and_join(platform, two, "late")
        return found

    cluster.get = raced
    assert tracks.withdraw(platform, "early") is None
    assert state() == (1, 1, 2, False)


@pytest.mark.usefixtures("one")
def test_a_takeover_marks_the_service_before_and_switches_it_after(platform, cluster, version, state):
    two, apply = version(), cluster.apply
    claim_and_join(platform, two, "early")

    def late(desired, manager):
        if desired["kind"] == "Deployment" and objects.annotation(desired, objects.TOKEN) == "late":
            cluster.apply = apply
            assert objects.annotation(platform.service(), objects.TOKEN) == "late"
            assert state()[3], "clients reach stable alone before the candidate changes"
            platform.route(canary=True, token="early")  # noqa: S106
        return apply(desired, manager)

    cluster.apply = late
    tracks.claim(platform, two, "late")
    assert state() == (1, 1, 2, True)


@pytest.mark.usefixtures("one")
def test_a_claim_that_comes_late_leaves_clients_to_the_one_who_took_it(platform, version, state, monkeypatch):
    two, beat = version(), tracks.beat

    def overtaken(model, token):
        monkeypatch.setattr(tracks, "beat", beat)
        claim_and_join(platform, two, "late")
        beat(model, token)

    monkeypatch.setattr(tracks, "beat", overtaken)
    with pytest.raises(Superseded, match="took the candidate's place"):
        tracks.claim(platform, two, "early")
    assert state() == (1, 1, 2, False)
    assert objects.annotation(platform.service(), objects.TOKEN) == "late"


def test_a_write_that_always_conflicts_ends(platform, cluster):
    cluster.apply = lambda *_: None
    with pytest.raises(ClusterError, match="digits-stable was changed by others 60 times"):
        platform.apply_stable(1, "d" * 64)


@pytest.fixture
def quota(cluster, pod):
    """Have no room for version 2 beside the server of an earlier candidate, which ends."""
    pod.json["metadata"]["deletionTimestamp"] = "now"
    cluster.broken.add(2)


@pytest.mark.usefixtures("one", "quota")
def test_a_candidate_that_a_quota_has_no_room_for_waits_for_the_one_before(
    platform, cluster, clock, pod, version, logged
):
    def end():
        assert platform.deployment("candidate") is None, "created again, Kubernetes tries it at once"
        cluster.pods.remove(pod.json)
        cluster.broken.clear()

    clock.during = end
    tracks.claim(platform, version(), "mine")
    assert logged[-2].startswith("waiting for the servers of the previous candidate")
    assert len(platform.ready_pods("candidate")) == 1


@pytest.mark.usefixtures("one", "quota")
def test_servers_that_never_end_block_no_rollout(platform, clock, version):
    tracks.claim(platform, version(), "mine")  # as when their node is lost
    assert clock.time > tracks.ENDING
    assert objects.version(tracks.find_candidate(platform)) == 2


@pytest.mark.usefixtures("one")
def test_a_candidate_whose_pods_are_not_created_is_waited_for_a_while(
    platform, cluster, clock, pod, version, monkeypatch
):
    pod.json["metadata"]["deletionTimestamp"] = "now"
    monkeypatch.setattr(cluster, "_run", lambda deployment: deployment.update(status={}))
    tracks.claim(platform, version(), "mine")
    assert tracks.ENDING < clock.time < 2 * tracks.ENDING


@pytest.mark.usefixtures("one")
def test_an_old_candidate_that_does_not_end_is_an_error(platform, cluster, version):
    leave_behind(platform, version())
    cluster.objects["Deployment digits-candidate"]["metadata"]["deletionTimestamp"] = "now"
    with pytest.raises(DeployError, match="The old candidate of digits does not end"):
        tracks.claim(platform, version(), "mine")
    with pytest.raises(DeployError, match="`modelyard deploy digits VERSION -e ENV` makes one"):
        tracks.find_candidate(platform)


@pytest.mark.usefixtures("one")
def test_where_there_is_room_no_server_is_waited_for(platform, clock, pod, version):
    pod.json["metadata"]["deletionTimestamp"] = "now"
    tracks.claim(platform, version(), "mine")
    assert clock.time < 1


@pytest.mark.parametrize("how", ["deploy", "overtaken", "rollback"])
def test_an_abandoned_candidate_goes(platform, one, version, deploy, state, how):
    two = version()
    deploy(two)
    leave_behind(platform, version())
    assert state() == (2, 2, 3, False)
    if how == "deploy":
        deploy(two)
    elif how == "overtaken":
        assert rollout.roll_out(platform, version(), one.version, "better", "test").decision == "hold"
    else:
        rollout.rollback(platform, None, "bad", "test")
    serves = 1 if how == "rollback" else 2
    assert state() == (serves, serves, None, True)


def test_a_candidate_whose_rollout_runs_stays(platform, one, version, deploy, state):
    leave_behind(platform, version())
    heartbeat.beat(platform, "killed")
    deploy(one)
    assert state() == (1, 1, 2, False)


@pytest.mark.usefixtures("one")
def test_a_candidate_stays_where_stable_does_not_answer(platform, cluster, version, state):
    leave_behind(platform, version())
    cluster._of.pop("digits-stable")
    tracks.clear(platform)
    assert state() == (1, 1, 2, False), "it is all that clients have"


def test_clients_keep_the_first_candidate_when_its_rollout_is_killed_and_run_again(
    platform, cluster, version, deploy
):
    one, answered = version(), []
    leave_behind(platform, one)
    apply = cluster.apply

    def observe(desired, manager):
        written = apply(desired, manager)
        selector = platform.service()["spec"]["selector"]
        answered.append(objects.TRACK not in selector or platform.deployment("stable"))
        return written

    cluster.apply = observe
    assert deploy(one).decision == "promote"
    assert all(answered), "a server answers clients at any time"
    assert platform.deployment("candidate") is None


@pytest.mark.usefixtures("one")
def test_a_candidate_that_its_rollout_rejects_is_not_promoted_by_hand(platform, version, state, on_log):
    tracks.claim(platform, version(), "rollout")
    on_log("verified: ", lambda: tracks.withdraw(platform, "rollout"))
    with pytest.raises(Superseded, match="was withdrawn by another command"):
        rollout.promote_candidate(platform, tracks.find_candidate(platform), "it is good", "test")
    assert state() == (1, 1, None, True)


@pytest.mark.usefixtures("one")
@pytest.mark.parametrize("how", ["promote", "hold"])
def test_a_rollout_whose_candidate_is_taken_says_how_it_ended(platform, version, deploy, state, on_log, how):
    two = version()

    def take():
        platform.log = lambda _: None
        if how == "promote":
            rollout.promote_candidate(platform, tracks.find_candidate(platform), "it is good", "test")
        else:
            claim_and_join(platform, two, "late")

    on_log("canary: ", take)
    assert deploy(two).decision == how
    assert state() == ((2, 2, None, True) if how == "promote" else (1, 1, 2, False))


@pytest.mark.usefixtures("one")
@pytest.mark.parametrize("promoted", [False, True])
def test_aborting_a_candidate_records_an_attempt_unless_it_was_promoted(platform, version, state, promoted):
    two = version()
    tracks.claim(platform, two, "mine")
    if promoted:
        platform.models.promote("digits", two.version, reason="better", by="test")
    assert rollout.abort(platform, "by hand", "test") == 2
    assert platform.models.history("digits")[-1].attempt is not promoted
    assert state() == (2 if promoted else 1, 1, None, True)


@pytest.mark.usefixtures("one")
def test_heartbeats_are_written_at_the_own_candidate_alone(platform, version, monkeypatch):
    leave_behind(platform, version(), join=False)
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.001)
    beaten, beat = threading.Event(), heartbeat.beat

    def observe(model, token):
        beat(model, token)
        beaten.set()

    monkeypatch.setattr(heartbeat, "beat", observe)
    for attempt in ("another", "killed"):
        beaten.clear()
        with heartbeat.heartbeat(platform, attempt):
            assert beaten.wait(30)
        assert heartbeat.is_abandoned(tracks.find_candidate(platform)) is (attempt == "another")
    for thread in threading.enumerate():
        if thread.name == "heartbeat":
            thread.join(30)
            assert not thread.is_alive(), "it ends with its rollout"
