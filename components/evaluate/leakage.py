"""Finds the test examples that champions were trained on, which overstate the metrics of a champion."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelyard.components.artifacts import Duplicates
from modelyard.components.errors import DataError
from modelyard.components.evaluate.gate import MIN_EXAMPLES
from modelyard.components.evaluate.scoring import Scores
from modelyard.components.shards import ExampleIndex, Hashes, Split

MAX_NAMED_EXAMPLES = 5


class ScoredChampion(NamedTuple):
    """A champion: the scores of its predictions, and the hashes of its training examples, if recorded."""

    scores: Scores
    training_hashes: Hashes | None


class Leakage(NamedTuple):
    """The test examples that champions were trained on.

    Attributes:
        trained_on: by version, the test examples in its training set, if that set is recorded.
        mask: (n,), the test examples on which the models are compared.
        versions: the champions that are compared; empty if too few examples remain.
        notes: the consequences, as sentences for the decision.
    """

    trained_on: dict[int, Duplicates]
    mask: NDArray[np.bool_]
    versions: tuple[int, ...]
    notes: tuple[str, ...]

    def check(self, version: int) -> None:
        """Raise DataError if a version was trained on test examples."""
        duplicates = self.trained_on.get(version)
        if duplicates and duplicates.count:
            raise DataError(
                f"The champion, version {version}, was trained on {duplicates.count:,} of the test examples, "
                f"such as {', '.join(duplicates.origins)}, and data.fail_on has champion_leakage. Use other "
                "test examples, or remove champion_leakage from data.fail_on."
            )


def find_leakage(champions: Mapping[int, ScoredChampion], index: ExampleIndex, test: Split) -> Leakage:
    """Return the leakage of champions; `champions` are by version, the current one first.

    The comparison leaves out test examples that the current champion was trained on. It also leaves out those
    of an earlier champion if at least half of the examples remain. Otherwise it leaves out that champion.
    """
    current = next(iter(champions), None)
    mask = np.ones(len(index.hashes), np.bool_)
    trained_on: dict[int, Duplicates] = {}
    versions: list[int] = []
    notes: list[str] = []
    for version, champion in champions.items():
        if champion.training_hashes is None:
            versions.append(version)
            continue
        leaked = np.isin(index.hashes, champion.training_hashes)
        trained_on[version] = Duplicates(count=int(leaked.sum()), origins=_list_origins(leaked, index, test))
        remaining = mask & ~leaked
        minimum = max(MIN_EXAMPLES, 0 if version == current else mask.sum() / 2)
        usable = bool(remaining.sum() >= minimum)
        if usable:
            mask = remaining
            versions.append(version)
        if leaked.any():
            champion_name = f"version {version}, {'the' if version == current else 'an earlier'} champion,"
            consequence = "which the comparison omits" if usable else "so it is not compared"
            notes.append(
                f"{champion_name} was trained on {leaked.sum():,} of the {len(leaked):,} test examples, such "
                f"as {', '.join(trained_on[version].origins)}, {consequence}"
            )
    if unknown := [str(version) for version in champions if version not in trained_on]:
        notes.append(
            "the training examples of these versions are not recorded, and may include test examples: "
            f"{', '.join(unknown)}"
        )
    return Leakage(trained_on, mask, tuple(versions) if current in versions else (), tuple(notes))


def to_printable(name: str) -> str:
    """Return the name of an example with `?` for bytes that are not UTF-8."""
    return name.encode("utf-8", "replace").decode()


def _list_origins(mask: NDArray[np.bool_], index: ExampleIndex, test: Split) -> tuple[str, ...]:
    """Return the names of the first leaked examples, or their origins in the source if they have no names."""
    numbers = np.flatnonzero(mask)[:MAX_NAMED_EXAMPLES]
    names = map(to_printable, test.names(numbers))
    return tuple(name or index.origin(number) for name, number in zip(names, numbers, strict=True))
