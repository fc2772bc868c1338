"""A version that cannot run does not block other versions, and stable keeps serving."""

from dataclasses import replace

import pytest

from modelyard.components.errors import DeployError

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def served(new_workspace):
    """A model whose version 1 is served, and whose version 2 is damaged."""
    workspace = new_workspace()
    workspace.deploy(workspace.publish())
    workspace.publish(onnx=b"nonsense")
    return workspace


def last_entries(workspace, number):
    """Return action, version and attempt of the last entries of the history."""
    return [
        (entry.action, entry.version, entry.attempt)
        for entry in workspace.models.history(workspace.name)[-number:]
    ]


def test_champion_that_cannot_run_does_not_block_other_versions(served):
    served.models.promote(served.name, 2, reason="without a rollout", by="test")
    with served.load().running() as clients:
        with pytest.raises(DeployError, match=r"loaded by ONNX.* Version 2 was not deployed") as error:
            served.deploy(2)
        assert str(error.value).endswith("and stable serves version 1 as before.")
        assert served.stable() == 1
        assert last_entries(served, 1) == [("promote", 2, True)]

        version = served.publish()
        assert served.deploy(version).decision == "promote"
    assert clients.failed == []
    served.assert_settled(version)
    assert "Stable serves version 1 as before. Continuing" in served.log()


def test_rollback_to_a_version_that_cannot_run_changes_nothing(served):
    served_version = served.stable()
    message = f"Version 2 was not promoted, and stable serves version {served_version} as before"
    with served.load().running() as clients, pytest.raises(DeployError, match=message):
        served.controller().rollback(2, "a mistake")
    assert clients.failed == []
    served.assert_settled(served_version)
    assert last_entries(served, 1) == [("promote", 2, True)]


def test_stable_and_pointer_are_restored_if_stable_cannot_run(served, bucket):
    served_version, version = served.stable(), served.publish()

    def log(line):
        if line.startswith("promoted: "):  # the candidate has started; servers of stable cannot
            bucket.corrupt(f"store/{served.name}/versions/{version:06d}/model.onnx")

    with (
        served.load().running() as clients,
        pytest.raises(DeployError, match=r"is damaged: its SHA-256 is .* is the champion again\. Stable ser"),
    ):
        served.deploy(version, replace(served.platform, log=log))
    assert clients.failed == []
    served.assert_settled(served_version)
    assert last_entries(served, 2) == [("promote", version, False), ("rollback", served_version, False)]
