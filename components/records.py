"""Records that the steps write about a run. Results are read from these records, never from logs.

    <store>/<model>/runs/<run id>.json                             RunStart, by fingerprint
    <store>/<model>/decisions/<run fingerprint>-<champion>.json    DecisionRecord, by evaluate
    <store>/<model>/runs/<run id>.outcome.json                     OutcomeRecord, by deploy
    <store>/<model>/runs/<run id>.end.json                         RunEnd, by explain
    the container's termination message                            Failure, by a failing step

If the result of evaluate came from the cache, the decision was recorded by an earlier run. Text in a record
is untrusted: it is shortened, and control characters are removed. A record with another schema version counts
as damaged.
"""

import os
import re
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, ValidationError

from modelyard.components.artifacts import Decision, Metrics, Outcome, Record
from modelyard.components.errors import ConfigError, ModelyardError, NotFoundError, error_classes
from modelyard.components.step import clean_text, failure_fields
from modelyard.components.store.objects import Objects
from modelyard.components.store.records import read_record

RUN_ID = "MODELYARD_RUN_ID"
RUN_FOLDER = "MODELYARD_RUN"
"""The folder of a run whose steps are processes of this machine."""
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,127}")


def _clean(text: object) -> object:
    return clean_text(text) if isinstance(text, str) else text


Text = Annotated[str, BeforeValidator(_clean)]
State = Literal["succeeded", "failed", "cancelled"]


class Versioned(Record):
    """A record with the version of its schema."""

    version: Literal[1] = 1


class Failure(Versioned):
    """Why a step failed.

    `kind` is the class of the error, `message` has the cause and the remedy. `exit_code` is 1 if it is not a
    ModelyardError.
    """

    step: Text | None
    kind: Text
    message: Text
    exit_code: int

    @classmethod
    def from_error(cls, error: BaseException, step: str | None = None) -> "Failure":
        """Return the record of an error."""
        return cls.model_validate(failure_fields(error, step))

    @classmethod
    def parse(cls, document: str | bytes) -> "Failure | None":
        """Return the record in a termination message, or None."""
        try:
            return cls.model_validate_json(document)
        except ValidationError:
            return None

    def to_error(self) -> ModelyardError:
        """Return the error."""
        return error_classes().get(self.kind, ModelyardError)(self.message)

    def to_json(self) -> bytes:
        """Return the record as JSON."""
        return self.model_dump_json().encode()


class RunStart(Versioned):
    """The start of a run.

    `fingerprint` is that of the run, `data` that of the data. `champion` is the version to compare with, 0
    for none. `unchanged` is the reason why the run ends after fingerprint, if it does. `started` is an ISO
    8601 time in UTC.
    """

    run_id: Text
    model: Text
    fingerprint: Text
    data: Text
    champion: int
    started: Text
    unchanged: Text | None = None


class DecisionRecord(Versioned):
    """The decision of the gate, the metrics of the candidate without details, and the URI of the report."""

    model: Text
    fingerprint: Text
    champion: int
    decision: Decision
    metrics: Metrics
    report: Text


class OutcomeRecord(Versioned):
    """The outcome of deploy."""

    outcome: Outcome


class RunEnd(Versioned):
    """How a run ended.

    `text` is the paragraph that explain writes. `step` and `kind` are the step that failed and the class of
    its error; None if no step failed.
    """

    run_id: Text
    model: Text
    state: State
    step: Text | None
    kind: Text | None
    text: Text
    ended: Text


R = TypeVar("R", bound=Versioned)


def run_id() -> str | None:
    """Return the ID of the run of this process, or None.

    Raises:
        ConfigError: the variable is not an ID.
    """
    value = os.environ.get(RUN_ID, "")
    if value and not _ID.fullmatch(value):
        raise ConfigError(f"{RUN_ID} is {value[:80]!r}, which is not the ID of a run. Unset it.")
    return value or None


def run_key(model: str, run: str) -> str:
    """Return the key of RunStart."""
    return f"{model}/runs/{run}.json"


def outcome_key(model: str, run: str) -> str:
    """Return the key of OutcomeRecord."""
    return f"{model}/runs/{run}.outcome.json"


def end_key(model: str, run: str) -> str:
    """Return the key of RunEnd."""
    return f"{model}/runs/{run}.end.json"


def decision_key(model: str, fingerprint: str, champion: int) -> str:
    """Return the key of DecisionRecord."""
    return f"{model}/decisions/{fingerprint}-{champion}.json"


def read(objects: Objects, key: str, record_class: type[R]) -> R | None:
    """Return the record at `key`, or None.

    Raises:
        StoreError: the store cannot be read, or the record is damaged.
    """
    try:
        return read_record(objects, key, record_class)
    except NotFoundError:
        return None


class RunRecords(Record):
    """The records of a run; `decision` may be that of an earlier run with the same fingerprint."""

    start: RunStart | None = None
    decision: DecisionRecord | None = None
    outcome: OutcomeRecord | None = None
    end: RunEnd | None = None

    def final_decision(self) -> tuple[str, str] | None:
        """Return the decision and its reason: of deploy if it ran, else of the gate; None if unknown."""
        if self.start and self.start.unchanged is not None:
            return "unchanged", self.start.unchanged
        if self.outcome:
            return self.outcome.outcome.decision, clean_text(self.outcome.outcome.reason)
        if self.decision:
            return self.decision.decision.decision, clean_text(self.decision.decision.reason)
        return None


def read_run(objects: Objects, model: str, run: str) -> RunRecords:
    """Return the records of a run.

    Raises:
        StoreError: the store cannot be read.
    """
    start = read(objects, run_key(model, run), RunStart)
    if start is None:
        return RunRecords(end=read(objects, end_key(model, run), RunEnd))
    return RunRecords(
        start=start,
        decision=read(objects, decision_key(model, start.fingerprint, start.champion), DecisionRecord),
        outcome=read(objects, outcome_key(model, run), OutcomeRecord),
        end=read(objects, end_key(model, run), RunEnd),
    )


def now() -> str:
    """Return the time in UTC, as ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
