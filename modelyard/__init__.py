"""modelyard trains, evaluates, deploys and serves Keras models with Kubeflow Pipelines.

    import modelyard
    summary = modelyard.run("pets.yaml")

The functions are those of pipelines/api.py, declared in __init__.pyi. They are imported on first use, because
the images of the steps do not contain pipelines/.

components  the steps, one package each, and the packages that they share
pipelines   the pipeline, configuration, environments, runners, schedules, planning, command line

Both are symbolic links to folders of the repository, so that their names cannot collide with those of a
user's packages.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        api = import_module("modelyard.pipelines.api")
        if name in api.__all__:
            return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> Any:
    return import_module("modelyard.pipelines.api").__all__
