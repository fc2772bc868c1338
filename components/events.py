"""Events of a run, as one JSON object per line.

    emit(Epoch(step="train", epoch=3, epochs=20, metrics={"loss": 0.21}, seconds=1.4))

MODELYARD_EVENTS names the file that takes the lines: events.jsonl in the folder of a run that this machine
leads. Without it, in a pod, they are printed: the launcher of a pod takes them out of its log, and whoever
follows a run on Kubeflow Pipelines finds them in the log. They are untrusted: any program in a step may write
such a line.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from modelyard.components.artifacts import Record

VARIABLE = "MODELYARD_EVENTS"
BEGIN = '{"event":'
MAXIMUM_LENGTH = 4096  # characters of a line


class StepChange(Record):
    """A step has another state since `at` (epoch seconds); `seconds` is its wall time when it has ended."""

    event: Literal["step"] = "step"
    step: str
    state: str
    seconds: float = 0.0
    cached: bool = False
    at: float


class Epoch(Record):
    """An epoch of `epochs` has ended; `metrics` are Keras's, the loss first; `seconds` include validation."""

    event: Literal["epoch"] = "epoch"
    step: str
    epoch: int
    epochs: int
    metrics: dict[str, float]
    seconds: float


class Resumed(Record):
    """Training goes on from a checkpoint that was written after an epoch."""

    event: Literal["resumed"] = "resumed"
    step: str
    epoch: int
    epochs: int


class CheckpointSaved(Record):
    """The state of a training after an epoch was saved, from which it goes on if it is started again."""

    event: Literal["checkpoint"] = "checkpoint"
    step: str
    epoch: int


class Waiting(Record):
    """A step waits for a node or an image; `reason` says for what, and what may help."""

    event: Literal["waiting"] = "waiting"
    step: str
    reason: str


Event = StepChange | Epoch | Resumed | CheckpointSaved | Waiting
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def emit(event: Event) -> None:
    """Write an event to the file that the environment names, or print it."""
    if path := os.environ.get(VARIABLE):
        append(Path(path), event)
    else:
        print(event.model_dump_json(), flush=True)  # noqa: T201 - the step's log


def append(path: Path, event: Event) -> None:
    """Append an event to a file; several processes may do so at once."""
    with path.open("a", encoding="utf-8") as file:
        file.write(event.model_dump_json() + "\n")


def parse(line: str) -> Event | None:
    """Return the event that a line holds; None when it holds none."""
    if not line.startswith(BEGIN) or len(line) > MAXIMUM_LENGTH:
        return None
    try:
        return _EVENT.validate_json(line)
    except ValidationError:
        return None


def parse_all(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events among lines."""
    return filter(None, map(parse, lines))


class EventFile:
    """The events in a file that other processes append to; `read` returns all, and reads what is new."""

    def __init__(self, path: Path) -> None:
        self._path, self._read, self._found = path, 0, list[Event]()

    def read(self) -> list[Event]:
        """Return the events; none when there is no file."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                whole, end, _ = file.read().rpartition(b"\n")  # the last line may not be complete
        except FileNotFoundError:
            return self._found
        self._read += len(whole + end)
        self._found += parse_all(whole.decode(errors="replace").splitlines())
        return self._found
