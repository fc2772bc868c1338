"""How a run ends: as unchanged when nothing is new, and with a paragraph in any case, also for a webhook."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ADDRESS = "/hooks/T0P-5ECRET"
WITHOUT_DATA = ("data.kind=npz", "data.source=none.npz")


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Listen at the address in MODELYARD_WEBHOOK; give what is posted there, with its path."""
    found: list[tuple[str, dict[str, Any]]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.append((self.path, json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("MODELYARD_WEBHOOK", f"http://127.0.0.1:{server.server_port}{ADDRESS}")
    yield found
    server.shutdown()


def states(summary: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in summary["steps"]}


def explanation(workspace: Any, summary: dict[str, Any]) -> str:
    run = workspace.folder / ".modelyard" / "runs" / summary["run"]
    (found,) = run.glob("artifacts/*/explain/explanation")
    return found.read_text()


def holding_the_address(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and ADDRESS.encode() in path.read_bytes()]


def test_skip_unchanged_ends_the_run_after_fingerprint(champion, posted):
    before = champion.state()
    summary = champion.json("run", "--skip-unchanged")
    assert (summary["state"], summary["decision"]) == ("succeeded", "unchanged")
    assert summary["reason"].startswith("version 1, the champion since ")
    assert (summary["version"], summary["champion"]) == (None, 1)
    ran = [name for name, state in states(summary).items() if state == "succeeded"]
    assert ran == ["fingerprint", "explain"]
    assert set(states(summary).values()) == {"succeeded", "skipped"}
    assert champion.state() == before
    ((_, told),) = posted
    assert told["state"] == "succeeded"
    assert f"unchanged: {summary['reason']}" in told["text"]


@pytest.mark.soak  # a whole training; tests/unit/fingerprint has which run it is
def test_force_after_trains_again(champion):
    entry = champion.folder / ".modelyard/models/digits/history/000001.json"
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"at": "2020-01-01T00:00:00+00:00"}))
    old = champion.models.champion("digits").run
    summary = champion.json("run", "--skip-unchanged", "--force-after", "30d")
    assert states(summary)["train"] == "succeeded"
    assert (summary["decision"], summary["fingerprint"] != old) == ("promote", True)
    again = champion.json("run", "--skip-unchanged", "--force-after", "30d")
    assert again["decision"] == "unchanged"


def test_the_webhook_gets_the_failure_and_its_url_is_not_stored(champion, posted):
    summary = champion.json("run", settings=WITHOUT_DATA, code=3)
    assert (summary["state"], summary["failure"]["kind"]) == ("failed", "DataError")
    assert Path(summary["failure"]["log"]).is_file()
    ((path, told),) = posted
    assert path == ADDRESS
    assert (told["run"], told["model"], told["state"]) == (summary["run"], "digits", "failed")
    assert told["step"] == "fingerprint"
    assert summary["failure"]["message"] in told["text"]
    assert explanation(champion, summary).strip() == told["text"]
    assert states(summary)["explain"] == "succeeded"
    assert holding_the_address(champion.folder / ".modelyard") == []
