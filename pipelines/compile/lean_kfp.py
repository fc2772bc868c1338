"""Imports the SDK of KFP without its API client and Docker, which take half of the import time."""

import os
import shlex
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

VARIABLE = "_KFP_RUNTIME"  # set in the process of a step, where kfp does not import its client


def load() -> None:
    """Import `kfp` if it is not imported yet; import submodules such as kfp.dsl by name afterwards."""
    previous = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "true"
    try:
        import kfp  # noqa: F401
    finally:
        if previous is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = previous


def load_local() -> Any:
    """Import and return `kfp.local`, with an empty module `docker` for its unused DockerRunner."""
    stub = ModuleType("docker")
    stub.DockerClient = object  # type: ignore[attr-defined]
    docker = sys.modules.setdefault("docker", stub)
    try:
        from kfp import local
        from kfp.local import docker_task_handler  # noqa: F401
    finally:
        if docker is stub:
            del sys.modules["docker"]
    return local


def exec_python(command: Sequence[str], python: str = sys.executable) -> list[str]:
    """Return the command of a step with `python` replacing its shell, instead of running as a child.

    A child would outlive a killed shell and not receive SIGTERM in a pod. -P excludes the working directory
    from the import path.
    """
    replacement = f"{VARIABLE}=true exec {shlex.quote(python)} -P "
    return [part.replace(f"{VARIABLE}=true python3 ", replacement) for part in command]
