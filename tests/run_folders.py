"""Folders of local runs, without running them."""

import os
import socket
from pathlib import Path
from typing import Any

from modelyard.components.artifacts import write
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import RunSummary
from modelyard.pipelines.runners.local.runner import StartRecord, process_start_time


def create_run(home: Path, name: str, *overrides: str, **changes: Any) -> Path:
    """Create the folder of a run whose parent process is this one; return it."""
    folder = home / "runs" / name
    (folder / "logs").mkdir(parents=True)
    start = StartRecord(
        runner="local",
        environment="local",
        settings=Environment(kind="local"),
        config=load(None, overrides, environ={}).model_dump(mode="json"),
        options={},
        started=f"{name[:4]}-{name[4:6]}-{name[6:8]}T00:00:00+00:00",
        host=socket.gethostname(),
        pid=os.getpid(),
        pid_start_time=process_start_time(os.getpid()),
    )
    write(folder / run_folder.START, start.model_copy(update=changes))
    return folder


def create_ended_run(home: Path, name: str, *overrides: str, **result: Any) -> Path:
    """Create the folder of an ended run; return it."""
    folder = create_run(home, name, *overrides)
    defaults = {
        "run": name,
        "model": "digits",
        "state": "succeeded",
        "steps": (),
        "seconds": 1.0,
        "store": "x",
    }
    run_folder.write_summary(folder, RunSummary(**(defaults | result)))
    return folder
