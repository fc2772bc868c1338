"""A rollout that is told to end takes its candidate from clients, and says so."""

import os
import signal
import threading

import pytest

from modelyard.components.deploy import interruption, rollout
from modelyard.components.errors import CancelledError, DeployError, UnreachableError


@pytest.fixture
def one(version, deploy):
    """Version 1, before clients."""
    served = version()
    deploy(served)
    return served


@pytest.fixture
def told(cluster):
    """Tell this process to end when the cluster is asked for something for the n-th time from now."""

    def tell(number, which=signal.SIGTERM):
        left = [number]

        def look():
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), which)

        cluster.look = look

    return tell


@pytest.mark.usefixtures("one")
@pytest.mark.parametrize("moment", range(1, 12))
def test_at_any_moment_of_verify_and_watch_the_candidate_goes(site, version, deploy, state, told, moment):
    two = version()
    told(moment)
    with pytest.raises(
        CancelledError, match=r"told to end \(SIGTERM\).*2 was not promoted, and stable serves"
    ):
        deploy(two)
    assert state() == (1, 1, None, True)
    attempt = site.models.history("digits")[-1]
    assert (attempt.version, attempt.attempt) == (2, True)
    assert attempt.reason == "not promoted: This rollout was told to end (SIGTERM)."


@pytest.mark.usefixtures("one")
def test_ctrl_c_does_the_same(site, version, deploy, state, told):
    two = version()
    told(5, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        deploy(two)
    assert state() == (1, 1, None, True)
    assert site.models.history("digits")[-1].reason == "not promoted: it was interrupted"


@pytest.mark.usefixtures("one")
def test_once_the_pointer_has_moved_the_version_stays_and_the_candidate_goes(site, version, deploy, state):
    two, put = version(), site.put_stable

    def put_stable(*arguments, **more):
        written = put(*arguments, **more)
        os.kill(os.getpid(), signal.SIGTERM)
        return written

    site.put_stable = put_stable
    with pytest.raises(CancelledError, match="Version 2 is the champion; deploy it again to see stable"):
        deploy(two)
    assert state() == (2, 2, None, True)


@pytest.fixture
def tell_at(site, monkeypatch):
    """Tell this process to end once, after a sentence, when an action is asked for."""

    def arrange(sentence, owner, name):
        action = getattr(owner, name)

        def act(*arguments):
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGTERM)
            return action(*arguments)

        def say(said):
            if said.startswith(sentence):
                monkeypatch.setattr(owner, name, act)

        site.say = say

    return arrange


@pytest.mark.usefixtures("one")
def test_a_version_that_is_rejected_goes_all_the_same(site, version, deploy, state, tell_at):
    two = version(answer=0.5)
    tell_at("candidate: ", site.models, "champion")
    said = "Version 2 was not promoted, and stable serves version 1 as before"
    with pytest.raises(DeployError, match=said):
        deploy(two)
    assert state() == (1, 1, None, True)
    assert site.models.history("digits")[-1].attempt


@pytest.mark.usefixtures("one")
def test_a_version_that_was_overtaken_goes_all_the_same(site, cluster, version, deploy, state, tell_at):
    two = version()
    tell_at("watched: ", cluster, "delete")
    other, say = version(), site.say

    def overtake(sentence):
        say(sentence)
        if sentence.startswith("watched: "):
            site.models.promote("digits", other.version, reason="by hand", by="somebody")

    site.say = overtake
    assert deploy(two).decision == "hold"
    assert state() == (3, 1, None, True)


@pytest.mark.usefixtures("one")
def test_the_candidate_goes_before_a_silent_store_is_asked(site, version, deploy, told, monkeypatch):
    two, there = version(), []

    def silent(_):
        there.append(site.deployment("candidate"))
        raise UnreachableError("the store is away")

    def say(sentence):
        if sentence.startswith("canary: "):
            monkeypatch.setattr(site.models, "champion", silent)
            told(1)

    site.say = say
    with pytest.raises(CancelledError, match="Version 2 was not promoted, and stable serves version 1"):
        deploy(two)
    assert there
    assert not any(there)


@pytest.mark.usefixtures("one")
def test_just_after_the_pointer_has_moved_nothing_is_said_to_be_as_before(site, version, deploy, state):
    two = version()

    def say(sentence):
        if sentence.startswith("promoted: "):
            os.kill(os.getpid(), signal.SIGTERM)

    site.say = say
    with pytest.raises(CancelledError, match="Version 2 is the champion; deploy it again to see stable"):
        deploy(two)
    assert state() == (2, 1, None, True)
    assert [one.attempt for one in site.models.history("digits")] == [False, False]
    assert deploy(two).decision == "promote"
    assert state() == (2, 2, None, True)


def test_a_rollback_that_is_told_to_end_says_what_is_left_to_do(site, version, deploy, state):
    deploy(version())
    deploy(version())

    def say(sentence):
        if sentence.startswith("rolled back: "):
            site.cluster.look = lambda: os.kill(os.getpid(), signal.SIGTERM)

    site.say = say
    with pytest.raises(CancelledError, match="Version 1 is the champion; deploy it again to see stable"):
        rollout.rollback(site, None, "it is bad", "test")
    site.cluster.look = lambda: None
    assert state() == (1, 1, None, True)


def test_a_second_signal_does_not_break_off_what_the_first_began():
    done = []
    with pytest.raises(CancelledError), interruption.heeded():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("tidied up")
    assert done == ["tidied up"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_is_deferred_is_done_first():
    done = []
    with interruption.heeded(), interruption.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("withdrawn")
    assert done == ["withdrawn"]


def test_another_thread_is_left_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with interruption.heeded(), interruption.deferred():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
