"""The interface between the image of a step and the pipeline that calls it.

The program of a step is written when the pipeline is compiled, and calls the work that the step's image
holds. An image of another version may take other arguments or other settings. So the compiler writes
`interface` of each step into its container, and `check` compares it before the work begins.
"""

import ast
import hashlib
import importlib
import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from modelyard.components.errors import ConfigError

EXPECTED = "MODELYARD_INTERFACE"
IMAGE = "MODELYARD_IMAGE"


def interface(step: str) -> str:
    """Return the version of modelyard, and a fingerprint of how a step is called and of the keys of its spec.

    Docstrings and formatting do not count, so that it is the same on every Python.
    """
    module = f"modelyard.components.{step}"
    keys = sorted(set(_keys(getattr(importlib.import_module(f"{module}.spec"), f"{step.title()}Spec"))))
    program = ast.parse((Path(__file__).parent / step / "component.py").read_text(encoding="utf-8"))
    for node in ast.walk(program):
        if (
            isinstance(node, ast.Module | ast.FunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    agreed = json.dumps([keys, ast.unparse(program)])
    return f"{version('modelyard')} ({hashlib.sha256(agreed.encode()).hexdigest()[:12]})"


def mismatch(image: str, actual: str, expected: str) -> str:
    """Return what is wrong with an image whose interface is another than that of the pipeline."""
    return (
        f"The image {image} holds modelyard {actual}, and the pipeline was compiled by modelyard {expected}. "
        "Build the images of this version (`make images`), or use the version that the image holds."
    )


def variables(step: str, image: str) -> dict[str, str]:
    """Return the environment variables of a step's container, for `check`."""
    return {EXPECTED: f"{step}={interface(step)}", IMAGE: image}


def check(step: str) -> None:
    """Compare what is installed here with what the pipeline expects of this step, if it says so.

    Raises:
        ConfigError: they differ.
    """
    name, _, expected = os.environ.get(EXPECTED, "").partition("=")
    if name == step and (actual := interface(step)) != expected:
        raise ConfigError(mismatch(os.environ.get(IMAGE, "of this step"), actual, expected))


def _keys(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in kind.model_fields.items():
        yield f"{prefix}{name}"
        for one in (field.annotation, *get_args(field.annotation)):
            if isinstance(one, type) and issubclass(one, BaseModel):
                yield from _keys(one, f"{prefix}{name}.")
