"""A rollout that receives SIGTERM or SIGINT withdraws its candidate."""

import os
import signal
import threading

import pytest

from modelyard.components.errors import CancelledError, ClusterError, DeployError, UnreachableError
from modelyard.components.signals import ignore_sigterm, raise_on_sigterm
from tests.unit.deploy.conftest import intercept
from tests.unit.deploy.memory import Fault, FaultyProxy


def send_sigterm():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def signal_at(controller):
    """Return a function that sends a signal to this process at the call `number` of the platform."""

    def arrange(number, which=signal.SIGTERM):
        fault = Fault(number, "concurrent", lambda: os.kill(os.getpid(), which))
        controller.platform = FaultyProxy(controller.platform, fault, ClusterError)
        return fault

    return arrange


@pytest.mark.usefixtures("v1")
@pytest.mark.parametrize(("command", "served", "target"), [("deploy", 1, 2), ("rollback", 2, 1)])
def test_candidate_is_withdrawn_before_promotion(
    controller, models, world, publish, deploy, state, signal_at, command, served, target
):
    v2, at, platform = publish(), 0, controller.platform
    if command == "rollback":
        deploy(v2)
    while True:
        at, controller.platform = at + 1, platform
        signal_at(at)
        with pytest.raises(CancelledError) as error:
            deploy(v2) if command == "deploy" else controller.rollback(None, "bad")
        if models.champion("digits").version == target:
            break
        assert "SIGTERM" in str(error.value)
        assert f"{target} was not promoted, and stable serves version {served}" in str(error.value)
        assert state() == (served, served, None, True)
        attempt = models.history("digits")[-1]
        assert (attempt.version, attempt.attempt) == (target, True)
        assert attempt.reason == "not promoted: The rollout was cancelled by SIGTERM."
    assert at > 5
    assert f"Version {target} is the champion; deploy it again" in str(error.value)
    assert world.candidate is None


@pytest.mark.usefixtures("v1")
def test_ctrl_c_withdraws_the_candidate(models, publish, deploy, state, signal_at):
    v2 = publish()
    signal_at(6, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        deploy(v2)
    assert state() == (1, 1, None, True)
    assert models.history("digits")[-1].reason == "not promoted: it was interrupted"


@pytest.mark.usefixtures("v1")
@pytest.mark.parametrize("moment", ["pointer moved", "stable written"])
def test_version_remains_champion_after_promotion(controller, models, publish, deploy, state, on_log, moment):
    v2 = publish()
    if moment == "pointer moved":
        on_log("promoted: ", send_sigterm)
    else:
        intercept(controller.platform, "reconcile", after=send_sigterm)
    with pytest.raises(CancelledError, match="Version 2 is the champion; deploy it again"):
        deploy(v2)
    assert state() == (2, 1 if moment == "pointer moved" else 2, None, True)
    assert [entry.attempt for entry in models.history("digits")] == [False, False]
    controller.log = lambda _: None
    assert deploy(v2).decision == "promote"
    assert state() == (2, 2, None, True)


@pytest.mark.usefixtures("v1")
def test_rejected_candidate_is_withdrawn_despite_sigterm(models, publish, deploy, state, on_log):
    v2 = publish(prediction=0.5)
    on_log("candidate: ", lambda: intercept(models, "champion", before=send_sigterm))
    with pytest.raises(DeployError, match="Version 2 was not promoted, and stable serves version 1 as bef"):
        deploy(v2)
    assert state() == (1, 1, None, True)
    assert models.history("digits")[-1].attempt


@pytest.mark.usefixtures("v1")
def test_held_candidate_is_withdrawn_despite_sigterm(controller, publish, deploy, promote, state, on_log):
    v2, v3 = publish(), publish()

    def overtake():
        intercept(controller.platform, "withdraw", before=send_sigterm)
        promote(v3)

    on_log("canary analysis: ", overtake)
    assert deploy(v2).decision == "hold"
    assert state() == (3, 1, None, True)


@pytest.mark.usefixtures("v1")
def test_candidate_is_withdrawn_before_the_store_is_read(models, world, publish, deploy, on_log, monkeypatch):
    v2, candidates = publish(), []

    def read_champion(_):
        candidates.append(world.candidate)
        raise UnreachableError("the store is unreachable")

    def interrupt():
        monkeypatch.setattr(models, "champion", read_champion)
        send_sigterm()

    on_log("canary: ", interrupt)
    with pytest.raises(CancelledError, match="Version 2 was not promoted, and stable serves version 1"):
        deploy(v2)
    assert candidates
    assert not any(candidates)


def test_interrupted_rollback_names_the_next_command(controller, publish, deploy, state, monkeypatch):
    deploy(publish())
    deploy(publish())
    monkeypatch.setattr(controller.platform, "reconcile", lambda *_: send_sigterm())
    with pytest.raises(CancelledError, match="Version 1 is the champion; deploy it again"):
        controller.rollback(None, "it is bad")
    assert state() == (1, 2, None, True)


def test_second_signal_is_ignored():
    cleanups, before = [], signal.getsignal(signal.SIGTERM)
    with pytest.raises(CancelledError), raise_on_sigterm():
        try:
            send_sigterm()
        finally:
            send_sigterm()
            cleanups.append("done")
    assert cleanups == ["done"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_is_ignored_in_a_block_and_in_other_threads():
    before, handlers = signal.getsignal(signal.SIGTERM), []

    def run_in_thread():
        with raise_on_sigterm(), ignore_sigterm():
            handlers.append(signal.getsignal(signal.SIGTERM))

    with raise_on_sigterm(), ignore_sigterm():
        send_sigterm()
    thread = threading.Thread(target=run_in_thread)
    thread.start()
    thread.join()
    assert handlers == [before]
