"""The records of runs in the store: concurrent runs, restarted steps, untrusted content."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.components import records
from modelyard.components.artifacts import Outcome
from modelyard.components.errors import ConfigError, StoreError
from modelyard.components.records import OutcomeRecord, RunEnd, RunStart
from modelyard.components.store.folder import Folder
from modelyard.components.store.records import write_record


def start(run: str, fingerprint: str, unchanged: str | None = None) -> RunStart:
    return RunStart(
        run_id=run,
        model="digits",
        fingerprint=fingerprint,
        data="d",
        champion=0,
        started=records.now(),
        unchanged=unchanged,
    )


@pytest.fixture
def objects(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "models")


def test_concurrent_runs_of_a_model_have_separate_records(objects: Folder) -> None:
    for run, fingerprint in (("r1", "f1"), ("r2", "f2")):
        write_record(objects, records.run_key("digits", run), start(run, fingerprint))
    for run in ("r2", "r1"):
        outcome = OutcomeRecord(outcome=Outcome(version=int(run[1]), decision="promote", reason=run))
        write_record(objects, records.outcome_key("digits", run), outcome)
    for run in ("r1", "r2"):
        record = records.read_run(objects, "digits", run)
        assert record.start is not None
        assert (record.start.fingerprint, record.final_decision()) == (f"f{run[1]}", ("promote", run))
    assert records.read_run(objects, "digits", "r3").start is None


def test_a_restarted_step_overwrites_its_record(objects: Folder) -> None:
    key = records.run_key("digits", "r1")
    write_record(objects, key, start("r1", "f1"))
    write_record(objects, key, start("r1", "f1", "same data"))
    assert records.read_run(objects, "digits", "r1").final_decision() == (
        "unchanged",
        "same data",
    )


@pytest.mark.parametrize("change", [{"version": 2}, {"unknown": 1}, {"run_id": 3}])
def test_an_invalid_record_is_refused(objects: Folder, change: dict[str, object]) -> None:
    key = records.run_key("digits", "r1")
    text = json.dumps({**start("r1", "f1").model_dump(), **change})
    objects.create(key, text.encode())
    with pytest.raises(StoreError, match=key):
        records.read_run(objects, "digits", "r1")


def test_text_of_a_record_is_truncated_and_has_no_control_characters(objects: Folder) -> None:
    text = {"run_id": "r1", "model": "digits", "state": "failed", "step": "train\x1b[2J", "kind": "X"}
    objects.create(
        records.end_key("digits", "r1"),
        json.dumps({"version": 1, **text, "text": "\x00" * 9000, "ended": "now"}).encode(),
    )
    end = records.read(objects, records.end_key("digits", "r1"), RunEnd)
    assert end is not None
    assert end.step is not None
    assert end.step.isprintable()
    assert len(end.text) <= 2000


def test_a_run_id_outside_its_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(records.RUN_ID, "../x")
    with pytest.raises(ConfigError, match=records.RUN_ID):
        records.run_id()
    monkeypatch.setenv(records.RUN_ID, "20261129-071500-3f9a")
    assert records.run_id() == "20261129-071500-3f9a"
    monkeypatch.delenv(records.RUN_ID)
    assert records.run_id() is None


def test_reading_records_imports_no_store_client() -> None:
    heavy = ("numpy", "google", "kubernetes", "httpx", "kfp")
    code = f"import sys, modelyard.components.records; assert not sys.modules.keys() & {set(heavy)}"
    subprocess.run([sys.executable, "-c", code], check=True)
