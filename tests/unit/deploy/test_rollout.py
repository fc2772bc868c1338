"""Versions that cannot run, stable that cannot follow, pointers that move: what served goes on serving."""

import pytest

from modelyard.components.deploy import objects, rollout, tracks, verification
from modelyard.components.errors import ClusterError, DeployError, StoreError, UnreachableError


def entries(platform):
    return [(one.action, one.version, one.attempt) for one in platform.models.history("digits")]


@pytest.fixture
def promote(platform):
    """Move the pointer alone, as `models promote` does."""
    return lambda served: platform.models.promote("digits", served.version, reason="by hand", by="test")


@pytest.fixture
def stable_refuses(platform, cluster):
    """Let versions run as candidates, and not as stable."""
    refused, apply_stable = set(), platform.apply_stable

    def apply(version, *rest, **more):
        cluster.broken = set(refused)
        try:
            return apply_stable(version, *rest, **more)
        finally:
            cluster.broken = set()

    platform.apply_stable = apply
    return refused


def test_a_champion_that_cannot_run_keeps_no_other_version_from_clients(
    platform, cluster, version, deploy, promote, state, logged
):
    one, two, three = version(), version(), version()
    deploy(one)
    promote(two)
    cluster.broken.add(two.version)
    with pytest.raises(DeployError, match="could not be brought to version 2: The quota"):
        deploy(two)
    assert state() == (2, 1, None, True), "what served goes on"
    last = platform.models.history("digits")[-1]
    assert (last.version, last.attempt) == (2, True)
    assert last.reason.startswith("not deployed: ")
    assert last.reason.endswith("Stable serves version 1 as before.")

    cluster.broken.add(three.version)
    with pytest.raises(DeployError, match=r"Version 3 was not promoted, and stable serves version 1 as b"):
        deploy(three)
    assert entries(platform)[-1] == ("promote", 3, True)

    cluster.broken.remove(three.version)
    assert deploy(three).decision == "promote"
    assert state() == (3, 3, None, True)
    assert any("Stable serves version 1 as before. Going on" in sentence for sentence in logged)


@pytest.mark.parametrize("changed", [False, True])
def test_a_champion_that_never_ran_leaves_no_stable_behind(cluster, version, deploy, promote, state, changed):
    one, two = version(), version()
    promote(one)
    cluster.broken.add(one.version)
    delete = cluster.delete

    def changes(*_):
        cluster.delete = delete  # as when Kubernetes writes its status
        return False

    cluster.delete = changes if changed else delete
    with pytest.raises(DeployError, match="Stable serves nothing, as before"):
        deploy(one)
    assert state() == (1, None, None, True)
    assert deploy(two).decision == "promote"
    assert state() == (2, 2, None, True)


def test_a_champion_whose_files_are_gone_keeps_no_other_version_from_clients(
    platform, version, deploy, promote, state
):
    one, two, three = version(), version(), version()
    deploy(one)
    promote(two)
    platform.serving = lambda number: platform.models.manifest("digits", number + 100 * (number == 2)).config
    with pytest.raises(DeployError, match="could not be brought to version 2: "):
        deploy(two)
    assert deploy(three).decision == "promote"
    assert state() == (3, 3, None, True)


def test_a_champion_without_golden_requests_is_not_served(version, deploy, promote, state, monkeypatch):
    one, two = version(), version()
    deploy(one)
    promote(two)
    monkeypatch.setattr(verification, "GOLDEN", "of_old.json")
    with pytest.raises(DeployError, match=r"has no of_old\.json.* Stable goes on with the servers"):
        deploy(two)
    assert state() == (2, 1, None, True)


def test_a_champion_that_answers_wrongly_is_not_served_for_long(platform, version, deploy, promote, state):
    one, two = version(), version(answer=0.7)
    deploy(one)
    before = platform.deployment("stable")["spec"]["template"]
    promote(two)
    with pytest.raises(DeployError, match=r"otherwise than evaluate saw.* Stable serves version 1 as before"):
        deploy(two)
    assert state() == (2, 1, None, True)
    assert platform.deployment("stable")["spec"]["template"] == before

    deploy(version())
    with pytest.raises(DeployError, match=r"otherwise than evaluate saw.*Version 3 is the champion again"):
        rollout.rollback(platform, two.version, "a mistake", "test")
    assert state() == (3, 3, None, True)


def test_a_champion_whose_new_image_answers_wrongly_gets_the_old_one_back(platform, cluster, version, deploy):
    one = version()
    deploy(one)
    cluster.wrong.add("serve:2")
    platform.target = platform.target.model_copy(update={"image": "serve:2"})
    with pytest.raises(DeployError, match=r"otherwise than evaluate saw.* Stable serves version 1 as before"):
        deploy(one)
    assert objects.image(platform.deployment("stable")) == "serve:1"


def test_a_rollback_to_a_version_that_cannot_run_comes_back(platform, cluster, version, deploy, state):
    one, two = version(), version()
    deploy(one)
    deploy(two)
    before = platform.deployment("stable")["spec"]["template"]
    cluster.broken.add(one.version)
    platform.target = platform.target.model_copy(update={"image": "serve:of-another-environment"})
    with pytest.raises(DeployError, match=r"Version 2 is the champion again\. Stable serves version 2 as b"):
        rollout.rollback(platform, None, "it is bad", "test")
    assert state() == (2, 2, None, True)
    assert platform.deployment("stable")["spec"]["template"] == before, "down to the image"
    assert entries(platform)[-2:] == [("rollback", 1, False), ("rollback", 2, False)]
    assert "could not be brought to version 1: The quota" in platform.models.champion("digits").reason


def test_the_rollout_of_another_version_leaves_the_image_of_the_champion(
    platform, cluster, clock, version, deploy
):
    """Also where stable's pods are just not all there, as when a node went."""
    one, two = version(), version()
    deploy(one)
    status = cluster.objects["Deployment digits-stable"]["status"]
    status["availableReplicas"] = 0
    clock.during = lambda: status.update(availableReplicas=1)
    platform.target = platform.target.model_copy(update={"image": "serve:2"})
    images = []
    platform.log = lambda _: images.append(objects.image(platform.deployment("stable")))
    deploy(two)
    assert (images[0], images[-1]) == ("serve:1", "serve:2")


def test_a_pod_that_is_gone_while_it_is_verified_is_no_wrong_answer(cluster, version, deploy, state):
    deploy(version())
    proxy_request, gone = cluster.proxy_request, []

    def once(kind, name, *rest):
        if name.startswith("digits-stable-2") and not gone:
            gone.append(name)
            raise ClusterError("the pod is gone")
        return proxy_request(kind, name, *rest)

    cluster.proxy_request = once
    deploy(version())
    assert gone
    assert state() == (2, 2, None, True)


def test_a_candidate_whose_pods_are_gone_is_not_verified(cluster, version, deploy, state, on_log):
    deploy(version())
    on_log("candidate: ", lambda: cluster._of.pop("digits-candidate"))
    with pytest.raises(DeployError, match=r"gone before .* Version 2 was not promoted"):
        deploy(version())
    assert state() == (1, 1, None, True)


def test_stable_that_cannot_follow_goes_back_with_the_pointer(
    platform, stable_refuses, version, deploy, state
):
    one, two = version(), version()
    deploy(one)
    stable_refuses.add(two.version)
    with pytest.raises(
        DeployError, match=r"version 2: .*Version 1 is the champion again\. Stable serves ver"
    ):
        deploy(two)
    assert state() == (1, 1, None, True)
    assert entries(platform)[-2:] == [("promote", 2, False), ("rollback", 1, False)]
    stable_refuses.add(one.version)
    with pytest.raises(DeployError, match="could not be brought back to version 1, and goes on with what"):
        deploy(two)
    assert state() == (1, 1, None, True)


def test_the_first_version_answers_as_candidate_where_stable_cannot(stable_refuses, version, deploy, state):
    one = version()
    stable_refuses.add(one.version)
    with pytest.raises(DeployError, match="its candidate goes on answering clients"):
        deploy(one)
    assert state() == (1, 1, 1, False)
    stable_refuses.clear()
    assert deploy(one).decision == "promote"
    assert state() == (1, 1, None, True)


@pytest.mark.parametrize("failures", [1, 99])
def test_the_store_is_unavailable_when_the_pointer_has_to_go_back(
    platform, stable_refuses, version, deploy, state, monkeypatch, failures
):
    one, two = version(), version()
    deploy(one)
    stable_refuses.add(two.version)
    promote, left = platform.models.promote, [failures]

    def interrupted(*arguments, **more):
        if more.get("action") == "rollback" and left[0]:
            left[0] -= failures == 1
            raise UnreachableError("the store is away")
        return promote(*arguments, **more)

    monkeypatch.setattr(platform.models, "promote", interrupted)
    back = failures == 1
    said = "is the champion again" if back else "`modelyard models promote digits 1 -e ENV` moves it"
    with pytest.raises(DeployError, match=said):
        deploy(two)
    assert state() == (1 if back else 2, 1, None, True), "stable goes back in any case"


def test_a_pointer_that_moved_meanwhile_is_followed(
    platform, stable_refuses, version, deploy, promote, state
):
    one, two, three = version(), version(), version()
    deploy(one)
    stable_refuses.add(two.version)
    apply_stable = platform.apply_stable

    def apply(number, *rest, **more):
        written = apply_stable(number, *rest, **more)
        if number == two.version:
            promote(three)
        return written

    platform.apply_stable = apply
    with pytest.raises(DeployError, match=r"moved the pointer meanwhile\. Stable serves version 3"):
        deploy(two)
    assert state() == (3, 3, None, True)


def test_stable_is_written_again_after_a_race_that_was_lost(platform, cluster, version, promote, state):
    version()
    promote(version())
    races, apply = [1], cluster.apply

    def overtaken(desired, manager):
        written = apply(desired, manager)
        if races and desired["kind"] == "Deployment":
            labels = {objects.VERSION: str(races.pop())}
            apply({**desired, "metadata": {**desired["metadata"], "labels": labels}}, "")
        return written

    cluster.apply = overtaken
    tracks.reconcile(platform)
    assert state()[:2] == (2, 2)


def test_a_candidate_that_cannot_be_deleted_prevents_no_rollback(platform, cluster, version, deploy, state):
    one, two, three = version(), version(), version()
    deploy(one)
    deploy(two)
    tracks.claim(platform, three, "killed")
    delete = cluster.delete

    def unavailable(*_):
        cluster.delete = delete
        raise ClusterError("The API server is away.")

    cluster.delete = unavailable
    with pytest.raises(ClusterError, match=r"is away\. Version 1 is the champion; deploy it again"):
        rollout.rollback(platform, None, "it is bad", "test")
    assert state() == (1, 1, None, True)


def test_a_store_that_fails_once_the_pointer_has_moved(platform, version, deploy, state, on_log):
    one, two = version(), version()
    deploy(one)
    champion = platform.models.champion

    def fail(_):
        raise StoreError("Cannot read the pointer.")

    on_log("promoted: ", lambda: setattr(platform.models, "champion", fail))
    with pytest.raises(StoreError, match=r"the pointer\. Version 2 is the champion; deploy it again to see"):
        deploy(two)
    platform.models.champion = champion
    assert state() == (2, 1, None, True)


def test_each_version_is_served_with_the_section_of_its_own_run(platform, version, promote):
    served = version(), version()
    platform.serving = lambda number: {"max_batch": number}
    for pinned in served:
        promote(pinned)
        tracks.reconcile(platform)
        assert objects.serving(platform.deployment("stable"))["max_batch"] == pinned.version


def test_a_candidate_that_is_promoted_by_hand_keeps_its_image_and_its_section(platform, version, promote):
    promote(version())
    two = version()
    platform.serving = lambda number: {"max_batch": number}
    platform.apply_candidate(2, two.digest, "token", None)
    platform.serving = lambda _: {"max_batch": 99}
    platform.target = platform.target.model_copy(update={"image": "serve:of-another-user"})
    candidate = tracks.find_candidate(platform)
    assert rollout.promote_candidate(platform, candidate, "good", "test").version == 2
    promoted = platform.deployment("stable")
    assert (objects.version(promoted), objects.image(promoted)) == (2, "serve:1")
    assert objects.serving(promoted)["max_batch"] == 2
    assert tracks.stable_image(platform, 2) == "serve:1"


class Killed(BaseException):
    """The process is gone: nothing is tidied up."""


@pytest.mark.parametrize("write", ["apply", "delete", "promote"])
def test_a_rollout_that_was_killed_at_any_write_ends_well_when_repeated(
    platform, cluster, version, deploy, state, write
):
    deploy(version())
    owner = platform.models if write == "promote" else cluster
    action, writes, killed = getattr(owner, write), 0, True
    while killed:
        writes, left, two = writes + 1, [writes], version()

        def interrupted(*arguments, left=left, **more):
            result = action(*arguments, **more)  # it arrives, and the process does not hear of it
            if not left[0]:
                raise Killed
            left[0] -= 1
            return result

        setattr(owner, write, interrupted)
        try:
            deploy(two)
            killed = False
        except Killed:
            assert state()[0] in (two.version - 1, two.version)
            setattr(owner, write, action)
            assert deploy(two).decision == "promote"
        assert state() == (two.version, two.version, None, True)
    assert writes > 1
