"""Events of a run, as one JSON object per line.

    emit(Epoch(step="train", epoch=3, epochs=20, metrics={"loss": 0.21}, seconds=1.4))

Events are appended to the file in the variable MODELYARD_EVENTS. If it is not set, as on a cluster, they are
printed, and read from the log of the pod. Events are untrusted: any program in a step can write such a line.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from modelyard.components.artifacts import Record

VARIABLE = "MODELYARD_EVENTS"
PREFIX = '{"event":'
MAX_LENGTH = 4096  # characters of a line


class StepChange(Record):
    """A step changed its state at `at` (Unix time in seconds); `seconds` is its duration if it ended."""

    event: Literal["step"] = "step"
    step: str
    state: str
    seconds: float = 0.0
    cached: bool = False
    at: float


class Epoch(Record):
    """An epoch ended. `metrics` are those of Keras, the loss first; `seconds` includes validation."""

    event: Literal["epoch"] = "epoch"
    step: str
    epoch: int
    epochs: int
    metrics: dict[str, float]
    seconds: float


class Resumed(Record):
    """Training resumed from the checkpoint of an epoch."""

    event: Literal["resumed"] = "resumed"
    step: str
    epoch: int
    epochs: int


class CheckpointSaved(Record):
    """The checkpoint of an epoch was saved."""

    event: Literal["checkpoint"] = "checkpoint"
    step: str
    epoch: int


class Waiting(Record):
    """A step waits for a node or an image; `reason` has the cause and the remedy."""

    event: Literal["waiting"] = "waiting"
    step: str
    reason: str


Event = StepChange | Epoch | Resumed | CheckpointSaved | Waiting
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def emit(event: Event) -> None:
    """Append an event to the file in MODELYARD_EVENTS, or print it."""
    if path := os.environ.get(VARIABLE):
        append(Path(path), event)
    else:
        print(event.model_dump_json(), flush=True)  # noqa: T201 - the step's log


def append(path: Path, event: Event) -> None:
    """Append an event to a file, to which other processes may append at the same time."""
    with path.open("a", encoding="utf-8") as file:
        file.write(event.model_dump_json() + "\n")


def parse(line: str) -> Event | None:
    """Return the event in a line, or None."""
    if not line.startswith(PREFIX) or len(line) > MAX_LENGTH:
        return None
    try:
        return _EVENT.validate_json(line)
    except ValidationError:
        return None


def parse_all(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events in lines, some of which may be other text."""
    return filter(None, map(parse, lines))


class EventFile:
    """A file to which other processes append events."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self._events: list[Event] = []

    def read(self) -> list[Event]:
        """Return all events; each call reads only the new lines. Empty if the file does not exist."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                complete, newline, _ = file.read().rpartition(b"\n")  # the last line may not be complete
        except FileNotFoundError:
            return self._events
        self._offset += len(complete + newline)
        self._events += parse_all(complete.decode(errors="replace").splitlines())
        return self._events
