"""The pointer has moved, and stable cannot follow it: both go back, or what is left to do is said."""

import pytest

from modelyard.components.deploy import candidate, rollout
from modelyard.components.deploy import site as places
from modelyard.components.errors import ClusterError, DeployError, StoreError, UnreachableError


@pytest.fixture
def stable_refuses(site, cluster):
    """Let versions run as candidates, and not as stable."""
    refused = set()
    put = site.put_stable

    def put_stable(version, *rest, **more):
        cluster.broken = set(refused)
        try:
            return put(version, *rest, **more)
        finally:
            cluster.broken = set()

    site.put_stable = put_stable
    return refused


def test_stable_that_cannot_follow_goes_back_with_the_pointer(site, stable_refuses, version, deploy, state):
    one, two = version(), version()
    deploy(one)
    stable_refuses.add(two.version)
    with pytest.raises(
        DeployError, match=r"version 2: .*Version 1 is the champion again\. Stable serves vers"
    ):
        deploy(two)
    assert state() == (1, 1, None, True)
    last = [(one.action, one.version, one.attempt) for one in site.models.history("digits")[-2:]]
    assert last == [("promote", 2, False), ("rollback", 1, False)]


def test_neither_version_runs_as_stable_any_more(stable_refuses, version, deploy, state):
    one, two = version(), version()
    deploy(one)
    stable_refuses.update({one.version, two.version})
    with pytest.raises(
        DeployError, match="could not be brought back to version 1, and goes on with what runs"
    ):
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


@pytest.mark.parametrize("away", [1, 99])
def test_the_store_is_away_when_the_pointer_is_to_go_back(
    site, stable_refuses, version, deploy, state, monkeypatch, away
):
    monkeypatch.setattr(places, "STORE_PAUSE", 0.0)
    site.rollout = site.rollout.model_copy(update={"store_timeout": 0.05})
    one, two = version(), version()
    deploy(one)
    stable_refuses.add(two.version)
    promote, left = site.models.promote, [away]

    def interrupted(*arguments, **more):
        if more.get("action") == "rollback" and left[0]:
            left[0] -= away == 1
            raise UnreachableError("the store is away")
        return promote(*arguments, **more)

    monkeypatch.setattr(site.models, "promote", interrupted)
    said = "is the champion again" if away == 1 else "`modelyard models promote digits 1 -e ENV` moves it"
    with pytest.raises(DeployError, match=said):
        deploy(two)
    assert state() == (1 if away == 1 else 2, 1, None, True), "stable goes back in any case"


def test_somebody_else_moves_the_pointer_before_it_goes_back(site, stable_refuses, version, deploy, state):
    one, two, three = version(), version(), version()
    deploy(one)
    stable_refuses.add(two.version)
    put = site.put_stable

    def put_stable(number, *rest, **more):
        written = put(number, *rest, **more)
        if number == two.version:
            site.models.promote("digits", three.version, reason="by hand", by="somebody")
        return written

    site.put_stable = put_stable
    with pytest.raises(
        DeployError, match=r"Somebody else moved the pointer meanwhile\. Stable serves version 3"
    ):
        deploy(two)
    assert state() == (3, 3, None, True)


def test_a_candidate_that_cannot_be_taken_away_keeps_no_rollback(site, cluster, version, deploy, state):
    one, two, three = version(), version(), version()
    deploy(one)
    deploy(two)
    candidate.claim(site, three, "killed")
    delete = cluster.delete

    def away(*_):
        cluster.delete = delete
        raise ClusterError("The API server is away.")

    cluster.delete = away
    with pytest.raises(ClusterError, match=r"is away\. Version 1 is the champion; deploy it again"):
        rollout.rollback(site, None, "it is bad", "test")
    assert state() == (1, 1, None, True)


def test_a_store_that_is_away_once_the_pointer_has_moved(site, version, deploy, state, monkeypatch):
    one, two = version(), version()
    deploy(one)
    site.rollout = site.rollout.model_copy(update={"store_timeout": 0.0})

    def say(sentence):
        if sentence.startswith("promoted: "):
            monkeypatch.setattr(site.models, "champion", away)

    def away(_):
        raise StoreError("Cannot read the pointer.")

    site.say = say
    with pytest.raises(StoreError, match=r"the pointer\. Version 2 is the champion; deploy it again to see"):
        deploy(two)
    monkeypatch.undo()
    assert state() == (2, 1, None, True)
