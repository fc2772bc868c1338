"""Rollouts that are killed, started twice, or lose their store end in one state, without a failed request."""

import random
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from modelyard.components.deploy.platforms import objects
from modelyard.components.errors import CancelledError
from tests.cluster.rollout.conftest import PATIENT

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def served(new_workspace):
    """A model with version 1 before clients."""
    workspace = new_workspace()
    workspace.deploy(workspace.publish())
    return workspace


@contextmanager
def deploying(workspace, version, seconds=2):
    """Deploy a version in a process of its own; what it says can be read line by line."""
    line = workspace.modelyard(
        "deploy", workspace.name, str(version), "--set", f"rollout.bake_seconds={seconds}"
    )
    line += PATIENT
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def until(process, word):
    """Read what a process says until a line begins with the word."""
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith(word):
            return
    raise AssertionError("".join(said))


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("candidate: ", marks=pytest.mark.soak),
        "canary: ",
        pytest.param("promoted: ", marks=pytest.mark.soak),
    ],
)
def test_killed_rollout_is_repeated(served, moment):
    old, new = served.stable(), served.publish()
    with served.load().running() as clients:
        with deploying(served, new) as process:
            until(process, moment)
            time.sleep(random.random() / 2)  # noqa: S311 - any moment of the stage
        champion = served.models.champion(served.name).version
        assert (champion, served.stable()) in [(old, old), (new, old), (new, new)]
        assert served.deploy(new).decision == "promote"
        served.settled(new)
        served.alone(new)
    assert clients.failed == []


def test_concurrent_rollouts_of_a_version(served):
    version = served.publish()
    with served.load().running() as clients, ThreadPoolExecutor() as two:
        outcomes = list(two.map(lambda _: served.deploy(version).decision, range(2)))
    assert "promote" in outcomes
    assert clients.failed == []
    served.settled(version)


def test_concurrent_rollouts_of_two_versions(served):
    early, late = served.publish(), served.publish()
    with deploying(served, early, seconds=600) as process:
        until(process, "canary: ")
        with served.load().running() as clients:
            assert served.deploy(late).decision == "promote"
            said, _ = process.communicate(timeout=240)
    assert "hold: " in said
    assert f"of version {late} replaced the candidate" in said or "was withdrawn by another command" in said
    assert clients.failed == []
    served.settled(late)


def test_candidate_of_a_killed_rollout_is_replaced(served, kubectl):
    """Also where a quota has no room for two: its servers count until they have ended."""
    namespace = ("-n", served.platform.cluster.namespace)
    said = []

    def say(sentence):
        said.append(sentence)
        if sentence.startswith("verified: "):  # stable is to have room for its rolling update
            kubectl("delete", "quota", "pods", *namespace)

    with deploying(served, served.publish(), seconds=600) as process:
        until(process, "canary: ")
    deadline = time.monotonic() + 240
    while "deletionTimestamp" in kubectl("get", "pods", "-o", "json", *namespace):
        assert time.monotonic() < deadline, "the servers of earlier tests do not end"
        time.sleep(0.5)
    there = kubectl("get", "pods", "-o", "name", *namespace).split()
    kubectl("create", "quota", "pods", f"--hard=pods={len(there)}", *namespace)
    version = served.publish()
    assert served.deploy(version, replace(served.platform, log=say)).decision == "promote"
    assert "waiting for the servers of the previous candidate to end" in said
    served.settled(version)


def test_abandoned_candidate_is_shown_and_deleted(served, kubectl):
    serves, version = served.stable(), served.publish()
    with deploying(served, version, seconds=600) as process:
        until(process, "canary: ")
        assert served.run("rollout", "status", served.name)["abandoned"] is False
    long_ago = f"{objects.HEARTBEAT_ANNOTATION}=2026-01-02T03:04:05+00:00"
    where = ("-n", served.platform.cluster.namespace, "--overwrite")
    kubectl("annotate", "deployment", f"{served.name}-candidate", long_ago, *where)
    seen = served.run("rollout", "status", served.name)
    assert (seen["abandoned"], seen["canary"]) == (True, True)
    assert f"version {version}, is abandoned since 2026" in seen["problems"][-1]
    assert served.deploy(serves).decision == "promote"
    served.settled(serves)


def test_sigterm_withdraws_the_candidate(served):
    serves, version = served.stable(), served.publish()
    with served.load().running() as clients, deploying(served, version, seconds=600) as process:
        until(process, "canary: ")
        process.terminate()
        said, _ = process.communicate(timeout=240)
    assert process.returncode == CancelledError.exit_code
    assert f"Version {version} was not promoted, and stable serves version {serves} as before" in said
    assert clients.failed == []
    served.settled(serves)
    attempt = served.models.history(served.name)[-1]
    assert (attempt.version, attempt.attempt) == (version, True)


@pytest.mark.soak
def test_store_is_unavailable_for_a_while(served, bucket):
    version = served.publish()
    with served.load().running() as clients, deploying(served, version, seconds=10) as process:
        until(process, "candidate: ")
        bucket.stop()  # while the candidate fetches its model
        time.sleep(8)
        bucket.start()
        until(process, "canary: ")
        bucket.stop()  # while the pointer is to be moved
        until(process, "waiting up to 120 s for the model store")
        bucket.start()
        said, _ = process.communicate(timeout=240)
    assert "promote: " in said
    assert clients.failed == []
    served.settled(version)
