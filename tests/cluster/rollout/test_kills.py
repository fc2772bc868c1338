"""Rollouts that are killed, repeated or without their store end consistently, without a failed request."""

import random
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from modelyard.components.deploy.platforms import objects
from modelyard.components.errors import CancelledError
from tests.cluster.rollout.conftest import TOLERANT

pytestmark = pytest.mark.cluster


@contextmanager
def deploying(workspace, version, seconds=2):
    """Deploy a version in another process; its output can be read line by line."""
    line = workspace.modelyard(
        "deploy", workspace.name, str(version), "--set", f"rollout.bake_seconds={seconds}"
    )
    line += TOLERANT
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def until(process, word):
    """Read the output of a process until a line begins with a word."""
    output = []
    for line in process.stdout:
        output.append(line)
        if line.startswith(word):
            return
    raise AssertionError("".join(output))


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
            time.sleep(random.random() / 2)  # noqa: S311 - at a random moment
        champion = served.models.champion(served.name).version
        assert (champion, served.stable()) in [(old, old), (new, old), (new, new)]
        assert served.deploy(new).decision == "promote"
        served.assert_settled(new)
        served.wait_for_other_pods(new)
    assert clients.failed == []


def test_concurrent_rollouts_of_a_version(served):
    version = served.publish()
    with served.load().running() as clients, ThreadPoolExecutor() as two:
        outcomes = list(two.map(lambda _: served.deploy(version).decision, range(2)))
    assert "promote" in outcomes
    assert clients.failed == []
    served.assert_settled(version)


def test_concurrent_rollouts_of_two_versions(served):
    early, late = served.publish(), served.publish()
    with deploying(served, early, seconds=600) as process:
        until(process, "canary: ")
        with served.load().running() as clients:
            assert served.deploy(late).decision == "promote"
            output, _ = process.communicate(timeout=240)
    assert "hold: " in output
    assert (
        f"of version {late} replaced the candidate" in output or "was withdrawn by another command" in output
    )
    assert clients.failed == []
    served.assert_settled(late)


def test_candidate_of_a_killed_rollout_is_replaced(served, kubectl):
    """Also if a quota has no room for both: terminating pods count."""
    namespace = ("-n", served.platform.cluster.namespace)
    output = []

    def log(line):
        output.append(line)
        if line.startswith("verified: "):  # room for the rolling update of stable
            kubectl("delete", "quota", "pods", *namespace)

    with deploying(served, served.publish(), seconds=600) as process:
        until(process, "canary: ")
    deadline = time.monotonic() + 240
    while "deletionTimestamp" in kubectl("get", "pods", "-o", "json", *namespace):
        assert time.monotonic() < deadline, "the servers of earlier tests do not end"
        time.sleep(0.5)
    pods = kubectl("get", "pods", "-o", "name", *namespace).split()
    kubectl("create", "quota", "pods", f"--hard=pods={len(pods)}", *namespace)
    version = served.publish()
    assert served.deploy(version, replace(served.platform, log=log)).decision == "promote"
    assert "waiting for the pods of the previous candidate to be deleted" in output
    served.assert_settled(version)


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
    assert f"version {version}, is abandoned since 2026" in seen["errors"][-1]
    assert served.deploy(serves).decision == "promote"
    served.assert_settled(serves)


def test_sigterm_withdraws_the_candidate(served):
    serves, version = served.stable(), served.publish()
    with served.load().running() as clients, deploying(served, version, seconds=600) as process:
        until(process, "canary: ")
        process.terminate()
        output, _ = process.communicate(timeout=240)
    assert process.returncode == CancelledError.exit_code
    assert f"Version {version} was not promoted, and stable serves version {serves} as before" in output
    assert clients.failed == []
    served.assert_settled(serves)
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
        output, _ = process.communicate(timeout=240)
    assert "promote: " in output
    assert clients.failed == []
    served.assert_settled(version)
