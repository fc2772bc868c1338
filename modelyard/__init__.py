"""modelyard takes a model from data to a served, guarded endpoint on Kubeflow Pipelines.

    import modelyard
    summary = modelyard.run("pets.yaml")

The functions are those of pipelines/api.py, listed in __init__.pyi. Importing `modelyard` imports nothing
else: the images of the steps hold no pipelines/, and a step's code fingerprint covers this file.

components  the work: one package per step, and what the steps share
pipelines   the wiring: the pipeline, configuration, environments, runners, schedules, planning, command line

Both are folders of the repository that this package links to, so that a project which has folders of these
names itself can use modelyard.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        api = import_module("modelyard.pipelines.api")
        if name in api.__all__:
            return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *import_module("modelyard.pipelines.api").__all__]
