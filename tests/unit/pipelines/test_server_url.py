"""Predictions of a model on a cluster, through an API server that proxies Services like Kubernetes."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from modelyard.components.errors import ConfigError
from modelyard.components.server import HttpServer
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.runners.pods.runner import PodsRunner
from modelyard.pipelines.serving.platforms import find_server
from tests.access import write_private
from tests.http_server import Handler, serve

TOKENS = "first\nsecond\n"
OBJECT = "/api/v1/namespaces/servers/secrets/model-token"
PROXY = "/api/v1/namespaces/servers/services/tiny:8501/proxy"


@pytest.fixture
def server(store, tmp_path):
    """The URL of a server of `tiny` that requires a token."""
    serving = json.dumps({"port": 0, "token_file": write_private(tmp_path / "tokens", TOKENS)})
    line = [sys.executable, "-m", "modelyard.components.serve", "--name", "tiny", "--serving", serving]
    line += ["--store", json.dumps({"url": store.url})]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        yield json.loads(running.stdout.readline())["url"]
        running.terminate()


@pytest.fixture
def environment(server, tmp_path, monkeypatch):
    """The path of an environment whose cluster has the Service `tiny` and the Secret of its token alone."""

    class ApiServer(Handler):
        def handle_request(self) -> None:
            if self.path == OBJECT:
                data = {"token": base64.b64encode(TOKENS.encode()).decode()}
                return self.respond(200, json.dumps({"kind": "Secret", "data": data}).encode())
            if self.path.startswith("/api/v1/namespaces/modelyard-runs/pods?"):
                return self.respond(200, b'{"items": []}')
            if not self.path.startswith(PROXY):
                status = {"kind": "Status", "message": 'services "gone" not found'}
                return self.respond(404, json.dumps(status).encode())
            body = self.read_body()
            own = ("host", "authorization")  # which go no further
            head = {key: value for key, value in self.headers.items() if key.lower() not in own}
            url = f"{server}{self.path.removeprefix(PROXY)}"
            response = httpx.request(self.command, url, content=body, headers=head)
            return self.respond(response.status_code, response.content)

    with serve(ApiServer) as api:
        cluster = {"name": "c", "cluster": {"server": api}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        kubeconfig = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}]}
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump({**kubeconfig, "current-context": "c"}))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
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
    assert "404" in result.err, "the server itself has no such version"

    result = modelyard("predict", "gone", example, "-e", environment)
    assert result.code == 9
    assert 'services "gone" not found.' in result.err
    assert "modelyard rollout status gone" in result.err

    overrides = ["environment.serving.urls={tiny: 'http://127.0.0.1:30851/'}"]
    loaded = load_environment(str(environment), overrides, {})
    assert find_server("tiny", loaded) == HttpServer(
        "http://127.0.0.1:30851", proxies=True, token=TOKENS.split()[0]
    )
    other = find_server("other", loaded)
    assert (other.kind, other.name, other.port, other.tls) == ("Service", "other", 8501, False)
    PodsRunner("servers", loaded, Path()).check()
    without = load_environment(str(environment), ["environment.serving.token_secret=gone"], {})
    with pytest.raises(ConfigError, match="no Secret gone"):
        PodsRunner("servers", without, Path()).check()
    overrides = ["environment.serving.tls_secret=cert"]
    assert find_server("other", load_environment(str(environment), overrides, {})).tls
