"""KFP's SDK without the clients of its API and of Docker, which take as long to import as the rest."""

import os
import sys
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
