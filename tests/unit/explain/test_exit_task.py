"""What is posted to a webhook, and that its address is repeated nowhere; with a real HTTP server."""

import http.server
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.components import artifacts
from modelyard.components.explain.exit_task import WEBHOOK, post, report
from modelyard.components.explain.explanation import explanation
from modelyard.components.explain.local_run import UNCHANGED

TOLD = explanation("run-1", "digits", "failed", "train", "the loss became NaN.")


class Server(http.server.ThreadingHTTPServer):
    """Keeps what is posted to it; answers with `status`."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.posted: list[tuple[str, dict[str, str]]] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.path, json.loads(body)))
        self.send_response(self.server.status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        monkeypatch.setenv(WEBHOOK, f"http://127.0.0.1:{found.server_port}/hooks/s3cr3t")
        yield found
        found.shutdown()


def test_what_is_posted_is_the_paragraph_and_its_parts(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert post(TOLD.json()) is None
    assert server.posted == [
        (
            "/hooks/s3cr3t",
            {
                "text": "The run run-1 of digits failed in the step train: the loss became NaN.",
                "run": "run-1",
                "model": "digits",
                "state": "failed",
                "step": "train",
            },
        )
    ]
    assert [record for record in caplog.records if "httpx" in record.name] == []


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_does_not_take_it_is_said_and_not_asked_elsewhere(server: Server, status: int) -> None:
    server.status = status
    assert post(TOLD.json()) == f"The webhook was not called: it answered with status {status}."
    assert [path for path, _ in server.posted] == ["/hooks/s3cr3t"]


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/s3cr3t",
        "ftp://127.0.0.1/s3cr3t",
        "s3cr3t",
        "https://[s3cr3t",
        "http://127.0.0.1:1/s3cr3t",
    ],
)
def test_an_address_that_is_none_or_not_safe_or_away_is_said_without_it(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(WEBHOOK, address)
    problem = post(TOLD.json())
    assert problem is not None
    assert "s3cr3t" not in problem + caplog.text


def test_without_a_webhook_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WEBHOOK, raising=False)
    assert post(TOLD.json()) is None


def test_an_exit_task_that_sees_nothing_of_its_run_still_says_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MODELYARD_RUN", raising=False)
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    report("digits", "r1", "FAILED", str(tmp_path / "explanation"))
    assert (tmp_path / "explanation").read_text() == (
        "The run r1 of digits failed: `modelyard explain` may say why.\n"
    )
    assert "explain is in no pod of Kubeflow Pipelines" in capsys.readouterr().out
    report("digits", "r1", "COMPLETE", str(tmp_path / "explanation"))
    assert "r1 of digits succeeded" in (tmp_path / "explanation").read_text()


def test_a_webhook_that_fails_is_said_in_the_log_and_fails_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status = 500
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "evaluate.log").write_text("hold: it does not beat version 3\n")
    monkeypatch.setenv("MODELYARD_RUN", str(tmp_path))
    report("digits", "ignored", "SUCCEEDED", str(tmp_path / "out" / "explanation"))
    text = f"The run {tmp_path.name} of digits succeeded: hold: it does not beat version 3\n"
    assert (tmp_path / "out" / "explanation").read_text() == text
    said = capsys.readouterr().out
    assert said == f"{text}The webhook was not called: it answered with status 500.\n"


@pytest.mark.parametrize(
    ("output", "last"),
    [
        ("unchanged", "unchanged: version 1 has the same data"),
        ("6ef3ad", "no new version was deployed"),
    ],
)
def test_without_a_decision_in_this_run_it_says_what_that_means(
    output: str, last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fingerprint ended the run, or evaluate came from the cache and nothing is deployed."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "fingerprint.log").write_text("unchanged: version 1 has the same data\n")
    step = tmp_path / "artifacts" / "p-1" / "fingerprint"
    step.mkdir(parents=True)
    (step / "executor_output.json").write_text(json.dumps({"parameterValues": {"Output": output}}))
    monkeypatch.setenv("MODELYARD_RUN", str(tmp_path))
    monkeypatch.delenv(WEBHOOK, raising=False)
    report("digits", "ignored", "SUCCEEDED", str(tmp_path / "explanation"))
    assert (tmp_path / "explanation").read_text().endswith(f"succeeded: {last}\n")
    assert UNCHANGED == artifacts.UNCHANGED
