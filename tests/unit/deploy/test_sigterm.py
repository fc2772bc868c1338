"""A rollout that gets SIGTERM or Ctrl-C takes its candidate from clients."""

import os
import signal
import threading

import pytest

from modelyard.components.deploy import rollout
from modelyard.components.deploy.signals import ignore_sigterm, raise_on_sigterm
from modelyard.components.errors import CancelledError, DeployError, UnreachableError


def sigterm():
    os.kill(os.getpid(), signal.SIGTERM)


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
def test_before_promotion_the_candidate_goes(platform, version, deploy, state, signal_at, moment):
    two = version()
    signal_at(moment)
    with pytest.raises(CancelledError, match=r"\(SIGTERM\).*2 was not promoted, and stable serves"):
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
@pytest.mark.parametrize("when", ["pointer moved", "stable written"])
def test_after_promotion_the_version_stays_champion(platform, version, deploy, state, on_log, when):
    two, apply_stable = version(), platform.apply_stable

    def apply(*arguments, **more):
        written = apply_stable(*arguments, **more)
        sigterm()
        return written

    if when == "pointer moved":
        on_log("promoted: ", sigterm)
    else:
        platform.apply_stable = apply
    with pytest.raises(CancelledError, match="Version 2 is the champion; deploy it again to see stable"):
        deploy(two)
    assert state() == (2, 1 if when == "pointer moved" else 2, None, True)
    assert [one.attempt for one in platform.models.history("digits")] == [False, False]
    platform.apply_stable = apply_stable
    assert deploy(two).decision == "promote"
    assert state() == (2, 2, None, True)


@pytest.mark.usefixtures("one")
def test_a_rejected_version_goes_also_when_interrupted(platform, version, deploy, state, on_log):
    two, champion = version(answer=0.5), platform.models.champion

    def interrupted(*arguments):
        platform.models.champion = champion
        sigterm()
        return champion(*arguments)

    on_log("candidate: ", lambda: setattr(platform.models, "champion", interrupted))
    with pytest.raises(DeployError, match="Version 2 was not promoted, and stable serves version 1 as bef"):
        deploy(two)
    assert state() == (1, 1, None, True)
    assert platform.models.history("digits")[-1].attempt


@pytest.mark.usefixtures("one")
def test_an_overtaken_version_goes_also_when_interrupted(platform, cluster, version, deploy, state, on_log):
    two, other, delete = version(), version(), cluster.delete

    def interrupted(*arguments):
        cluster.delete = delete
        sigterm()
        return delete(*arguments)

    def overtake():
        cluster.delete = interrupted
        platform.models.promote("digits", other.version, reason="by hand", by="another")

    on_log("canary analysis: ", overtake)
    assert deploy(two).decision == "hold"
    assert state() == (3, 1, None, True)


@pytest.mark.usefixtures("one")
def test_the_candidate_goes_before_the_store_is_read(platform, version, deploy, signal_at, on_log):
    two, candidates = version(), []

    def unavailable(_):
        candidates.append(platform.deployment("candidate"))
        raise UnreachableError("the store is away")

    def interrupt():
        platform.models.champion = unavailable
        signal_at(1)

    on_log("canary: ", interrupt)
    with pytest.raises(CancelledError, match="Version 2 was not promoted, and stable serves version 1"):
        deploy(two)
    assert candidates
    assert not any(candidates)


def test_an_interrupted_rollback_says_what_is_left_to_do(platform, version, deploy, state, signal_at, on_log):
    deploy(version())
    deploy(version())
    on_log("rolled back: ", lambda: signal_at(1))
    with pytest.raises(CancelledError, match="Version 1 is the champion; deploy it again to see stable"):
        rollout.rollback(platform, None, "it is bad", "test")
    assert state() == (1, 1, None, True)


def test_a_second_signal_is_ignored():
    done = []
    with pytest.raises(CancelledError), raise_on_sigterm():
        try:
            sigterm()
        finally:
            sigterm()
            done.append("tidied up")
    assert done == ["tidied up"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_block_can_ignore_the_signal_and_other_threads_do():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with raise_on_sigterm(), ignore_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    with raise_on_sigterm(), ignore_sigterm():
        sigterm()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
