"""Lets a process of its own trace or probe a model: TensorFlow stays out of this one."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TypeVar

from components import artifacts
from components.artifacts import Record
from components.errors import TrainError, from_log

R = TypeVar("R", bound=Record)


def ask(module: str, question: Record, answer: type[R]) -> tuple[R, float]:
    """Return what a module of components.train found, and how many seconds the whole process took.

    Args:
        module: its name; it takes the files of the question and of the answer.
        question: what it is asked.
        answer: what it writes.

    Raises:
        ModelyardError: what it ended with.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, written = Path(folder) / "question.json", Path(folder) / "answer.json"
        artifacts.write(asked, question)
        began = time.monotonic()
        command = [sys.executable, "-m", f"components.train.{module}", str(asked), str(written)]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        seconds = time.monotonic() - began
        if done.returncode:
            lines = done.stdout.splitlines() or ["it left no message"]
            raise from_log(lines) or TrainError(
                f"The {module} of the model ended with {done.returncode}: {lines[-1].strip()} If it was "
                "killed, this machine has too little memory for it: lower the sizes in `model` or "
                "training.batch_size."
            )
        return artifacts.read(written, answer), seconds
