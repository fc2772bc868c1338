"""`modelyard deploy`, `rollout status|promote|abort` and `rollback` on a cluster."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from modelyard.components.deploy import objects
from tests.cluster.rollout.conftest import PATIENT

pytestmark = pytest.mark.cluster

QUICK = ("--set", "rollout.watch_seconds=2", *PATIENT)
LONG = ("--set", "rollout.watch_seconds=600", *PATIENT)


@pytest.fixture(scope="module")
def tagged(images):
    """Another name of the image of the servers."""
    name = images["serve"].split("@")[0]
    line = ["docker", "image", "inspect", "--format", "{{json .RepoTags}}", images["serve"]]
    tags = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    return next(tag for tag in tags if tag.startswith(f"{name}:"))


@pytest.fixture
def by_hand(yard, tmp_path):
    """Run a command where no image was built and the environment names none; return what it says."""

    def run(*arguments):
        *line, path = yard.modelyard(*arguments)
        environment = json.loads(Path(path).read_text())
        del environment["images"]
        bare = tmp_path / "bare.yaml"
        bare.write_text(json.dumps(environment))
        line = [*line, str(bare), "--output", "json"]
        done = subprocess.run(line, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    return run


def status_when(command, yard, arrived):
    """Return the status once it is as it should become."""
    deadline = time.monotonic() + 60
    while not arrived(status := command("rollout", "status", yard.name)):
        assert time.monotonic() < deadline, status
    return status


def stable(yard):
    """Return what stable serves, with which image, and with which section `serving`."""
    found = yard.site.deployment("stable")
    return objects.version(found), objects.image(found), objects.serving(found)["max_batch"]


def test_deploy_look_promote_abort_and_roll_back(yard, by_hand, images, tagged):
    """Each version is served as its own run said, and with the image with which it was verified."""
    one, two, three = (yard.publish(config={"serving": {"max_batch": size}}) for size in (11, 22, 33))

    assert yard.run("deploy", yard.name, str(one), *QUICK)["decision"] == "promote"
    yard.settled(one)
    assert stable(yard) == (one, images["serve"], 11)

    line = yard.modelyard("deploy", yard.name, str(two), *LONG, "--set", f"environment.images.serve={tagged}")
    watching = subprocess.Popen([*line, "--output", "json"], stdout=subprocess.PIPE, text=True)
    seen = status_when(by_hand, yard, lambda status: status["canary"])
    assert (seen["champion"], seen["stable"]["version"], seen["candidate"]["version"]) == (one, one, two)
    assert by_hand("rollout", "promote", yard.name, "--reason", "it is good")["version"] == two
    said, _ = watching.communicate(timeout=60)
    assert '"decision": "promote"' in said, "the one who watched sees that it is promoted"
    yard.settled(two)
    assert stable(yard) == (two, tagged, 22)

    watching = subprocess.Popen(
        [*yard.modelyard("deploy", yard.name, str(three), *LONG), "--output", "json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    status_when(by_hand, yard, lambda status: status["canary"])
    assert by_hand("rollout", "abort", yard.name)["aborted"] == three
    said, _ = watching.communicate(timeout=60)
    assert '"decision": "hold"' in said
    assert "withdrawn by somebody else" in said
    yard.settled(two)

    with yard.load().running() as clients:
        assert by_hand("rollback", yard.name)["version"] == one
        yard.settled(one)
        yard.alone(one)
    assert clients.failed == []
    assert stable(yard) == (one, images["serve"], 11)
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
        seen = status_when(yard.run, yard, lambda status: status["troubles"])
        deploying.kill()  # told to end, it would take the candidate away
    assert "cannot be loaded by ONNX Runtime" in seen["troubles"][0]
    assert seen["candidate"]["ready"] == 0
    text = subprocess.run(
        yard.modelyard("rollout", "status", yard.name), check=True, capture_output=True, text=True
    ).stdout
    assert "trouble" in text
    assert "version 1, 1 of 1 ready" in text
    assert yard.run("rollout", "abort", yard.name)["aborted"] == 2
