"""What surrounds the work of a step: it ends with the run's process, and a failure leaves a record.

    with step("train"):
        from modelyard.components.train.trainer import train

        train(...)

The record is one small JSON document (`records.Failure` reads it). In a pod it is the container's termination
message, which Kubernetes keeps in the pod's status, and KFP in the Workflow; on a laptop it is a file of the
run. At first it says that the step was killed, since a killed process writes nothing; a step that ends well
empties it. The `main` of a module that runs as a child process uses `step`, too; its parent names a file.
"""

import json
import os
import re
import resource
import signal
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from modelyard.components import interface, lifeline
from modelyard.components.errors import KilledError, ModelyardError, OutOfMemoryError, describe, machine_error

SCHEMA = 1
VARIABLE = "MODELYARD_TERMINATION_LOG"
TERMINATION_LOG = Path("/dev/termination-log")
MAX_DOCUMENT = 3 * 2**10  # bytes; Kubernetes cuts a termination message at 4 KiB
MAX_TEXT = 2000  # characters
RUN_AGAIN = "Run it again: what is done is cached."
MORE_MEMORY = (
    "Lower the sizes in `model` or training.batch_size, or give it more memory: "
    "environment.steps.{step}.memory on a cluster, a larger machine otherwise."
)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@contextmanager
def step(name: str) -> Iterator[None]:
    """Follow the lifeline, and record how the block fails; its exception goes on."""
    lifeline.follow()
    raise_file_limit()
    if os.getpid() == 1:  # in a pod, where SIGTERM would not end it before the grace period is over
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    path = termination_log()
    room = (
        MAX_DOCUMENT if VARIABLE in os.environ else 0
    )  # for the next record, should the disk be full by then
    _write(path, failure_document(KilledError(killed_message(name)), name).ljust(room))
    try:
        interface.check(name)
        yield
    except BaseException as error:
        ended_well = isinstance(error, SystemExit) and not error.code
        _write(path, b"" if ended_well else failure_document(error, name))
        raise
    _write(path, b"")


def raise_file_limit() -> int:
    """Let this process and its children open as many files as they may; return how many.

    Each shard of a dataset that is mapped into memory holds one.
    """
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS allows less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def log(sentence: str) -> None:
    """Write a line to the step's log; KFP prefixes what `logging` writes, and such lines are not shown."""
    print(sentence, flush=True)  # noqa: T201


def termination_log() -> Path | None:
    """Return the file for the record of a failure; None outside a pod and where no variable names one."""
    if path := os.environ.get(VARIABLE):
        return Path(path)
    return TERMINATION_LOG if TERMINATION_LOG.is_file() else None


def failure_document(error: BaseException, step: str | None) -> bytes:
    """Return the record of a failure as JSON of at most MAX_DOCUMENT bytes."""
    return _json(failure_fields(error, step))


def failure_fields(error: BaseException, step: str | None) -> dict[str, str | int | None]:
    """Return the record of a failure, as `records.Failure` has it."""
    if isinstance(error, MemoryError):
        error = OutOfMemoryError(out_of_memory_message(step, f": {describe(error)}" if str(error) else "."))
    elif not isinstance(error, ModelyardError):
        error = machine_error(error) or error
    if isinstance(error, ModelyardError):
        kind, text = type(error).public_class(), str(error)
        name, code = kind.__name__, kind.exit_code
    else:
        frames = traceback.extract_tb(error.__traceback__)
        at = (
            f" It comes from {frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name}."
            if frames
            else ""
        )
        text = f"{describe(error)}{at}{' The log of the step has the traceback.' if step else ''}"
        name, code = type(error).__name__, 1
    text = clean_text(text)
    fields = {"version": SCHEMA, "step": step, "kind": clean_text(name), "exit_code": code}
    while len(_json(fields | {"message": text})) > MAX_DOCUMENT:
        text = f"{text[: len(text) * 3 // 4]} …"
    return fields | {"message": text}


def _json(record: Mapping[str, str | int | None]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode()


def clean_text(text: str) -> str:
    """Return a text without control characters, at most MAX_TEXT characters long."""
    text = _CONTROL.sub(" ", text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 2] + " …"


def killed_message(step: str | None, how: str = "was killed, or crashed outside of Python") -> str:
    """Return the message for a step whose process was ended from outside."""
    return (
        f"The step {step} {how}. If no user ended it, it may have needed more memory than there is. "
        f"{MORE_MEMORY.format(step=step)} {RUN_AGAIN}"
    )


def out_of_memory_message(step: str | None, seen: str) -> str:
    """Return the message for a step that needs more memory than there is; `seen` ends the sentence."""
    return f"The step {step} needs more memory than there is{seen} {MORE_MEMORY.format(step=step)}"


def _write(path: Path | None, content: bytes) -> None:
    with suppress(OSError):  # the work matters more, and its own failure
        if path:
            path.touch()
            with path.open("r+b") as file:
                file.write(content)
                file.truncate()
