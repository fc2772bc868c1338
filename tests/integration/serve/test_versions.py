"""The version of a server: the champion, also under load, a pinned version, and invalid versions."""

import json
import threading
import time
from collections import Counter
from types import SimpleNamespace

import httpx
import numpy as np
import onnx
import pytest
from onnx.helper import make_node

from modelyard.components.errors import ServeError
from modelyard.components.serve import model
from modelyard.pipelines.cli import invoke
from tests.onnx_models import save_model
from tests.processes import wait_until
from tests.versions import classifier_signature

IMAGE = np.zeros((4, 4, 3), int).tolist()


def served_version(server):
    return int(httpx.get(f"{server.url}/v2/models/tiny").json()["versions"][0])


class Clients:
    """Threads that send requests without pauses and count the predictions."""

    def __init__(self, server, number=4):
        self.predictions: Counter[tuple[float, ...] | str] = Counter()
        self._server, self._stop = server, threading.Event()
        self._threads = [threading.Thread(target=self._send_requests) for _ in range(number)]

    def _send_requests(self):
        with httpx.Client(timeout=60) as client:
            url = f"{self._server.url}/v1/models/tiny:predict"
            while not self._stop.is_set():
                try:
                    response = client.post(url, json={"instances": [IMAGE]})
                    (prediction,) = response.raise_for_status().json()["predictions"]
                    self.predictions[tuple(prediction)] += 1
                except (httpx.HTTPError, KeyError) as error:
                    self.predictions[repr(error)] += 1

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_new_champion_is_served_under_load_without_a_failed_request(tiny_model, start):
    old, new = (0.25, 0.75), (0.5, 0.5)
    tiny_model.publish(prediction=old)
    with start(tiny_model) as server:
        with Clients(server) as clients:
            wait_until(lambda: clients.predictions[old] > 50)
            second = tiny_model.publish(prediction=new)
            wait_until(lambda: clients.predictions[new] > 50)
            assert served_version(server) == second
            tiny_model.models.rollback("tiny", reason="test", by="test")
            before = clients.predictions[old]
            wait_until(lambda: clients.predictions[old] > before + 50)
        assert set(clients.predictions) == {old, new}

        tiny_model.publish(classifier_signature((2,), "float32", ("dark", "bright")))  # with another shape
        wait_until(lambda: served_version(server) == 3)
        assert server.predict([[0.5, 0.5]]).json() == {"predictions": [[0.5, 0.5]]}
        assert server.predict([IMAGE]).status_code == 400


def test_a_pinned_server_ignores_new_champions(tiny_model, start):
    first = tiny_model.publish(prediction=(0.25, 0.75))
    tiny_model.publish(prediction=(0.5, 0.5))
    with start(tiny_model, version=first) as server:
        assert server.ready["version"] == first
        tiny_model.publish(prediction=(0.0, 1.0))
        time.sleep(0.3)
        assert server.predict([IMAGE]).json() == {"predictions": [[0.25, 0.75]]}
        response = httpx.post(f"{server.url}/v1/models/tiny/versions/2:predict", json={"instances": [IMAGE]})
        assert response.status_code == 404


def save_identity_model(path):
    """Save a model that predicts its input, which is not probabilities of the classes."""
    nodes = [make_node("Cast", ["pixels"], ["probabilities"], to=onnx.TensorProto.FLOAT)]
    save_model(path, nodes, ("pixels", "uint8", (4, 4, 3)), ("probabilities", (4, 4, 3)), {})


def test_a_champion_that_cannot_be_loaded_is_skipped(tiny_model, start, monkeypatch, capsys):
    tiny_model.publish(prediction=(0.25, 0.75))
    pointer = tiny_model.file(1).parents[2] / "champion.json"
    monkeypatch.setenv("MODELYARD_STORE__URL", tiny_model.settings.url)
    with start(tiny_model) as server, httpx.Client(base_url=server.url) as client:

        def rollout_status():
            assert invoke(["rollout", "status", "tiny", "--url", server.url, "--output", "json"]) == 0
            status = json.loads(capsys.readouterr().out)
            return status["champion"], status["stable"]["version"], status["errors"]

        def check_not_served(message, champion):
            wait_until(lambda: message in client.get("/v1/models/tiny").json().get("error", ""))
            assert message in server.log.read_text()
            assert server.predict([IMAGE]).json() == {"predictions": [[0.25, 0.75]]}
            for path in ("/v2/health/ready", "/v2/models/tiny/ready"):
                ready = client.get(path)
                assert ready.status_code == 200, "the last valid version is not served"
                assert (ready.json()["version"], ready.json()["champion"]) == (1, champion)

        def check_served(version):
            wait_until(lambda: "error" not in client.get("/v1/models/tiny").json())
            assert client.get("/v2/health/ready").json() == {"ready": True}
            assert rollout_status() == (version, version, [])

        check_served(1)
        damaged = tiny_model.publish(prediction=(0.5, 0.5), promote=False)
        file = tiny_model.file(damaged)
        file.chmod(0o644)
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        tiny_model.models.promote("tiny", damaged, reason="test", by="test")
        check_not_served("SHA-256", damaged)
        champion, served, (problem,) = rollout_status()
        assert (champion, served) == (damaged, 1)
        assert "SHA-256" in problem
        assert server.metric("modelyard_champion_version", version=str(damaged)) == 1
        assert server.metric("modelyard_model_version", version="1") == 1
        assert server.metric("modelyard_champion_failures_total") > 0
        tiny_model.publish(make=lambda path: path.write_bytes(b"not onnx"))
        check_not_served("cannot be loaded by ONNX Runtime", 3)
        before = server.metric("modelyard_champion_failures_total")
        wait_until(lambda: server.metric("modelyard_champion_failures_total") > before + 5)
        tiny_model.publish(make=save_identity_model)
        check_not_served("(1, 4, 4, 3)", 4)
        missing = tiny_model.publish(prediction=(0.5, 0.5), promote=False)
        tiny_model.file(missing).rename(tiny_model.scratch / "moved.onnx")
        tiny_model.models.promote("tiny", missing, reason="test", by="test")
        check_not_served("model.onnx", missing)

        text = pointer.read_text()
        pointer.write_text("{")  # as if the pointer were written partially
        check_not_served("champion.json is damaged", None)
        pointer.unlink()
        check_not_served("champion.json is missing", None)
        pointer.write_text(text)
        check_not_served("model.onnx", missing)
        (tiny_model.scratch / "moved.onnx").rename(tiny_model.file(missing))
        check_served(missing)
        assert server.predict([IMAGE]).json() == {"predictions": [[0.5, 0.5]]}
        for message in ("SHA-256", "cannot be loaded by ONNX Runtime", "(1, 4, 4, 3)"):
            assert server.log.read_text().count(message) == 1, "an error is logged once"


def test_a_reason_that_differs_only_in_a_memory_address_is_logged_once(caplog):
    addresses, reports = iter(range(99)), []

    def fail(_):
        raise OSError(f"no response on <Connection object at {next(addresses):#x}>")

    def report(champion, error):
        reports.append((champion, error))
        if len(reports) == 3:
            follower.stop()

    store, served = SimpleNamespace(require_champion=fail), SimpleNamespace(name="tiny", version=1)
    follower = model.ChampionFollower(store, served, 0.001, 1, print, report)
    follower.run()
    assert [champion for champion, _ in reports] == [None] * 3
    assert all("no response" in error for _, error in reports)
    assert len(caplog.records) == 1


def test_a_version_that_needs_too_much_memory_is_not_loaded(tiny_model, monkeypatch):
    version = tiny_model.publish()
    monkeypatch.setattr(model, "read_memory_limit", lambda: 1)
    with pytest.raises(ServeError, match=f"Version {version} of tiny needs"):
        model.load(tiny_model.models, "tiny", version, None, 1)


def test_a_large_request_is_parsed_outside_of_the_event_loop(tiny_model, start):
    wide = classifier_signature((300, 300), "uint8", ("dark", "bright"))
    tiny_model.publish(wide)
    with start(tiny_model) as server:
        response = server.predict(np.full((2, 300, 300), 51).tolist())
        np.testing.assert_allclose(response.json()["predictions"], [[0.8, 0.2]] * 2, atol=1e-6)
        assert server.predict([[1]]).status_code == 400
