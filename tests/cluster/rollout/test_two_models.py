"""Two models on a cluster: requests reach each through the API server."""

import numpy as np
import pytest

from modelyard.components.store.settings import Store
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.serving.platforms import find_server
from modelyard.pipelines.serving.smoke_test import predict_once

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def served(new_workspace):
    """Two models; the first serves its version 1 and the second its version 2."""
    workspaces = [new_workspace(), new_workspace()]
    for version, workspace in enumerate(workspaces, start=1):
        for _ in range(version):
            workspace.publish()
        workspace.platform.reconcile(
            workspace.platform.describe_servers(version, workspace.models.digest(workspace.name, version)),
            None,
        )
        workspace.models.promote(workspace.name, version, reason="first", by="test")
    return workspaces


def test_predict_uses_the_server_of_the_model(served, tmp_path):
    np.save(tmp_path / "examples.npy", np.ones((600, 4), "float32"))
    for version, workspace in enumerate(served, start=1):
        output = workspace.run("predict", workspace.name, str(tmp_path / "examples.npy"))
        assert (output["model"], output["version"], len(output["predictions"])) == (
            workspace.name,
            version,
            600,
        )
        assert {prediction["text"] for prediction in output["predictions"]} == {"bright"}


def test_run_uses_the_server_of_its_model(served):
    for version, workspace in enumerate(served, start=1):
        environment = load_environment(workspace.modelyard()[-1], environ={})
        config = load(None, [f"name={workspace.name}"], {}, Store.from_json(workspace.platform.store))
        prediction = predict_once(find_server(workspace.name, environment), config.name, config.store)
        assert (prediction.version, prediction.text, prediction.note) == (version, "dark", "1.0000")


def test_predict_fails_for_a_model_without_servers(served):
    output = served[0].run("predict", "missing", "x.npy", code=9)["error"]["message"]
    assert "Service missing in the namespace " in output
    assert 'services "missing" not found' in output
    assert "modelyard rollout status missing" in output
