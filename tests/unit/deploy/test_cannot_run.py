"""Versions whose servers cannot run: nobody is locked out, and what served goes on serving."""

import pytest

from modelyard.components.deploy import objects, rollout, waiting
from modelyard.components.deploy import version as versions
from modelyard.components.errors import ClusterError, DeployError


def entries(site):
    return [(one.action, one.version, one.attempt) for one in site.models.history("digits")]


def test_a_champion_that_cannot_run_keeps_no_other_version_from_clients(
    site, cluster, version, deploy, state, said
):
    one, two, three = version(), version(), version()
    deploy(one)
    site.models.promote("digits", two.version, reason="past the cluster", by="test")
    cluster.broken.add(two.version)

    with pytest.raises(DeployError, match="Stable of digits could not be brought to version 2: The quota"):
        deploy(two)
    assert state() == (2, 1, None, True), "what served goes on"
    last = site.models.history("digits")[-1]
    assert (last.version, last.attempt) == (2, True)
    assert last.reason.startswith(
        "not deployed: Stable of digits could not be brought to version 2: The quota"
    )
    assert last.reason.endswith("Stable serves version 1 as before.")

    assert deploy(three).decision == "promote"
    assert state() == (3, 3, None, True)
    assert "Stable serves version 1 as before. Going on: a version that runs takes its place." in "\n".join(
        said
    )


def test_where_the_other_version_fails_too_the_sentence_says_what_serves(
    site, cluster, version, deploy, state
):
    one, two, three = version(), version(), version()
    deploy(one)
    site.models.promote("digits", two.version, reason="past the cluster", by="test")
    cluster.broken |= {two.version, three.version}
    with pytest.raises(
        DeployError, match=r"Version 3 was not promoted, and stable serves version 1 as before\."
    ):
        deploy(three)
    assert state() == (2, 1, None, True)
    assert entries(site)[-1] == ("promote", 3, True)


def test_a_champion_that_never_ran_leaves_no_stable_behind(site, cluster, version, deploy, state):
    one, two = version(), version()
    site.models.promote("digits", one.version, reason="on a laptop", by="test")
    cluster.broken.add(one.version)
    with pytest.raises(DeployError, match="Stable serves nothing, as before"):
        deploy(one)
    assert state() == (1, None, None, True)
    assert deploy(two).decision == "promote"
    assert state() == (2, 2, None, True)


def test_a_stable_that_changes_when_it_is_to_go_goes_all_the_same(site, cluster, version, deploy, state):
    one = version()
    site.models.promote("digits", one.version, reason="on a laptop", by="test")
    cluster.broken.add(one.version)
    delete = cluster.delete

    def changed(*_):
        cluster.delete = delete  # as when Kubernetes writes its status
        return False

    cluster.delete = changed
    with pytest.raises(DeployError, match="Stable serves nothing, as before"):
        deploy(one)
    assert state() == (1, None, None, True)


def test_a_champion_whose_files_are_gone_keeps_no_other_version_from_clients(site, version, deploy, state):
    one, two, three = version(), version(), version()
    deploy(one)
    site.models.promote("digits", two.version, reason="past the cluster", by="test")
    site.serving = lambda number: site.models.manifest("digits", number + 100 * (number == 2)).config
    with pytest.raises(DeployError, match="could not be brought to version 2: "):
        deploy(two)
    assert deploy(three).decision == "promote"
    assert state() == (3, 3, None, True)


def test_a_rollback_to_a_version_that_cannot_run_comes_back(site, cluster, version, deploy, state):
    one, two = version(), version()
    deploy(one)
    deploy(two)
    before = site.deployment("stable")["spec"]["template"]
    cluster.broken.add(one.version)
    with pytest.raises(
        DeployError, match=r"Version 2 is the champion again\. Stable serves version 2 as before"
    ):
        rollout.rollback(site, None, "it is bad", "test")
    assert state() == (2, 2, None, True)
    assert site.deployment("stable")["spec"]["template"] == before
    assert entries(site)[-2:] == [("rollback", 1, False), ("rollback", 2, False)]
    assert "could not be brought to version 1: The quota" in site.models.champion("digits").reason


def test_pods_get_back_the_image_that_served(site, cluster, version, deploy):
    one, two = version(), version()
    deploy(one)
    deploy(two)
    cluster.broken.add(one.version)
    site.target = site.target.model_copy(update={"image": "serve:of-another-environment"})
    with pytest.raises(DeployError, match="Stable serves version 2 as before"):
        rollout.rollback(site, one.version, "it is bad", "test")
    assert objects.image(site.deployment("stable")) == "serve:1"


def test_a_champion_that_answers_wrongly_does_not_stay_before_clients(site, version, deploy, state):
    one, two = version(), version(answer=0.7)
    deploy(one)
    before = site.deployment("stable")["spec"]["template"]
    site.models.promote("digits", two.version, reason="past the cluster", by="test")
    said = r"version 2: .* otherwise than evaluate saw.* Stable serves version 1 as before"
    with pytest.raises(DeployError, match=said):
        deploy(two)
    assert state() == (2, 1, None, True)
    assert site.deployment("stable")["spec"]["template"] == before

    deploy(version())
    with pytest.raises(DeployError, match=r"otherwise than evaluate saw.*Version 3 is the champion again"):
        rollout.rollback(site, two.version, "a mistake", "test")
    assert state() == (3, 3, None, True)


def test_a_champion_without_golden_requests_is_not_put_there(site, version, deploy, state, monkeypatch):
    one, two = version(), version()
    deploy(one)
    site.models.promote("digits", two.version, reason="past the cluster", by="test")
    monkeypatch.setattr(versions, "GOLDEN", "of_old.json")
    with pytest.raises(DeployError, match=r"has no of_old\.json.* Stable goes on with the servers"):
        deploy(two)
    assert state() == (2, 1, None, True)


def test_an_image_that_answers_wrongly_does_not_stay_before_clients(site, cluster, version, deploy):
    one = version()
    deploy(one)
    cluster.wrong.add("serve:2")
    site.target = site.target.model_copy(update={"image": "serve:2"})
    with pytest.raises(DeployError, match=r"otherwise than evaluate saw.* Stable serves version 1 as before"):
        deploy(one)
    assert objects.image(site.deployment("stable")) == "serve:1"


def test_another_versions_rollout_leaves_the_champions_image(site, cluster, version, deploy, monkeypatch):
    """Also where stable's pods are just not all there, as when a node went."""
    one, two = version(), version()
    deploy(one)
    there = cluster.objects["Deployment digits-stable"]["status"]
    there["availableReplicas"] = 0
    monkeypatch.setattr(waiting.time, "sleep", lambda _: there.update(availableReplicas=1))
    site.target = site.target.model_copy(update={"image": "serve:2"})
    images = []
    site.say = lambda _: images.append(objects.image(site.deployment("stable")))
    deploy(two)
    assert images[0] == "serve:1"
    assert images[-1] == "serve:2"


def test_a_pod_that_goes_while_it_is_asked_is_no_wrong_answer(cluster, version, deploy, state):
    deploy(version())
    proxied, away = cluster.proxy_request, []

    def gone(_kind, name, *rest):
        if name.startswith("digits-stable-2") and not away:
            away.append(name)
            raise ClusterError("the pod is gone")
        return proxied(_kind, name, *rest)

    cluster.proxy_request = gone
    deploy(version())
    assert away
    assert state() == (2, 2, None, True)
