"""Requests to a server, and one prediction from it."""

import http.server
import json
import threading
from types import SimpleNamespace

import pytest

from modelyard.components.artifacts import Golden
from modelyard.components.errors import DeployError, ServeError
from modelyard.components.server import HttpServer, NoServerError, send
from modelyard.components.store.settings import Store
from modelyard.pipelines.serving import smoke_test
from modelyard.pipelines.serving.smoke_test import predict_once
from tests.versions import classifier_signature

GOLDEN = Golden(problem="classification", instances=[[[1]], [[2]]], predictions=[[0.2, 0.8], [1.0, 0.0]])
REPLY = {"predictions": [[0.25, 0.75]]}


class Models:
    """A store whose champion of `digits` is version 7; of another model there is none."""

    def champion(self, name):
        return SimpleNamespace(version=7) if name == "digits" else None

    def read_record(self, name, version, path, kind):
        assert (name, version, path, kind) == ("digits", 7, "golden.json", Golden)
        return SimpleNamespace(signature=classifier_signature((1, 1), "float32", ("cat", "dog"))), GOLDEN


@pytest.fixture(autouse=True)
def store(monkeypatch):
    monkeypatch.setattr(smoke_test, "open_store", lambda _store: Models())


@pytest.fixture
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        body = json.dumps(REPLY).encode()
        status = 200

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert (self.path, request) == ("/v1/models/digits:predict", {"instances": [[[1]]]})
            self.send_response(self.status)
            self.send_header("Content-Length", str(len(self.body)))
            self.end_headers()
            self.wfile.write(self.body)

        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.path.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield Handler, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_prediction_over_http(server):
    prediction = predict_once(HttpServer(server[1]), "digits", Store())
    assert (prediction.version, prediction.answer) == (7, "dog")


def test_a_missing_endpoint_is_a_no_server_error():
    class Proxied:
        def request(self, *_):
            raise NoServerError("no endpoints")

    with pytest.raises(NoServerError):
        predict_once(Proxied(), "digits", Store())


def test_a_proxy_is_used_for_other_machines_only(server, monkeypatch):
    """The server of the fixture is the proxy: it gets the whole URL."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, server[1])
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    other = "http://models.invalid"
    assert send(HttpServer(other, proxies=True), "GET", "/x").decode() == f"{other}/x"
    assert send(HttpServer(server[1], proxies=True), "GET", "/x") == b"/x"
    with pytest.raises(ServeError, match=r"http://models\.invalid"):
        send(HttpServer(other), "GET", "/x")


@pytest.mark.parametrize(
    ("status", "body"), [(503, b"{}"), (302, b"{}"), (200, b"{}"), (200, b"no JSON"), (200, b"[]")]
)
def test_an_invalid_response_is_an_error_with_the_url(server, status, body):
    server[0].status, server[0].body = status, body
    with pytest.raises(DeployError, match=server[1]):
        predict_once(HttpServer(server[1]), "digits", Store())


def test_without_a_champion_there_is_no_prediction():
    assert predict_once(HttpServer("http://127.0.0.1:1"), "another", Store()) is None
