"""Predictions of a model on a cluster, through an API server that proxies Services like Kubernetes."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from modelyard.components.errors import ConfigError
from modelyard.components.server import HttpServer
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.runners.pods.runner import PodsRunner
from modelyard.pipelines.serving.platforms import find_server
from tests.access import write_private
from tests.http_server import Handler, serve
from tests.kubeconfig import use_cluster

TOKENS = "first\nsecond\n"
SECRET_URL_PATH = "/api/v1/namespaces/servers/secrets/model-token"  # noqa: S105
PROXY_PATH = "/api/v1/namespaces/servers/services/tiny:8501/proxy"


@pytest.fixture
def server(store, tmp_path):
    """The URL of a server of `tiny` that requires a token."""
    serving = json.dumps({"port": 0, "token_file": write_private(tmp_path / "tokens", TOKENS)})
    command = [sys.executable, "-m", "modelyard.components.serve", "--name", "tiny", "--serving", serving]
    command += ["--store", json.dumps({"url": store.url})]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        yield json.loads(process.stdout.readline())["url"]
        process.terminate()


@pytest.fixture
def environment(server, tmp_path, monkeypatch):
    """The path of an environment whose cluster has only the Service `tiny` and the Secret of its token."""

    class ApiServer(Handler):
        def handle_request(self) -> None:
            if self.path == SECRET_URL_PATH:
                data = {"token": base64.b64encode(TOKENS.encode()).decode()}
                return self.respond(200, json.dumps({"kind": "Secret", "data": data}).encode())
            if self.path.startswith("/api/v1/namespaces/modelyard-runs/pods?"):
                return self.respond(200, b'{"items": []}')
            if not self.path.startswith(PROXY_PATH):
                status = {"kind": "Status", "message": 'services "missing" not found'}
                return self.respond(404, json.dumps(status).encode())
            body = self.read_body()
            not_forwarded = ("host", "authorization")
            headers = {key: value for key, value in self.headers.items() if key.lower() not in not_forwarded}
            url = f"{server}{self.path.removeprefix(PROXY_PATH)}"
            response = httpx.request(self.command, url, content=body, headers=headers)
            return self.respond(response.status_code, response.content)

    with serve(ApiServer) as api:
        use_cluster(monkeypatch, tmp_path, api)
        path = tmp_path / "environment.yaml"
        keys = {"kind": "kubernetes", "store": "gs://b/models", "pipeline_root": "gs://b/runs"}
        path.write_text(
            json.dumps({**keys, "serving": {"namespace": "servers", "token_secret": "model-token"}})
        )
        yield path


@pytest.fixture
def example(tmp_path):
    np.save(tmp_path / "x.npy", np.full((2, 2), 255, "uint8"))
    return tmp_path / "x.npy"


def test_a_model_without_a_url_is_reached_through_the_api_server(modelyard, environment, example):
    result = modelyard("predict", "tiny", example, "-e", environment, "--output", "json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["predictions"][0]["text"] == "bright"

    result = modelyard("predict", "tiny", example, "-e", environment, "--version", 2)
    assert result.code == 8
    assert "404" in result.err, "the server has no such version"

    result = modelyard("predict", "missing", example, "-e", environment)
    assert result.code == 9
    assert 'services "missing" not found.' in result.err
    assert "modelyard rollout status missing" in result.err

    overrides = ["environment.serving.urls={tiny: 'http://127.0.0.1:30851/'}"]
    loaded = load_environment(str(environment), overrides, {})
    assert find_server("tiny", loaded) == HttpServer(
        "http://127.0.0.1:30851", proxies=True, token=TOKENS.split()[0]
    )
    other = find_server("other", loaded)
    assert (other.kind, other.name, other.port, other.tls) == ("Service", "other", 8501, False)
    PodsRunner("servers", loaded, Path()).check()
    without_secret = load_environment(str(environment), ["environment.serving.token_secret=missing"], {})
    with pytest.raises(ConfigError, match="no Secret missing"):
        PodsRunner("servers", without_secret, Path()).check()
    overrides = ["environment.serving.tls_secret=cert"]
    assert find_server("other", load_environment(str(environment), overrides, {})).tls
