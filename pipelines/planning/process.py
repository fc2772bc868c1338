"""Lets a process of its own trace or probe a model: TensorFlow stays out of this one.

It follows this process's lifeline: it does not train on for a plan that is gone, however that ended.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TypeVar

from modelyard.components import artifacts, lifeline
from modelyard.components.artifacts import Record
from modelyard.components.errors import ModelyardError, TooLargeError, TrainError, from_log

R = TypeVar("R", bound=Record)
NO_MEMORY = "std::bad_alloc"  # how C++ ends when it gets none


def ask(module: str, question: Record, answer: type[R]) -> tuple[R, float]:
    """Return what a module of components.train found, and how many seconds the whole process took.

    Args:
        module: its name; it takes the files of the question and of the answer.
        question: what it is asked.
        answer: what it writes.

    Raises:
        TooLargeError: it needed more memory than there is.
        ModelyardError: what it ended with.
    """
    with tempfile.TemporaryDirectory() as name, lifeline.hold(Path(name) / "lifeline") as variables:
        folder = Path(name)
        asked, written = folder / "question.json", folder / "answer.json"
        artifacts.write(asked, question)
        began = time.monotonic()
        command = [sys.executable, "-m", f"modelyard.components.train.{module}", str(asked), str(written)]
        paths = os.pathsep.join(filter(None, sys.path))
        environ = {**os.environ, **variables, "PYTHONPATH": paths, "TMPDIR": name}
        done = subprocess.run(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        seconds = time.monotonic() - began
        if done.returncode:
            raise _failure(module, done.returncode, done.stdout)
        return artifacts.read(written, answer), seconds


def _failure(module: str, code: int, output: str) -> ModelyardError:
    """Return why a process ended as it did."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if found := from_log(lines):
        return found
    if code == -signal.SIGKILL or NO_MEMORY in output:
        return TooLargeError(
            f"The {module} of the model was killed, as Linux does when there is too little memory: lower the "
            "sizes in `model` or training.batch_size, or use a larger machine."
        )
    said = lines[-1].rstrip(".") if lines else "it left no message"
    return TrainError(
        f"The {module} of the model ended with {code}: {said}. `modelyard run` trains it with a log that "
        "says more."
    )
