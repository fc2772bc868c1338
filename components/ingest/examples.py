"""The interface of readers: examples of one shape in batches."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray

from modelyard.components.artifacts import Dtype, ImageFormat
from modelyard.components.errors import DataError
from modelyard.components.ingest.members import CONTROL_CHARACTERS

BATCH_BYTES = 2**20
MAX_CLASSES = 10_000


class Batch(NamedTuple):
    """Examples (n, *shape) of a split, their targets (n,), and their names if the source has names."""

    split: str
    examples: NDArray[Any]
    targets: NDArray[Any]
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Examples:
    """The examples of a source.

    `shape` is the shape of one example, without the batch axis. `names` are the classes in label order, or
    the name of the target. `batches` lazily yields examples of `dtype` and their targets: labels as integers,
    numbers as floating point. `image` is the conversion of image files to examples; None for other sources.
    `notes` and `skipped` are those of Schema; they are complete once the batches are read.
    """

    shape: tuple[int, ...]
    dtype: Dtype
    names: tuple[str, ...]
    splits: tuple[str, ...]
    batches: Iterator[Batch]
    image: ImageFormat | None = None
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def check_splits(splits: Mapping[str, str], remedy: str) -> None:
    """Raise DataError if only some files have a split; `splits` maps each file to its split, or to `all`."""
    if "all" in splits.values() and len(set(splits.values())) > 1:
        file = next(file for file, split in splits.items() if split == "all")
        raise DataError(f"{file!r} has no split, but other files have one. {remedy}")


def normalize_label(name: str) -> str | None:
    """Return a label in Unicode form NFC; None if it is empty or has control characters."""
    label = unicodedata.normalize("NFC", name.strip())
    return label if label and not CONTROL_CHARACTERS.search(label) else None


def sort_classes(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the classes sorted by value if all are integers, else alphabetically."""
    names = set(labels)
    if all(label.isascii() and label.removeprefix("-").isdigit() for label in names):
        return tuple(sorted(names, key=lambda label: (int(label), label)))
    return tuple(sorted(names))
