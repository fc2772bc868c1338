"""The end of a run: `unchanged`, or an explanation that is posted to the webhook."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.http_server import Handler, serve

WEBHOOK_PATH = "/hooks/T0P-5ECRET"
MISSING_DATA = ("data.kind=npz", "data.source=missing.npz")


@pytest.fixture
def webhook_requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Run a server for MODELYARD_WEBHOOK; yield the path and body of its requests."""
    requests: list[tuple[str, dict[str, Any]]] = []

    class Webhook(Handler):
        def handle_request(self) -> None:
            requests.append((self.path, json.loads(self.read_body())))
            self.respond(204)

    with serve(Webhook) as url:
        monkeypatch.setenv("MODELYARD_WEBHOOK", f"{url}{WEBHOOK_PATH}")
        yield requests


def states(summary: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in summary["steps"]}


def explanation(workspace: Any, summary: dict[str, Any]) -> str:
    run = workspace.folder / ".modelyard" / "runs" / summary["run"]
    (file,) = run.glob("artifacts/*/explain/explanation")
    return file.read_text()


def files_with_webhook_path(folder: Path) -> list[Path]:
    return [
        path for path in folder.rglob("*") if path.is_file() and WEBHOOK_PATH.encode() in path.read_bytes()
    ]


def test_skip_unchanged_ends_the_run_after_fingerprint(champion, webhook_requests):
    before = champion.state()
    summary = champion.json("run", "--skip-unchanged")
    assert (summary["state"], summary["decision"]) == ("succeeded", "unchanged")
    assert summary["reason"].startswith("version 1, the champion since ")
    assert (summary["version"], summary["champion"]) == (None, 1)
    executed = [name for name, state in states(summary).items() if state == "succeeded"]
    assert executed == ["fingerprint", "explain"]
    assert set(states(summary).values()) == {"succeeded", "skipped"}
    assert champion.state() == before
    ((_, payload),) = webhook_requests
    assert payload["state"] == "succeeded"
    assert summary["reason"] in payload["text"]


@pytest.mark.soak  # trains; tests/unit/fingerprint tests the fingerprint of the run
def test_force_after_trains_again(champion):
    entry = champion.folder / ".modelyard/models/digits/history/000001.json"
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"at": "2020-01-01T00:00:00+00:00"}))
    previous = champion.models.champion("digits").run
    summary = champion.json("run", "--skip-unchanged", "--force-after", "30d")
    assert states(summary)["train"] == "succeeded"
    assert (summary["decision"], summary["fingerprint"] != previous) == ("promote", True)
    repeated = champion.json("run", "--skip-unchanged", "--force-after", "30d")
    assert repeated["decision"] == "unchanged"


def test_the_failure_is_posted_to_the_webhook_whose_url_is_not_stored(champion, webhook_requests):
    summary = champion.json("run", settings=MISSING_DATA, code=3)
    assert (summary["state"], summary["failure"]["kind"]) == ("failed", "DataError")
    assert Path(summary["failure"]["log"]).is_file()
    ((path, payload),) = webhook_requests
    assert path == WEBHOOK_PATH
    assert (payload["run"], payload["model"], payload["state"]) == (summary["run"], "digits", "failed")
    assert payload["step"] == "fingerprint"
    assert summary["failure"]["message"] in payload["text"]
    assert explanation(champion, summary).strip() == payload["text"]
    assert states(summary)["explain"] == "succeeded"
    assert files_with_webhook_path(champion.folder / ".modelyard") == []
