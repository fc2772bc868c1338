import json
import resource

import pytest

from modelyard.components import step as module
from modelyard.components.errors import DataError, UnreachableError
from modelyard.components.records import Failure
from modelyard.components.step import MAX_DOCUMENT, MAX_TEXT, VARIABLE, failure_document, step


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "failure.json"))
    return tmp_path / "failure.json"


def test_a_step_that_ends_well_leaves_no_record(log):
    with step("train"):
        pass
    assert log.read_bytes() == b""
    with pytest.raises(SystemExit), step("train"):
        raise SystemExit(0)
    assert log.read_bytes() == b""


def test_a_step_may_open_as_many_files_as_the_machine_allows(log):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 200), hard))
        with step("train"):
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert log.exists()


def test_while_a_step_works_its_record_says_that_it_was_killed(log):
    with step("train"):
        found = Failure.parse(log.read_bytes())
    assert (found.kind, found.step, found.exit_code) == ("KilledError", "train", 14)
    assert "environment.steps.train.memory" in found.message


def test_a_failure_is_recorded_and_goes_on(log):
    with pytest.raises(UnreachableError), step("train"):
        raise UnreachableError("The store does not answer.")
    assert json.loads(log.read_text()) == {
        "version": 1,
        "step": "train",
        "kind": "UnreachableError",
        "message": "The store does not answer.",
        "exit_code": 7,
    }
    error = Failure.model_validate_json(log.read_bytes()).to_error()
    assert (type(error), str(error)) == (UnreachableError, "The store does not answer.")


@pytest.mark.parametrize("error", [ValueError("no digits"), SystemExit("no digits"), KeyError("x")])
def test_an_exception_outside_the_family_is_recorded_with_its_place(log, error):
    with pytest.raises(type(error)), step("train"):
        raise error
    found = Failure.model_validate_json(log.read_bytes())
    assert (found.kind, found.exit_code) == (type(error).__name__, 1)
    assert "test_step.py:" in found.message


def test_a_memory_error_is_one_of_memory(log):
    with pytest.raises(MemoryError), step("train"):
        raise MemoryError("Unable to allocate 6 GiB")
    found = Failure.parse(log.read_bytes())
    assert (found.kind, found.exit_code) == ("OutOfMemoryError", 14)
    assert "6 GiB" in found.message


@pytest.mark.parametrize("text", ["x" * 10_000, "é" * 10_000, '"' * 10_000, "\x1b[1m\0" * 3000, "😀" * 5000])
def test_a_record_is_bounded_and_has_no_control_characters(text):
    written = failure_document(DataError(text), "ingest")
    assert len(written) <= MAX_DOCUMENT
    found = Failure.model_validate_json(written)
    assert len(found.message) <= MAX_TEXT
    assert found.message[:10].isprintable()


def test_a_record_that_cannot_be_written_hides_no_failure(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none" / "failure.json"))
    with pytest.raises(DataError), step("ingest"):
        raise DataError("empty")


def test_in_a_pod_the_record_is_the_termination_message(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(module, "TERMINATION_LOG", tmp_path / "termination-log")
    with pytest.raises(DataError), step("ingest"):
        raise DataError("empty")
    assert not (tmp_path / "termination-log").exists()  # outside a pod there is none
    (tmp_path / "termination-log").touch()
    with pytest.raises(DataError), step("ingest"):
        raise DataError("empty")
    assert json.loads((tmp_path / "termination-log").read_text())["message"] == "empty"
