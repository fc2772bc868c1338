"""The exit task: its explanation, its record, and its webhook, whose URL must not be logged."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from modelyard.components import records
from modelyard.components.artifacts import Outcome
from modelyard.components.errors import DataError
from modelyard.components.explain.exit_task import NO_DECISION, WEBHOOK, post_webhook, report_end
from modelyard.components.explain.explanation import create_explanation
from modelyard.components.explain.spec import ExplainSpec
from modelyard.components.records import OutcomeRecord, RunEnd, RunStart
from modelyard.components.step import failure_document
from modelyard.components.store.folder import Folder
from modelyard.components.store.records import write_record
from modelyard.components.store.settings import Store
from tests.http_server import Handler, serve

EXPLANATION = create_explanation("run-1", "digits", "failed", "train", "the loss became NaN.", "TrainError")


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A webhook that returns `status` and records the requests in `posted`."""

    class Webhook(Handler):
        status = 200
        posted: ClassVar[list[tuple[str, dict[str, str]]]] = []

        def handle_request(self) -> None:
            self.posted.append((self.path, json.loads(self.read_body())))
            self.respond(self.status, location="/other")

    with serve(Webhook) as url:
        monkeypatch.setenv(WEBHOOK, f"{url}/hooks/s3cr3t")
        yield Webhook


def test_the_text_and_the_fields_of_the_explanation_are_posted(
    webhook: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert post_webhook(EXPLANATION.json()) is None
    assert webhook.posted == [
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
def test_an_error_of_the_webhook_is_reported_and_redirects_are_not_followed(
    webhook: Any, status: int
) -> None:
    webhook.status = status
    assert post_webhook(EXPLANATION.json()) == f"The webhook failed: it returned status {status}."
    assert [path for path, _ in webhook.posted] == ["/hooks/s3cr3t"]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/s3cr3t",
        "ftp://127.0.0.1/s3cr3t",
        "s3cr3t",
        "https://[s3cr3t",
        "http://127.0.0.1:1/s3cr3t",
    ],
)
def test_an_invalid_or_unreachable_url_is_reported_without_the_url(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(WEBHOOK, url)
    problem = post_webhook(EXPLANATION.json())
    assert problem is not None
    assert "s3cr3t" not in problem + caplog.text


def test_without_a_webhook_nothing_is_posted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WEBHOOK, raising=False)
    assert post_webhook(EXPLANATION.json()) is None


def spec(store: Path) -> ExplainSpec:
    return ExplainSpec(name="digits", store=Store(url=str(store)))


@pytest.fixture
def run_exit_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[str, RunEnd | None]]:
    """Return a function that runs the exit task of the run `r1`; it returns the text and the record."""
    monkeypatch.setenv(records.RUN_ID, "r1")
    objects = Folder(tmp_path / "models")

    def run_exit_task(state: str) -> tuple[str, RunEnd | None]:
        report_end(spec(tmp_path / "models"), "r1", state, str(tmp_path / "explanation"))
        text = (tmp_path / "explanation").read_text()
        return text, records.read(objects, records.end_key("digits", "r1"), RunEnd)

    return run_exit_task


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create the folder of a run of this machine; return it."""
    (tmp_path / "r1" / "failures").mkdir(parents=True)
    monkeypatch.setenv(records.RUN_FOLDER, str(tmp_path / "r1"))
    return tmp_path / "r1"


def record_decision(tmp_path: Path, outcome: Outcome | None = None, unchanged: str | None = None) -> None:
    objects = Folder(tmp_path / "models")
    start = RunStart(
        run_id="r1",
        model="digits",
        fingerprint="f1",
        data="d1",
        champion=0,
        started=records.now(),
        unchanged=unchanged,
    )
    write_record(objects, records.run_key("digits", "r1"), start)
    if outcome:
        write_record(objects, records.outcome_key("digits", "r1"), OutcomeRecord(outcome=outcome))


def test_an_exit_task_without_access_to_the_run_reports_its_state(
    run_exit_task: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(records.RUN_FOLDER, raising=False)
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    text, recorded = run_exit_task("FAILED")
    assert text == "The run r1 of digits failed: `modelyard explain` may show why.\n"
    assert recorded.state == "failed"
    assert "explain does not run in a pod of Kubeflow Pipelines" in capsys.readouterr().out
    assert "r1 of digits succeeded" in run_exit_task("COMPLETE")[0]


@pytest.mark.usefixtures("run_folder")
def test_a_failing_webhook_is_logged_and_does_not_fail_the_task(
    webhook: Any, run_exit_task: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    webhook.status = 500
    record_decision(tmp_path, Outcome(version=4, decision="hold", reason="it does not beat version 3"))
    expected = "The run r1 of digits succeeded: hold, because it does not beat version 3."
    text, recorded = run_exit_task("SUCCEEDED")
    assert text == f"{expected}\n"
    assert (recorded.state, recorded.text, recorded.kind) == ("succeeded", expected, None)
    message = capsys.readouterr().out
    assert message == f"{expected}\nThe webhook failed: it returned status 500.\n"


@pytest.mark.usefixtures("run_folder")
def test_a_run_without_a_decision_is_explained(
    run_exit_task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fingerprint ended the run, or evaluate was cached and its record was removed."""
    monkeypatch.delenv(WEBHOOK, raising=False)
    record_decision(tmp_path)
    assert run_exit_task("SUCCEEDED")[0].endswith(f"succeeded: {NO_DECISION}.\n")
    record_decision(tmp_path, unchanged="version 1 has the same data")
    assert run_exit_task("SUCCEEDED")[0].endswith(
        "succeeded: unchanged, because version 1 has the same data.\n"
    )


def test_the_record_of_the_failed_step_is_the_reason(
    run_exit_task: Any, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WEBHOOK, raising=False)
    error = failure_document(DataError("No such file. Name one."), "ingest")
    for step, content in {
        "fingerprint": b"",
        "ingest": error,
        "explain": failure_document(KeyError(), "explain"),
    }.items():
        (run_folder / "failures" / f"{step}.json").write_bytes(content)
    text, recorded = run_exit_task("FAILED")
    assert text == "The run r1 of digits failed in the step ingest: No such file. Name one.\n"
    assert (recorded.state, recorded.step, recorded.kind) == ("failed", "ingest", "DataError")


@pytest.mark.usefixtures("run_folder")
def test_an_unavailable_store_does_not_prevent_the_explanation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(WEBHOOK, raising=False)
    monkeypatch.setenv(records.RUN_ID, "r1")
    (tmp_path / "file").touch()
    report_end(spec(tmp_path / "file" / "models"), "r1", "SUCCEEDED", str(tmp_path / "explanation"))
    assert "r1 of digits succeeded" in (tmp_path / "explanation").read_text()
    assert str(tmp_path / "file") in capsys.readouterr().out
