"""Compiled pipelines, and what the parity list says of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from kfp.compiler import Compiler

from modelyard.pipelines.compile.lint.compiled import Compiled
from modelyard.pipelines.compile.lint.traps import RULES


@pytest.fixture
def packaged(tmp_path: Path) -> Callable[..., bytes]:
    def one(pipeline: Callable[..., object]) -> bytes:
        Compiler().compile(pipeline, str(tmp_path / "pipeline.yaml"))
        return (tmp_path / "pipeline.yaml").read_bytes()

    return one


@pytest.fixture
def tripped(packaged: Callable[..., bytes]) -> Callable[..., set[str]]:
    """The names of the traps that a pipeline steps into."""

    def by(pipeline: Callable[..., object]) -> set[str]:
        compiled = Compiled.of(packaged(pipeline))
        return {rule.name for rule in RULES if list(rule.sentences(compiled))}

    return by
