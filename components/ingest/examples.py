"""What every reader gives: examples of one shape in batches."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray

from modelyard.components.artifacts import Dtype, ImageFormat
from modelyard.components.ingest.members import CONTROL

BATCH_BYTES = 2**20
MAX_CLASSES = 10_000


class Batch(NamedTuple):
    """Rows of a split: examples (n, *shape), targets (n,), and what the source calls them if it has names."""

    split: str
    examples: NDArray[Any]
    targets: NDArray[Any]
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Examples:
    """What a source holds.

    `shape` is one example's, without the batch axis. `names` are the classes in label order, or the name of
    the target. `batches` gives examples of `dtype` and their targets, which are read while they are asked
    for: labels as integers, numbers as floating point. `image` says how
    pictures became examples; None when they did not come from pictures. `notes` and `skipped` are those of
    Schema, complete once the batches are read.
    """

    shape: tuple[int, ...]
    dtype: Dtype
    names: tuple[str, ...]
    splits: tuple[str, ...]
    batches: Iterator[Batch]
    image: ImageFormat | None = None
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def normalize_label(text: str) -> str | None:
    """Return a text as a label, in Unicode's form NFC; None when it is empty or has control characters."""
    label = unicodedata.normalize("NFC", text.strip())
    return None if CONTROL.search(label) else label or None


def sort_classes(labels: Iterable[str]) -> tuple[str, ...]:
    """Return classes in order: by their value if all are whole numbers, else by their text."""
    given = set(labels)
    if all(label.isascii() and label.removeprefix("-").isdigit() for label in given):
        return tuple(sorted(given, key=lambda label: (int(label), label)))
    return tuple(sorted(given))
