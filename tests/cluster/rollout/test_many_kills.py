"""Two concurrent rollouts that are killed at random moments, repeatedly: `make soak` with a cluster."""

import random
import subprocess
import time

import pytest

from tests.cluster.rollout.conftest import TOLERANT

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

ROUNDS = 15
MAX_DELAY = 14.0  # seconds; an undisturbed deploy takes less


def test_concurrent_rollouts_killed_at_random_moments(new_workspace):
    workspace = new_workspace()
    workspace.deploy(workspace.publish())
    quick = ("--set", "rollout.bake_seconds=2", *TOLERANT)
    generator = random.Random(time.time_ns())  # noqa: S311
    with workspace.load().running() as clients:
        for _ in range(ROUNDS):
            deploys = []
            for version in (workspace.publish(), workspace.publish()):
                command = workspace.modelyard("deploy", workspace.name, str(version), *quick)
                deploys.append(
                    subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                )
                time.sleep(generator.uniform(0, 4))
            for process in deploys:
                if generator.random() < 0.6:
                    time.sleep(generator.uniform(0, MAX_DELAY))
                    process.kill()
            outputs = [process.communicate(timeout=240)[0] for process in deploys]
            assert [process.returncode for process in deploys if process.returncode not in (0, -9)] == [], (
                outputs
            )
            last = workspace.publish() if generator.random() < 0.5 else version
            assert workspace.deploy(last).decision == "promote", outputs
            workspace.assert_settled(last)
            assert clients.failed == [], outputs
    assert clients.sent > 10_000
