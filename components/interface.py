"""The interface between the image of a step and the pipeline that calls it.

The compiler writes the program that a step executes, which calls the code in the step's image. An image of
another version may take other arguments or settings. So the compiler also writes the interface of each step
into its container, and `check_interface` compares it before the step starts.
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


def compute_interface(step: str) -> str:
    """Return the version of modelyard, and a fingerprint of a step's component and of the keys of its spec.

    Docstrings and formatting are ignored, so that each version of Python gives the same.
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
    content = json.dumps([keys, ast.unparse(program)])
    return f"{version('modelyard')} ({hashlib.sha256(content.encode()).hexdigest()[:12]})"


def describe_mismatch(image: str, actual: str, expected: str) -> str:
    """Return the message that an image and the pipeline have different interfaces."""
    return (
        f"The image {image} has modelyard {actual}, and the pipeline was compiled by modelyard {expected}. "
        "Build the images of this version (`make images`), or use the version in the image."
    )


def build_container_variables(step: str, image: str) -> dict[str, str]:
    """Return the environment variables of a step's container, for `check_interface`."""
    return {EXPECTED: f"{step}={compute_interface(step)}", IMAGE: image}


def check_interface(step: str) -> None:
    """Raise ConfigError if the installed interface of a step is not the one that the pipeline expects."""
    name, _, expected = os.environ.get(EXPECTED, "").partition("=")
    if name == step and (actual := compute_interface(step)) != expected:
        raise ConfigError(describe_mismatch(os.environ.get(IMAGE, "of this step"), actual, expected))


def _keys(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in kind.model_fields.items():
        yield f"{prefix}{name}"
        for nested in (field.annotation, *get_args(field.annotation)):
            if isinstance(nested, type) and issubclass(nested, BaseModel):
                yield from _keys(nested, f"{prefix}{name}.")
