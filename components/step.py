"""The context manager of a step: ends the step if the parent process ends, and records its failure.

    with step("train"):
        from modelyard.components.train.trainer import train

        train(...)

The record is a JSON document (`records.Failure`). In a pod it is the container's termination message, which
Kubernetes stores in the pod's status and KFP in the Workflow; otherwise it is the file in the variable
MODELYARD_TERMINATION_LOG. Since a killed process writes nothing, the record first says that the step was
killed; a step that succeeds empties it.
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

from modelyard.components import errors, interface, lifeline
from modelyard.components.errors import KilledError, ModelyardError, OutOfMemoryError, describe

SCHEMA = 1
TERMINATION_LOG_VARIABLE = "MODELYARD_TERMINATION_LOG"
TERMINATION_LOG = Path("/dev/termination-log")
MAX_DOCUMENT = 3 * 2**10  # bytes; Kubernetes cuts a termination message at 4 KiB
MAX_TEXT = 2000  # characters
RUN_AGAIN = "Run it again: finished steps are cached."
MORE_MEMORY = (
    "Reduce the layer sizes in `model` or training.batch_size, or add memory: environment.steps.{step}.memory"
    " on a cluster, a larger machine otherwise."
)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@contextmanager
def step(name: str) -> Iterator[None]:
    """Follow the lifeline; if the block fails, record its exception and raise it again."""
    lifeline.follow()
    raise_file_limit()
    if os.getpid() == 1:  # in a container, where the kernel ignores SIGTERM by default
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    path = termination_log()
    # A file that already has the maximum size can be overwritten on a full disk.
    reserved_bytes = MAX_DOCUMENT if TERMINATION_LOG_VARIABLE in os.environ else 0
    _write(path, failure_document(KilledError(killed_message(name)), name).ljust(reserved_bytes))
    try:
        interface.check_interface(name)
        yield
    except BaseException as error:
        succeeded = isinstance(error, SystemExit) and not error.code
        _write(path, b"" if succeeded else failure_document(error, name))
        raise
    _write(path, b"")


def raise_file_limit() -> int:
    """Raise the soft limit for open files to the hard limit, and return it.

    Each memory-mapped shard of a dataset is an open file.
    """
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS allows less than it reports
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def log(sentence: str) -> None:
    """Print a line to the step's log; KFP would format a line of `logging` as its own."""
    print(sentence, flush=True)  # noqa: T201


def termination_log() -> Path | None:
    """Return the file for the failure record; None without the variable or a termination log."""
    if path := os.environ.get(TERMINATION_LOG_VARIABLE):
        return Path(path)
    return TERMINATION_LOG if TERMINATION_LOG.is_file() else None


def failure_document(error: BaseException, step: str | None) -> bytes:
    """Return the record of a failure as JSON of at most MAX_DOCUMENT bytes."""
    return _json(failure_fields(error, step))


def failure_fields(error: BaseException, step: str | None) -> dict[str, str | int | None]:
    """Return the fields of `records.Failure` for an error."""
    if isinstance(error, MemoryError):
        error = OutOfMemoryError(out_of_memory_message(step, f": {describe(error)}" if str(error) else "."))
    elif not isinstance(error, ModelyardError):
        error = errors.find_machine_error(error) or error
    if isinstance(error, ModelyardError):
        kind, text = type(error).public_class(), str(error)
        name, code = kind.__name__, kind.exit_code
    else:
        frames = traceback.extract_tb(error.__traceback__)
        origin = (
            f" Raised in {frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name}." if frames else ""
        )
        text = f"{describe(error)}{origin}{' The log of the step has the traceback.' if step else ''}"
        name, code = type(error).__name__, 1
    text = clean_text(text)
    fields = {"version": SCHEMA, "step": step, "kind": clean_text(name), "exit_code": code}
    while len(_json(fields | {"message": text})) > MAX_DOCUMENT:
        text = f"{text[: len(text) * 3 // 4]} …"
    return fields | {"message": text}


def _json(record: Mapping[str, str | int | None]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode()


def clean_text(text: str) -> str:
    """Return a text without control characters, shortened to MAX_TEXT characters."""
    text = _CONTROL.sub(" ", text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 2] + " …"


def killed_message(step: str) -> str:
    """Return the message for a step whose process was killed."""
    return (
        f"The step {step} was killed, or crashed outside of Python, perhaps because memory ran out. "
        f"{MORE_MEMORY.format(step=step)} If a user killed it, run it again: finished steps are cached."
    )


def out_of_memory_message(step: str | None, evidence: str) -> str:
    """Return the message for a step, or a command, that ran out of memory; `evidence` ends the sentence."""
    if not step:
        return f"The command ran out of memory{evidence} Use a machine with more memory."
    return f"The step {step} ran out of memory{evidence} {MORE_MEMORY.format(step=step)}"


def _write(path: Path | None, content: bytes) -> None:
    with suppress(OSError):  # must not hide the error of the step
        if path:
            path.touch()
            with path.open("r+b") as file:
                file.write(content)
                file.truncate()
