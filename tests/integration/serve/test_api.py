"""The Python API: deploy a version, serve it, show its status, predict with it."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

import modelyard
from modelyard.components.artifacts import Golden, write
from modelyard.components.errors import DeployError
from tests.integration.serve.conftest import CLASSES, IMAGE_SIGNATURE, NAME
from tests.onnx_models import save_mean_model
from tests.versions import publish

SCORES = (0.25, 0.75)
IMAGE = np.zeros((4, 4, 3), np.uint8)
SERVE = "import modelyard; modelyard.serve('tiny', settings={'port': 0, 'host': '127.0.0.1'})"


@pytest.fixture
def version(tiny_model, tmp_path, monkeypatch):
    """A version with a golden request, in the default store."""
    monkeypatch.setenv("MODELYARD_STORE__URL", tiny_model.settings.url)
    model, golden = tmp_path / "model.onnx", tmp_path / "golden.json"
    save_mean_model(model, IMAGE_SIGNATURE, SCORES)
    write(golden, Golden(problem="classification", instances=[IMAGE.tolist()], predictions=[list(SCORES)]))
    return publish(tiny_model.models, NAME, {"model.onnx": model, "golden.json": golden}, IMAGE_SIGNATURE)


def test_deploy_serve_and_predict(version):
    outcome = modelyard.deploy(NAME, version, "local", reason="test", by="me")
    assert (outcome.decision, outcome.version) == ("promote", version)
    assert modelyard.abort_rollout(NAME, "local", reason="test", by="me") is None
    with pytest.raises(DeployError):
        modelyard.promote_candidate(NAME, "local", reason="test", by="me")

    command = (sys.executable, "-c", SERVE)
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = json.loads(server.stdout.readline())["url"]
        status = modelyard.rollout_status(NAME, server_url=url)
        assert (status.champion, status.stable.version, status.errors) == (version, version, ())
        for model in (modelyard.load_model(NAME, server_url=url), modelyard.load_model(NAME)):
            assert (model.version, model.signature.output.names) == (version, CLASSES)
            np.testing.assert_allclose(model.run(IMAGE[None]), [SCORES])
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
