from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Schema
from modelyard.components.shards import ShardWriter

Examples = tuple[Any, ...]
Raw = Callable[..., Path]


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    """Return a function that writes the output of ingest.

    Its splits are (examples, labels) or (examples, labels, names).
    """

    def build(
        splits: dict[str, Examples],
        classes: tuple[str, ...] = ("cat", "dog", "emu"),
        problem: str = "classification",
    ) -> Path:
        folder = tmp_path / "raw"
        folder.mkdir()
        examples = next(iter(splits.values()))[0]
        shape, dtype = examples.shape[1:], str(examples.dtype)
        for name, (examples, *targets_and_names) in splits.items():
            with ShardWriter(folder, name, shape, dtype) as writer:
                writer.append(examples, *targets_and_names)
        sizes = {name: len(examples) for name, (examples, *_) in splits.items()}
        schema = Schema.model_validate(
            {"shape": shape, "dtype": dtype, "problem": problem, "names": classes, "splits": sizes}
        )
        artifacts.write(folder / "schema.json", schema)
        return folder

    return build


@pytest.fixture
def images() -> Callable[[int], Examples]:
    """Return a function that returns random images (count, 4, 4, 3) and labels of three classes."""

    def build(count: int, seed: int = 0) -> Examples:
        random = np.random.default_rng(seed)
        return random.integers(0, 256, (count, 4, 4, 3)).astype(np.uint8), np.arange(count) % 3

    return build
