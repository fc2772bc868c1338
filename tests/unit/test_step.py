import json
import resource

import pytest

from modelyard.components import step as module
from modelyard.components.errors import DataError, UnreachableError
from modelyard.components.records import Failure
from modelyard.components.step import MAX_DOCUMENT, MAX_TEXT, TERMINATION_LOG_VARIABLE, failure_document, step


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.setenv(TERMINATION_LOG_VARIABLE, str(tmp_path / "failure.json"))
    return tmp_path / "failure.json"


def test_a_succeeded_step_leaves_no_record(record):
    with step("train"):
        pass
    assert record.read_bytes() == b""
    with pytest.raises(SystemExit), step("train"):
        raise SystemExit(0)
    assert record.read_bytes() == b""


def test_a_step_raises_the_limit_of_open_files(record):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 200), hard))
        with step("train"):
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert record.exists()


def test_a_running_step_has_the_record_of_a_killed_step(record):
    with step("train"):
        failure = Failure.parse(record.read_bytes())
    assert (failure.kind, failure.step, failure.exit_code) == ("KilledError", "train", 14)
    assert "environment.steps.train.memory" in failure.message


def test_a_failure_is_recorded_and_raised(record):
    with pytest.raises(UnreachableError), step("train"):
        raise UnreachableError("The store does not respond.")
    assert json.loads(record.read_text()) == {
        "version": 1,
        "step": "train",
        "kind": "UnreachableError",
        "message": "The store does not respond.",
        "exit_code": 7,
    }
    error = Failure.model_validate_json(record.read_bytes()).to_error()
    assert (type(error), str(error)) == (UnreachableError, "The store does not respond.")


@pytest.mark.parametrize("error", [ValueError("no digits"), SystemExit("no digits"), KeyError("x")])
def test_an_unexpected_exception_is_recorded_with_its_line(record, error):
    with pytest.raises(type(error)), step("train"):
        raise error
    failure = Failure.model_validate_json(record.read_bytes())
    assert (failure.kind, failure.exit_code) == (type(error).__name__, 1)
    assert "test_step.py:" in failure.message


def test_a_memory_error_is_recorded_as_out_of_memory(record):
    with pytest.raises(MemoryError), step("train"):
        raise MemoryError("Unable to allocate 6 GiB")
    failure = Failure.parse(record.read_bytes())
    assert (failure.kind, failure.exit_code) == ("OutOfMemoryError", 14)
    assert "6 GiB" in failure.message
    assert "None" not in Failure.from_error(MemoryError()).message


@pytest.mark.parametrize("text", ["x" * 10_000, "é" * 10_000, '"' * 10_000, "\x1b[1m\0" * 3000, "😀" * 5000])
def test_a_record_is_truncated_and_has_no_control_characters(text):
    written = failure_document(DataError(text), "ingest")
    assert len(written) <= MAX_DOCUMENT
    failure = Failure.model_validate_json(written)
    assert len(failure.message) <= MAX_TEXT
    assert failure.message[:10].isprintable()


def test_a_failed_write_of_the_record_does_not_hide_the_error(monkeypatch, tmp_path):
    monkeypatch.setenv(TERMINATION_LOG_VARIABLE, str(tmp_path / "none" / "failure.json"))
    with pytest.raises(DataError), step("ingest"):
        raise DataError("empty")


def test_the_record_in_a_pod_is_the_termination_message(monkeypatch, tmp_path):
    monkeypatch.delenv(TERMINATION_LOG_VARIABLE, raising=False)
    monkeypatch.setattr(module, "TERMINATION_LOG", tmp_path / "termination-log")
    with pytest.raises(DataError), step("ingest"):
        raise DataError("empty")
    assert not (tmp_path / "termination-log").exists()  # outside a pod, the file is not created
    (tmp_path / "termination-log").touch()
    with pytest.raises(DataError), step("ingest"):
        raise DataError("empty")
    assert json.loads((tmp_path / "termination-log").read_text())["message"] == "empty"
