"""Records that steps write about a run; no result is read from logs.

    <store>/<model>/runs/<run id>.json                         RunStart, by fingerprint
    <store>/<model>/decisions/<run's fingerprint>-<champion>.json  DecisionRecord, by evaluate
    <store>/<model>/runs/<run id>.outcome.json                 OutcomeRecord, by deploy
    <store>/<model>/runs/<run id>.end.json                     RunEnd, by the exit task
    the container's termination message                        Failure, by a step that fails

A run whose evaluate came from the cache finds the decision of the run that filled it. Text in a record is
untrusted: it is cut, and has no control characters. Records of another version of the schema are refused.
"""

import os
import re
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, ValidationError

from modelyard.components.artifacts import Decision, Metrics, Outcome, Record
from modelyard.components.errors import (
    ConfigError,
    ConflictError,
    ModelyardError,
    NotFoundError,
    StoreError,
    error_classes,
)
from modelyard.components.step import SCHEMA, clean_text, failure_fields
from modelyard.components.store.objects import Objects

RUN_ID = "MODELYARD_RUN_ID"
RUN_FOLDER = "MODELYARD_RUN"
"""Names the folder of a run whose steps are processes of this machine."""
MAXIMUM_ATTEMPTS = 10
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

    `kind` is the class of the error; `message` says what was found, and what to do. `exit_code` is that of
    the error family, 1 for an exception outside of it.
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
        """Return the record in a termination message; None when there is none."""
        try:
            return cls.model_validate_json(document)
        except ValidationError:
            return None

    def to_error(self) -> ModelyardError:
        """Return the error that this is the record of."""
        return error_classes().get(self.kind, ModelyardError)(self.message)

    def to_json(self) -> bytes:
        """Return it as JSON, as a step writes it."""
        return self.model_dump_json().encode()


class RunStart(Versioned):
    """A run that has begun.

    `fingerprint` identifies what it makes, `data` its data; `champion` is the version that it is compared
    with, 0 for none. `unchanged` says why it ends after fingerprint, if it does. `started` is an ISO 8601
    time in UTC.
    """

    run_id: Text
    model: Text
    fingerprint: Text
    data: Text
    champion: int
    started: Text
    unchanged: Text | None = None


class DecisionRecord(Versioned):
    """What the gate decided about the model of a run, and the metrics without details; `report` is a URI."""

    model: Text
    fingerprint: Text
    champion: int
    decision: Decision
    metrics: Metrics
    report: Text


class OutcomeRecord(Versioned):
    """What deploy ended with."""

    outcome: Outcome


class RunEnd(Versioned):
    """How a run ended: the paragraph of the exit task, and of a failure its step, class and exit code."""

    run_id: Text
    model: Text
    state: State
    step: Text | None
    kind: Text | None
    text: Text
    ended: Text


R = TypeVar("R", bound=Versioned)


def run_id() -> str | None:
    """Return the id of the run that this process belongs to; None when it belongs to none.

    Raises:
        ConfigError: the variable holds something else.
    """
    found = os.environ.get(RUN_ID, "")
    if found and not _ID.fullmatch(found):
        raise ConfigError(f"{RUN_ID} is {found[:80]!r}, which is not the id of a run. Unset it.")
    return found or None


def run_key(model: str, run: str) -> str:
    """Return where the start of a run is recorded."""
    return f"{model}/runs/{run}.json"


def outcome_key(model: str, run: str) -> str:
    """Return where the outcome of deploy is recorded."""
    return f"{model}/runs/{run}.outcome.json"


def end_key(model: str, run: str) -> str:
    """Return where the end of a run is recorded."""
    return f"{model}/runs/{run}.end.json"


def decision_key(model: str, fingerprint: str, champion: int) -> str:
    """Return where the decision about what a run makes is recorded."""
    return f"{model}/decisions/{fingerprint}-{champion}.json"


def write(objects: Objects, key: str, record: Versioned) -> None:
    """Write a record, over an earlier one if there is one: a step may start again.

    Raises:
        StoreError: it cannot be written.
    """
    data = record.model_dump_json(indent=2).encode() + b"\n"
    for _ in range(MAXIMUM_ATTEMPTS):
        try:
            objects.create(key, data)
        except ConflictError:
            try:
                objects.replace(key, data, objects.read(key)[1])
            except (ConflictError, NotFoundError):
                continue
        return
    raise ConflictError(
        f"{objects.url}/{key} was changed by others {MAXIMUM_ATTEMPTS} times in a row. Run it again."
    )


def read(objects: Objects, key: str, kind: type[R]) -> R | None:
    """Return the record at `key`; None when there is none.

    Raises:
        StoreError: the store cannot be read, or what is there is not such a record.
    """
    try:
        return kind.model_validate_json(objects.read(key)[0])
    except NotFoundError:
        return None
    except ValidationError as error:
        raise StoreError(
            f"{objects.url}/{key} is not a {kind.__name__} of version {SCHEMA} ({error.errors()[0]['msg']}): "
            "it was damaged, or written by another version of modelyard. Delete it."
        ) from error


class RunRecords(Record):
    """What the store has of a run; `decision` may be of an earlier run that made the same."""

    start: RunStart | None = None
    decision: DecisionRecord | None = None
    outcome: OutcomeRecord | None = None
    end: RunEnd | None = None

    def final_decision(self) -> tuple[str, str] | None:
        """Return the decision and its reason: deploy's if it ran, else the gate's; None when unknown."""
        if self.start and self.start.unchanged is not None:
            return "unchanged", self.start.unchanged
        if found := (self.outcome and self.outcome.outcome) or (self.decision and self.decision.decision):
            return found.decision, clean_text(found.reason)
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
