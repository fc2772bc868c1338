"""Rollouts that are killed, concurrent or without their store end consistently and fail no request."""

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
def start_deploy(workspace, version, seconds=2):
    """Deploy a version in another process; its output can be read line by line."""
    command = workspace.modelyard(
        "deploy", workspace.name, str(version), "--set", f"rollout.bake_seconds={seconds}"
    )
    command += TOLERANT
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process, word):
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
def test_version_of_a_killed_rollout_can_be_deployed_again(served, moment):
    old, new = served.stable(), served.publish()
    with served.load().running() as clients:
        with start_deploy(served, new) as process:
            read_until(process, moment)
            time.sleep(random.random() / 2)  # noqa: S311 - at a random moment
        champion = served.models.champion(served.name).version
        assert (champion, served.stable()) in [(old, old), (new, old), (new, new)]
        assert served.deploy(new).decision == "promote"
        served.assert_settled(new)
        served.wait_for_other_pods(new)
    assert clients.failed == []


def test_concurrent_rollouts_of_a_version_promote_it(served):
    version = served.publish()
    with served.load().running() as clients, ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(lambda _: served.deploy(version).decision, range(2)))
    assert "promote" in outcomes
    assert clients.failed == []
    served.assert_settled(version)


def test_later_of_two_concurrent_rollouts_is_promoted(served):
    early, late = served.publish(), served.publish()
    with start_deploy(served, early, seconds=600) as process:
        read_until(process, "canary: ")
        with served.load().running() as clients:
            assert served.deploy(late).decision == "promote"
            output, _ = process.communicate(timeout=240)
    assert "hold: " in output
    assert f"of version {late} replaced the candidate" in output or "was removed by another command" in output
    assert clients.failed == []
    served.assert_settled(late)


def test_candidate_of_a_killed_rollout_is_replaced(served, kubectl):
    """Even if the quota has no room for both candidates: it counts terminating pods."""
    namespace = ("-n", served.platform.cluster.namespace)
    output = []

    def log(line):
        output.append(line)
        if line.startswith("verified: "):  # stable needs another pod for its rolling update
            kubectl("delete", "quota", "pods", *namespace)

    with start_deploy(served, served.publish(), seconds=600) as process:
        read_until(process, "canary: ")
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
    served_version, version = served.stable(), served.publish()
    with start_deploy(served, version, seconds=600) as process:
        read_until(process, "canary: ")
        assert served.run("rollout", "status", served.name)["abandoned"] is False
    long_ago = f"{objects.HEARTBEAT_ANNOTATION}=2026-01-02T03:04:05+00:00"
    options = ("-n", served.platform.cluster.namespace, "--overwrite")
    kubectl("annotate", "deployment", f"{served.name}-candidate", long_ago, *options)
    status = served.run("rollout", "status", served.name)
    assert (status["abandoned"], status["canary"]) == (True, True)
    assert f"version {version}, is abandoned since 2026" in status["errors"][-1]
    assert served.deploy(served_version).decision == "promote"
    served.assert_settled(served_version)


def test_sigterm_withdraws_the_candidate(served):
    served_version, version = served.stable(), served.publish()
    with served.load().running() as clients, start_deploy(served, version, seconds=600) as process:
        read_until(process, "canary: ")
        process.terminate()
        output, _ = process.communicate(timeout=240)
    assert process.returncode == CancelledError.exit_code
    assert f"Version {version} was not promoted" in output
    assert f"stable serves version {served_version} as before" in output
    assert clients.failed == []
    served.assert_settled(served_version)
    attempt = served.models.history(served.name)[-1]
    assert (attempt.version, attempt.attempt) == (version, True)


@pytest.mark.soak
def test_rollout_waits_for_an_unavailable_store(served, bucket):
    version = served.publish()
    with served.load().running() as clients, start_deploy(served, version, seconds=10) as process:
        read_until(process, "candidate: ")
        bucket.stop()  # while the candidate fetches its model
        time.sleep(8)
        bucket.start()
        read_until(process, "canary: ")
        bucket.stop()  # before the pointer is moved
        read_until(process, "waiting up to 120 s for the model store")
        bucket.start()
        output, _ = process.communicate(timeout=240)
    assert "promote: " in output
    assert clients.failed == []
    served.assert_settled(version)
