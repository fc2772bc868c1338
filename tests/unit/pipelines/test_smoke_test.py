"""Requests to a server, and one prediction from it."""

import json
from types import SimpleNamespace

import pytest

from modelyard.components.artifacts import Golden
from modelyard.components.errors import DeployError, ServeError
from modelyard.components.server import HttpServer, NoServerError, send
from modelyard.components.store.settings import Store
from modelyard.pipelines.serving import smoke_test
from modelyard.pipelines.serving.smoke_test import predict_once
from tests.http_server import Handler, serve
from tests.versions import classifier_signature

GOLDEN = Golden(problem="classification", instances=[[[1]], [[2]]], predictions=[[0.2, 0.8], [1.0, 0.0]])
REPLY = {"predictions": [[0.25, 0.75]]}


class Models:
    """A store with the model `digits`, whose champion is version 7."""

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
    """The handler of a server, with the `status` and `body` of its responses, and its URL."""

    class Server(Handler):
        body = json.dumps(REPLY).encode()
        status = 200

        def handle_request(self):
            if self.command == "GET":
                self.respond(200, self.path.encode())
                return
            request = json.loads(self.read_body())
            assert (self.path, request) == ("/v1/models/digits:predict", {"instances": [[[1]]]})
            self.respond(self.status, self.body)

    with serve(Server) as url:
        yield Server, url


def test_a_prediction_has_the_version_and_the_class(server):
    prediction = predict_once(HttpServer(server[1]), "digits", Store())
    assert (prediction.version, prediction.text) == (7, "dog")


def test_a_missing_endpoint_is_a_no_server_error():
    class Proxied:
        def request(self, *_):
            raise NoServerError("no endpoints")

    with pytest.raises(NoServerError):
        predict_once(Proxied(), "digits", Store())


def test_a_proxy_is_used_for_other_machines_only(server, monkeypatch):
    """The server of the fixture is the proxy; requests to a proxy have the whole URL."""
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
    ("status", "body"), [(503, b"{}"), (302, b"{}"), (200, b"{}"), (200, b"not JSON"), (200, b"[]")]
)
def test_an_invalid_response_is_an_error_with_the_url(server, status, body):
    server[0].status, server[0].body = status, body
    with pytest.raises(DeployError, match=server[1]):
        predict_once(HttpServer(server[1]), "digits", Store())


def test_without_a_champion_there_is_no_prediction():
    assert predict_once(HttpServer("http://127.0.0.1:1"), "another", Store()) is None
