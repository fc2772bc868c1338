"""`modelyard deploy`, `rollout status|promote|abort` and `rollback` on a cluster."""

import subprocess
import time

import pytest

pytestmark = pytest.mark.cluster

QUICK = ("--set", "rollout.watch_seconds=2", "--set", "rollout.min_requests=20")
LONG = ("--set", "rollout.watch_seconds=600")


def status_when(yard, arrived):
    """Return the status once it is as it should become."""
    deadline = time.monotonic() + 60
    while not arrived(status := yard.run("rollout", "status", yard.name)):
        assert time.monotonic() < deadline, status
    return status


def test_deploy_look_promote_abort_and_roll_back(yard):
    one, two, three = yard.publish(), yard.publish(), yard.publish()

    assert yard.run("deploy", yard.name, str(one), *QUICK)["decision"] == "promote"
    yard.settled(one)

    watching = subprocess.Popen(
        [*yard.modelyard("deploy", yard.name, str(two), *LONG), "--output", "json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    seen = status_when(yard, lambda status: status["canary"])
    assert (seen["champion"], seen["stable"]["version"], seen["candidate"]["version"]) == (one, one, two)
    assert yard.run("rollout", "promote", yard.name, "--reason", "it is good")["version"] == two
    said, _ = watching.communicate(timeout=60)
    assert '"decision": "promote"' in said, "the one who watched sees that it is promoted"
    yard.settled(two)

    watching = subprocess.Popen(
        [*yard.modelyard("deploy", yard.name, str(three), *LONG), "--output", "json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    status_when(yard, lambda status: status["canary"])
    assert yard.run("rollout", "abort", yard.name)["aborted"] == three
    said, _ = watching.communicate(timeout=60)
    assert '"decision": "hold"' in said
    assert "withdrawn by somebody else" in said
    yard.settled(two)

    with yard.load().running() as clients:
        assert yard.run("rollback", yard.name)["version"] == one
        yard.settled(one)
        time.sleep(3)  # until the last server of version 2 is gone
    assert clients.failed == []
    history = [(entry.action, entry.version, entry.attempt) for entry in yard.site.models.history(yard.name)]
    assert history == [
        ("promote", one, False),
        ("promote", two, False),
        ("promote", three, True),
        ("rollback", one, False),
    ]


def test_status_says_what_keeps_a_candidate(yard):
    yard.run("deploy", yard.name, str(yard.publish()), *QUICK)
    line = yard.modelyard("deploy", yard.name, str(yard.publish(onnx=b"nonsense")))
    patient = ("--set", "rollout.max_restarts=9")
    with subprocess.Popen(
        [*line, *patient], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as deploying:
        seen = status_when(yard, lambda status: status["troubles"])
        deploying.terminate()
    assert "cannot be loaded by ONNX Runtime" in seen["troubles"][0]
    assert seen["candidate"]["ready"] == 0
    text = subprocess.run(
        yard.modelyard("rollout", "status", yard.name), check=True, capture_output=True, text=True
    ).stdout
    assert "trouble" in text
    assert "version 1, 1 of 1 ready" in text
    assert yard.run("rollout", "abort", yard.name)["aborted"] == 2
