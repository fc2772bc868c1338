"""A rollout that gets SIGTERM or Ctrl-C takes its candidate from clients."""

import os
import signal
import threading

import pytest

from modelyard.components.deploy import rollout
from modelyard.components.deploy.rollout import ignore_sigterm, raise_on_sigterm
from modelyard.components.errors import CancelledError, DeployError, UnreachableError


@pytest.fixture
def one(version, deploy):
    """Version 1, promoted."""
    pinned = version()
    deploy(pinned)
    return pinned


@pytest.fixture
def signal_at(cluster):
    """Signal this process when pods are listed for the n-th time from now."""

    def arrange(number, which=signal.SIGTERM):
        left = [number]

        def look():
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), which)

        cluster.look = look

    return arrange


@pytest.mark.usefixtures("one")
@pytest.mark.parametrize("moment", range(1, 12))
def test_at_any_moment_before_promotion_the_candidate_goes(
    platform, version, deploy, state, signal_at, moment
):
    two = version()
    signal_at(moment)
    with pytest.raises(
        CancelledError, match=r"told to end \(SIGTERM\).*2 was not promoted, and stable serves"
    ):
        deploy(two)
    assert state() == (1, 1, None, True)
    attempt = platform.models.history("digits")[-1]
    assert (attempt.version, attempt.attempt) == (2, True)
    assert attempt.reason == "not promoted: This rollout was told to end (SIGTERM)."


@pytest.mark.usefixtures("one")
def test_ctrl_c_does_the_same(platform, version, deploy, state, signal_at):
    two = version()
    signal_at(5, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        deploy(two)
    assert state() == (1, 1, None, True)
    assert platform.models.history("digits")[-1].reason == "not promoted: it was interrupted"


@pytest.mark.usefixtures("one")
def test_once_the_pointer_has_moved_the_version_stays_and_the_candidate_goes(
    platform, version, deploy, state
):
    two, put = version(), platform.apply_stable

    def apply_stable(*arguments, **more):
        written = put(*arguments, **more)
        os.kill(os.getpid(), signal.SIGTERM)
        return written

    platform.apply_stable = apply_stable
    with pytest.raises(CancelledError, match="Version 2 is the champion; deploy it again to see stable"):
        deploy(two)
    assert state() == (2, 2, None, True)


@pytest.fixture
def signal_after(platform, monkeypatch):
    """Signal this process once, after a sentence, when an action is called."""

    def arrange(sentence, owner, name):
        action = getattr(owner, name)

        def act(*arguments):
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGTERM)
            return action(*arguments)

        def say(said):
            if said.startswith(sentence):
                monkeypatch.setattr(owner, name, act)

        platform.log = say

    return arrange


@pytest.mark.usefixtures("one")
def test_a_rejected_version_goes_also_when_interrupted(platform, version, deploy, state, signal_after):
    two = version(answer=0.5)
    signal_after("candidate: ", platform.models, "champion")
    said = "Version 2 was not promoted, and stable serves version 1 as before"
    with pytest.raises(DeployError, match=said):
        deploy(two)
    assert state() == (1, 1, None, True)
    assert platform.models.history("digits")[-1].attempt


@pytest.mark.usefixtures("one")
def test_an_overtaken_version_goes_also_when_interrupted(
    platform, cluster, version, deploy, state, signal_after
):
    two = version()
    signal_after("canary analysis: ", cluster, "delete")
    other, say = version(), platform.log

    def overtake(sentence):
        say(sentence)
        if sentence.startswith("canary analysis: "):
            platform.models.promote("digits", other.version, reason="by hand", by="somebody")

    platform.log = overtake
    assert deploy(two).decision == "hold"
    assert state() == (3, 1, None, True)


@pytest.mark.usefixtures("one")
def test_the_candidate_goes_before_the_store_is_read(platform, version, deploy, signal_at, monkeypatch):
    two, there = version(), []

    def silent(_):
        there.append(platform.deployment("candidate"))
        raise UnreachableError("the store is away")

    def say(sentence):
        if sentence.startswith("canary: "):
            monkeypatch.setattr(platform.models, "champion", silent)
            signal_at(1)

    platform.log = say
    with pytest.raises(CancelledError, match="Version 2 was not promoted, and stable serves version 1"):
        deploy(two)
    assert there
    assert not any(there)


@pytest.mark.usefixtures("one")
def test_just_after_the_pointer_has_moved_the_version_is_the_champion(platform, version, deploy, state):
    two = version()

    def say(sentence):
        if sentence.startswith("promoted: "):
            os.kill(os.getpid(), signal.SIGTERM)

    platform.log = say
    with pytest.raises(CancelledError, match="Version 2 is the champion; deploy it again to see stable"):
        deploy(two)
    assert state() == (2, 1, None, True)
    assert [one.attempt for one in platform.models.history("digits")] == [False, False]
    assert deploy(two).decision == "promote"
    assert state() == (2, 2, None, True)


def test_an_interrupted_rollback_says_what_is_left_to_do(platform, version, deploy, state):
    deploy(version())
    deploy(version())

    def say(sentence):
        if sentence.startswith("rolled back: "):
            platform.cluster.look = lambda: os.kill(os.getpid(), signal.SIGTERM)

    platform.log = say
    with pytest.raises(CancelledError, match="Version 1 is the champion; deploy it again to see stable"):
        rollout.rollback(platform, None, "it is bad", "test")
    platform.cluster.look = lambda: None
    assert state() == (1, 1, None, True)


def test_a_second_signal_is_ignored():
    done = []
    with pytest.raises(CancelledError), raise_on_sigterm():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("tidied up")
    assert done == ["tidied up"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_can_be_ignored():
    done = []
    with raise_on_sigterm(), ignore_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("withdrawn")
    assert done == ["withdrawn"]


def test_other_threads_handle_no_signals():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with raise_on_sigterm(), ignore_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
