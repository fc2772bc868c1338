"""KFP's SDK without the clients of its API and of Docker, which take as long to import as the rest."""

import os
import shlex
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

VARIABLE = "_KFP_RUNTIME"  # kfp asks for it when it is imported, to spare steps the same; kfp.dsl asks again


def load() -> None:
    """Import `kfp` if it is not imported yet; import submodules such as kfp.dsl by name afterwards."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "true"
    try:
        import kfp  # noqa: F401
    finally:
        os.environ.pop(VARIABLE) if before is None else os.environ.__setitem__(VARIABLE, before)


def load_local() -> Any:
    """Import and return `kfp.local`; its runner of containers, which is not used, gets an empty `docker`."""
    empty = ModuleType("docker")
    empty.DockerClient = object  # type: ignore[attr-defined]
    docker = sys.modules.setdefault("docker", empty)
    try:
        from kfp import local
        from kfp.local import docker_task_handler  # noqa: F401
    finally:
        if docker is empty:
            del sys.modules["docker"]
    return local


def exec_python(command: Sequence[str], python: str = sys.executable) -> list[str]:
    """Return the command of a step with `python` in place of its shell, not as its child.

    As a child it would outlive a shell that is killed, and in a pod it would not get SIGTERM. With -P it
    imports nothing from the working directory.
    """
    replaced = f"{VARIABLE}=true exec {shlex.quote(python)} -P "
    return [part.replace(f"{VARIABLE}=true python3 ", replaced) for part in command]
