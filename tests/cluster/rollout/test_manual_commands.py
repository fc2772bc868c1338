"""`modelyard deploy`, `rollout status|promote|abort` and `rollback` on a cluster."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from modelyard.components.deploy.platforms import objects
from tests.cluster.conftest import run_command
from tests.cluster.rollout.conftest import TOLERANT

pytestmark = pytest.mark.cluster

QUICK = ("--set", "rollout.bake_seconds=2", *TOLERANT)
LONG_BAKE = ("--set", "rollout.bake_seconds=600", *TOLERANT)


@pytest.fixture(scope="module")
def tagged_image(images):
    """The image of the servers by a tag instead of its digest."""
    name = images["serve"].split("@")[0]
    command = ["docker", "image", "inspect", "--format", "{{json .RepoTags}}", images["serve"]]
    tags = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return next(tag for tag in tags if tag.startswith(f"{name}:"))


@pytest.fixture
def run_without_image(workspace, tmp_path):
    """Return a function that runs a command without images in its environment and returns its JSON."""

    def run(*arguments):
        *command, path = workspace.modelyard(*arguments)
        environment = json.loads(Path(path).read_text())
        del environment["images"]
        without_images = tmp_path / "without-images.yaml"
        without_images.write_text(json.dumps(environment))
        command += [str(without_images), "--output", "json"]
        result = run_command(*command, cwd=tmp_path)
        assert result.code == 0, result.out + result.err
        return result.json

    return run


def wait_for_status(run, workspace, condition):
    """Return the status when the condition is true for it."""
    deadline = time.monotonic() + 240
    while not condition(status := run("rollout", "status", workspace.name)):
        assert time.monotonic() < deadline, status
    return status


def stable(workspace):
    """Return the version, the image and `serving.max_batch` of stable."""
    deployment = workspace.platform.deployment("stable")
    template = deployment["spec"]["template"]
    args = template["spec"]["containers"][0]["args"]
    serving = json.loads(args[args.index("--serving") + 1])
    return objects.version(deployment), objects.image(template), serving["max_batch"]


def test_deploy_status_promote_abort_and_rollback_change_what_is_served(
    workspace, run_without_image, images, tagged_image
):
    """Each version is served with the section `serving` of its run and the image that was verified."""
    v1, v2, v3 = (workspace.publish(config={"serving": {"max_batch": size}}) for size in (11, 22, 33))

    assert workspace.run("deploy", workspace.name, str(v1), *QUICK)["decision"] == "promote"
    workspace.assert_settled(v1)
    assert stable(workspace) == (v1, images["serve"], 11)

    command = workspace.modelyard(
        "deploy", workspace.name, str(v2), *LONG_BAKE, "--set", f"environment.images.serve={tagged_image}"
    )
    rollout = subprocess.Popen([*command, "--output", "json"], stdout=subprocess.PIPE, text=True)
    status = wait_for_status(run_without_image, workspace, lambda status: status["canary"])
    assert (status["champion"], status["stable"]["version"], status["candidate"]["version"]) == (
        v1,
        v1,
        v2,
    )
    assert run_without_image("rollout", "promote", workspace.name, "--reason", "it is good")["version"] == v2
    output, _ = rollout.communicate(timeout=240)
    assert '"decision": "promote"' in output, "the candidate's rollout notices the promotion"
    workspace.assert_settled(v2)
    assert stable(workspace) == (v2, tagged_image, 22)

    rollout = subprocess.Popen(
        [*workspace.modelyard("deploy", workspace.name, str(v3), *LONG_BAKE), "--output", "json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for_status(run_without_image, workspace, lambda status: status["canary"])
    assert run_without_image("rollout", "abort", workspace.name)["version"] == v3
    output, _ = rollout.communicate(timeout=240)
    assert '"decision": "hold"' in output
    assert "removed by another command" in output
    workspace.assert_settled(v2)

    with workspace.load().running() as clients:
        assert run_without_image("rollback", workspace.name)["version"] == v1
        workspace.assert_settled(v1)
        workspace.wait_for_other_pods(v1)
    assert clients.failed == []
    assert stable(workspace) == (v1, images["serve"], 11)
    history = [
        (entry.action, entry.version, entry.attempt) for entry in workspace.models.history(workspace.name)
    ]
    assert history == [
        ("promote", v1, False),
        ("promote", v2, False),
        ("promote", v3, True),
        ("rollback", v1, False),
    ]


def test_status_shows_the_error_of_a_candidate(workspace):
    workspace.run("deploy", workspace.name, str(workspace.publish()), *QUICK)
    command = workspace.modelyard("deploy", workspace.name, str(workspace.publish(onnx=b"nonsense")))
    command += ("--set", "rollout.max_restarts=9")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as deploy:
        status = wait_for_status(
            workspace.run, workspace, lambda status: "ONNX Runtime" in str(status["errors"])
        )
        deploy.kill()  # SIGTERM would withdraw the candidate
    assert "cannot be loaded by ONNX Runtime" in status["errors"][0]
    assert status["candidate"]["ready"] == 0
    text = subprocess.run(
        workspace.modelyard("rollout", "status", workspace.name), check=True, capture_output=True, text=True
    ).stdout
    assert "error" in text
    assert "version 1, 1 of 1 ready" in text
    assert workspace.run("rollout", "abort", workspace.name)["version"] == 2
