"""The interface between the image of a step and the pipeline that calls it.

The compiler writes the program of a step, which calls the code in the step's image. An image of another
version of modelyard may expect other arguments or settings. So the compiler also writes the interface that it
expects into the step's container, and `check_interface` compares it with that of the image.
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

INTERFACE_VARIABLE = "MODELYARD_INTERFACE"
IMAGE_VARIABLE = "MODELYARD_IMAGE"


def compute_interface(step: str) -> str:
    """Return the version of modelyard, and a fingerprint of a step's component and of the keys of its spec.

    The fingerprint ignores docstrings and formatting, and is the same in all versions of Python.
    """
    spec = getattr(importlib.import_module(f"modelyard.components.{step}.spec"), f"{step.title()}Spec")
    keys = sorted(set(_iterate_keys(spec)))
    program = ast.parse((Path(__file__).parent / step / "component.py").read_text(encoding="utf-8"))
    for node in ast.walk(program):
        if (
            isinstance(node, ast.Module | ast.FunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    content = json.dumps([keys, ast.unparse(program)])
    return f"{version('modelyard')} ({hashlib.sha256(content.encode()).hexdigest()[:12]})"


def _iterate_keys(spec: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in spec.model_fields.items():
        yield f"{prefix}{name}"
        for annotation in (field.annotation, *get_args(field.annotation)):
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                yield from _iterate_keys(annotation, f"{prefix}{name}.")


def describe_mismatch(image: str, actual: str, expected: str) -> str:
    """Return the error message for an image whose interface is not the one that the pipeline expects."""
    return (
        f"The image {image} has modelyard {actual}, but the pipeline was compiled by modelyard {expected}. "
        "Build the images of this version (`make images`), or use the version in the image."
    )


def build_container_variables(step: str, image: str) -> dict[str, str]:
    """Return the environment variables of a step's container, for `check_interface`."""
    return {INTERFACE_VARIABLE: f"{step}={compute_interface(step)}", IMAGE_VARIABLE: image}


def check_interface(step: str) -> None:
    """Raise ConfigError if the installed interface of a step is not the one that the pipeline expects."""
    name, _, expected = os.environ.get(INTERFACE_VARIABLE, "").partition("=")
    if name == step and (actual := compute_interface(step)) != expected:
        raise ConfigError(describe_mismatch(os.environ.get(IMAGE_VARIABLE, "of this step"), actual, expected))
