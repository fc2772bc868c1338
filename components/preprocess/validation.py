"""What stops a run: examples that are not what their schema says, or that nobody can learn from."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components.artifacts import Schema
from modelyard.components.errors import DataError


def check_source(schema: Schema) -> None:
    """Raise DataError unless the source has rows, two classes and splits that we know."""
    names = set(schema.splits)
    if not ({"all", "train"} & names) or names - {"all", "train", "test", "validation"} or len(names) > 3:
        raise DataError(
            f"The dataset has the splits {sorted(names)}, which are not `all`, or `train` with `test` and "
            "`validation`. Name its parts so, or give it as one."
        )
    if not sum(schema.splits.values()):
        raise DataError(
            f"The dataset is empty: its splits {sorted(names)} have 0 rows. Check that data.source points to "
            "the examples themselves."
        )
    if empty := [name for name, rows in schema.splits.items() if not rows]:
        raise DataError(f"The split {empty[0]} has 0 rows. Add examples to it, or leave the split out.")
    if len(schema.classes) < 2:
        raise DataError(
            f"The dataset has only the class {list(schema.classes)}, so there is nothing to tell apart. "
            "Add examples of a second class."
        )


def check_rows(schema: Schema, split: str, start: int, examples: NDArray[Any], labels: NDArray[Any]) -> None:
    """Raise DataError naming the first bad row of a batch that begins at row `start` of `split`."""
    if examples.shape[1:] != schema.shape or str(examples.dtype) != schema.dtype:
        raise DataError(
            f"Row {start} of {split} is {examples.dtype} of shape {examples.shape[1:]}, but schema.json says "
            f"{schema.dtype} of shape {schema.shape}. Ingest the source again."
        )
    outside = np.flatnonzero((labels < 0) | (labels >= len(schema.classes)))
    if len(outside):
        row = outside[0]
        raise DataError(
            f"Row {start + row} of {split} has the label {labels[row]}, but there are {len(schema.classes)} "
            f"classes, so labels are 0 to {len(schema.classes) - 1}. Correct the label, or name all classes."
        )
    if schema.dtype != "uint8" and not np.isfinite(examples).all():
        bad = np.argwhere(~np.isfinite(examples))[0]
        raise DataError(
            f"Row {start + bad[0]} of {split} has the value {examples[tuple(bad)]} at {bad[1:].tolist()}. "
            "Remove the row, or replace the value, in the source."
        )


def check_splits(schema: Schema, rows: dict[str, NDArray[np.int64]]) -> None:
    """Raise DataError unless each split has rows and each class has training rows.

    Args:
        schema: of the source.
        rows: split name to rows per class (classes,).
    """
    present = np.flatnonzero(sum(rows.values()))
    if len(present) < 2:
        raise DataError(
            f"All rows have the class {schema.classes[present[0]]!r}, so there is nothing to tell apart. "
            "Add examples of a second class, or check the labels."
        )
    for split, counts in rows.items():
        if not counts.sum():
            key = "data.test or data.validation" if split == "train" else f"data.{split}"
            raise DataError(
                f"The split {split} has 0 of the {sum(schema.splits.values())} rows of the dataset. "
                f"Change {key}, or add examples; equal ones always stay together."
            )
    for label in np.flatnonzero(rows["train"] == 0):
        held = ", ".join(f"{split} {counts[label]}" for split, counts in rows.items())
        raise DataError(
            f"The class {schema.classes[label]!r} (label {label}) has no training rows ({held}). Add "
            "examples of it, remove the class, or lower data.test and data.validation."
        )
