"""What is posted to a webhook, and that its address is repeated nowhere; with a real HTTP server."""

import http.server
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.components import records
from modelyard.components.artifacts import Outcome
from modelyard.components.errors import DataError
from modelyard.components.explain.exit_task import NO_DECISION, WEBHOOK, post, report
from modelyard.components.explain.explanation import explanation
from modelyard.components.explain.spec import ExplainSpec
from modelyard.components.records import OutcomeRecord, RunEnd, RunStart
from modelyard.components.step import document
from modelyard.components.store.folder import Folder
from modelyard.components.store.settings import Store

TOLD = explanation("run-1", "digits", "failed", "train", "the loss became NaN.", "TrainError")


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
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
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
                "kind": "TrainError",
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


def spec(store: Path) -> ExplainSpec:
    return ExplainSpec(name="digits", store=Store(url=str(store)))


@pytest.fixture
def end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[str, RunEnd | None]]:
    """Run the exit task of the run `r1`, whose store is a folder; return what it wrote and recorded."""
    monkeypatch.setenv(records.RUN_ID, "r1")
    objects = Folder(tmp_path / "models")

    def end(state: str) -> tuple[str, RunEnd | None]:
        report(spec(tmp_path / "models"), "r1", state, str(tmp_path / "explanation"))
        written = (tmp_path / "explanation").read_text()
        return written, records.read(objects, records.end_key("digits", "r1"), RunEnd)

    return end


@pytest.fixture
def led_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this machine lead the run; return its folder."""
    (tmp_path / "r1" / "failures").mkdir(parents=True)
    monkeypatch.setenv(records.RUN_FOLDER, str(tmp_path / "r1"))
    return tmp_path / "r1"


def decided(tmp_path: Path, outcome: Outcome | None = None, unchanged: str | None = None) -> None:
    objects = Folder(tmp_path / "models")
    began = RunStart(
        run_id="r1",
        model="digits",
        fingerprint="f1",
        data="d1",
        champion=0,
        started=records.now(),
        unchanged=unchanged,
    )
    records.write(objects, records.run_key("digits", "r1"), began)
    if outcome:
        records.write(objects, records.outcome_key("digits", "r1"), OutcomeRecord(outcome=outcome))


def test_an_exit_task_that_sees_nothing_of_its_run_still_says_how_it_ended(
    end: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(records.RUN_FOLDER, raising=False)
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    written, recorded = end("FAILED")
    assert written == "The run r1 of digits failed: `modelyard explain` may say why.\n"
    assert recorded.state == "failed"
    assert "explain is in no pod of Kubeflow Pipelines" in capsys.readouterr().out
    assert "r1 of digits succeeded" in end("COMPLETE")[0]


@pytest.mark.usefixtures("led_here")
def test_a_webhook_that_fails_is_said_in_the_log_and_fails_nothing(
    server: Server, end: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status = 500
    decided(tmp_path, Outcome(version=4, decision="hold", reason="it does not beat version 3"))
    text = "The run r1 of digits succeeded: hold: it does not beat version 3"
    written, recorded = end("SUCCEEDED")
    assert written == f"{text}\n"
    assert (recorded.state, recorded.text, recorded.kind) == ("succeeded", text, None)
    said = capsys.readouterr().out
    assert said == f"{text}\nThe webhook was not called: it answered with status 500.\n"


@pytest.mark.usefixtures("led_here")
def test_without_a_decision_in_this_run_it_says_what_that_means(
    end: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fingerprint ended the run, or evaluate came from the cache and its record is gone."""
    monkeypatch.delenv(WEBHOOK, raising=False)
    decided(tmp_path)
    assert end("SUCCEEDED")[0].endswith(f"succeeded: {NO_DECISION}\n")
    decided(tmp_path, unchanged="version 1 has the same data")
    assert end("SUCCEEDED")[0].endswith("succeeded: unchanged: version 1 has the same data\n")


def test_the_record_of_the_step_that_failed_says_why(
    end: Any, led_here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WEBHOOK, raising=False)
    error = document(DataError("No such file. Name one."), "ingest")
    for step, content in {
        "fingerprint": b"",
        "ingest": error,
        "explain": document(KeyError(), "explain"),
    }.items():
        (led_here / "failures" / f"{step}.json").write_bytes(content)
    written, recorded = end("FAILED")
    assert written == "The run r1 of digits failed in the step ingest: No such file. Name one.\n"
    assert (recorded.state, recorded.step, recorded.kind) == ("failed", "ingest", "DataError")


@pytest.mark.usefixtures("led_here")
def test_a_store_that_is_away_costs_the_record_and_not_the_paragraph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(WEBHOOK, raising=False)
    monkeypatch.setenv(records.RUN_ID, "r1")
    (tmp_path / "file").touch()
    report(spec(tmp_path / "file" / "models"), "r1", "SUCCEEDED", str(tmp_path / "explanation"))
    assert "r1 of digits succeeded" in (tmp_path / "explanation").read_text()
    assert str(tmp_path / "file") in capsys.readouterr().out
