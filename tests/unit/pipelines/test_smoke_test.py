"""One prediction from a server: over plain HTTP, or through a transport that leads into a cluster."""

import http.server
import json
import threading
from types import SimpleNamespace

import httpx
import pytest

from modelyard.components.artifacts import Golden, Prediction, write
from modelyard.components.errors import DeployError
from modelyard.components.store.settings import Store
from modelyard.pipelines.serving import smoke_test
from modelyard.pipelines.serving.smoke_test import predict_once
from tests.published import classifier

GOLDEN = Golden(problem="classification", instances=[[[1]], [[2]]], predictions=[[0.2, 0.8], [1.0, 0.0]])
ANSWER = {"predictions": [[0.25, 0.75]]}


class Models:
    """A store whose champion of `digits` is version 7; of another model there is none."""

    def champion(self, name):
        return SimpleNamespace(version=7) if name == "digits" else None

    def fetch(self, name, version, folder, only):
        assert (name, version, only) == ("digits", 7, ["golden.json"])
        folder.mkdir()
        write(folder / "golden.json", GOLDEN)
        return SimpleNamespace(signature=classifier((1, 1), "float32", ("cat", "dog")))


@pytest.fixture(autouse=True)
def store(monkeypatch):
    monkeypatch.setattr(smoke_test, "open_store", lambda _store: Models())


@pytest.fixture
def server():
    class Handler(http.server.BaseHTTPRequestHandler):
        answer = json.dumps(ANSWER).encode()
        status = 200

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert (self.path, body) == ("/v1/models/digits:predict", {"instances": [[[1]]]})
            self.send_response(self.status)
            self.send_header("Content-Length", str(len(self.answer)))
            self.end_headers()
            self.wfile.write(self.answer)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield Handler, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_prediction_over_http(server):
    found = predict_once(server[1], "digits", Store())
    assert (found.version, found.answer) == (7, "dog")


def test_a_prediction_through_a_transport():
    def answer(request):
        assert json.loads(request.read()) == {"instances": [[[1]]]}
        return httpx.Response(200, json=ANSWER)

    found = predict_once("http://digits.serving", "digits", Store(), httpx.MockTransport(answer))
    assert isinstance(found, Prediction)
    with pytest.raises(DeployError, match=r"http://digits\.serving"):
        predict_once(
            "http://digits.serving", "digits", Store(), httpx.MockTransport(lambda _: httpx.Response(503))
        )


@pytest.mark.parametrize(("status", "answer"), [(503, b"{}"), (200, b"{}"), (200, b"no JSON")])
def test_a_server_that_does_not_answer_a_prediction_is_named(server, status, answer):
    server[0].status, server[0].answer = status, answer
    with pytest.raises(DeployError, match=server[1]):
        predict_once(server[1], "digits", Store())


def test_without_a_champion_there_is_no_prediction():
    assert predict_once("http://127.0.0.1:1", "another", Store()) is None
