"""The work of the step `preprocess`: raw shards become checked, split and measured features.

    preprocess("…/raw", Preparation(validation=5000).text(), "…/features")

Reads the source twice, in batches: once to check and hash every row, once to write it where it belongs.
Besides a batch, memory holds a label and 16 bytes per row.
"""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from modelyard.components import artifacts
from modelyard.components.artifacts import ModelSplit, Schema, Statistics
from modelyard.components.errors import DataError
from modelyard.components.preprocess import split as splitting
from modelyard.components.preprocess.normalization import Moments, normalization
from modelyard.components.preprocess.settings import Preparation
from modelyard.components.preprocess.split import Mask, Words
from modelyard.components.preprocess.validation import check_rows, check_source, check_splits
from modelyard.components.shards import ShardWriter, Split

BATCH_BYTES = 2**20
SPLITS: tuple[ModelSplit, ...] = get_args(ModelSplit)

log = logging.getLogger(__name__)


def preprocess(raw: str, preparation: str, features: str) -> None:
    """Check the examples, split them, measure the normalisation and write `features`.

    Args:
        raw: directory that ingest wrote.
        preparation: Preparation as JSON.
        features: directory to write: shards, schema.json, normalization.json and statistics.json.

    Raises:
        DataError: the examples are not what the schema says, or nobody can learn from them.
    """
    settings = Preparation.of(preparation)
    schema = artifacts.read(Path(raw) / "schema.json", Schema)
    check_source(schema)
    sources = {name: _open(Path(raw), name, schema) for name in schema.splits}
    words = {name: _checked(schema, name, source) for name, source in sources.items()}
    targets = splitting.place(words, settings)
    rows = _rows(schema, sources, targets)
    check_splits(schema, rows)
    with artifacts.writing(Path(features)) as directory:
        moments = _write(directory, schema, sources, targets)
        statistics = Statistics(
            rows={split: tuple(counts.tolist()) for split, counts in rows.items()},
            duplicates=splitting.duplicates(words),
            leakage=splitting.leakage(words, targets),
            mean=float(moments.mean.mean()),
            minimum=moments.minimum,
            maximum=moments.maximum,
        )
        sizes = {split: int(counts.sum()) for split, counts in rows.items()}
        artifacts.write(directory / "schema.json", schema.model_copy(update={"splits": sizes}))
        artifacts.write(directory / "normalization.json", normalization(settings, moments))
        artifacts.write(directory / "statistics.json", statistics)
    _tell(statistics, sizes)


def _open(directory: Path, name: str, schema: Schema) -> Split:
    try:
        source = Split(directory, name)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"A shard of {name} in {directory} cannot be read: {error}. Ingest the source again."
        ) from error
    if not len(source) == len(source.labels) == schema.splits[name]:
        raise DataError(
            f"The shards of {name} in {directory} have {len(source)} rows and {len(source.labels)} labels, "
            f"but schema.json says {schema.splits[name]}. Ingest the source again."
        )
    return source


def _batch(schema: Schema) -> int:
    return max(1, BATCH_BYTES // max(1, int(np.prod(schema.shape)) * np.dtype(schema.dtype).itemsize))


def _checked(schema: Schema, name: str, source: Split) -> Words:
    """Check every row of a source's split and return its words (rows, 2)."""
    words: list[Words] = []
    start = 0
    for examples, labels in source.batches(_batch(schema)):
        check_rows(schema, name, start, examples, labels)
        words.append(splitting.words(examples))
        start += len(examples)
    return np.concatenate(words)


def _rows(
    schema: Schema, sources: dict[str, Split], targets: dict[str, dict[ModelSplit, Mask]]
) -> dict[str, NDArray[np.int64]]:
    """Return the rows per class (classes,) of each split of the model."""
    rows = {split: np.zeros(len(schema.classes), np.int64) for split in SPLITS}
    for name, masks in targets.items():
        for split, mask in masks.items():
            rows[split] += np.bincount(sources[name].labels[mask], minlength=len(schema.classes))
    return {str(split): counts for split, counts in rows.items()}


def _write(
    directory: Path,
    schema: Schema,
    sources: dict[str, Split],
    targets: dict[str, dict[ModelSplit, Mask]],
) -> Moments:
    """Write each row to its splits, and return the moments of the training rows."""
    moments = Moments(schema.shape)
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(ShardWriter(directory, split, schema.shape, schema.dtype))
            for split in SPLITS
        }
        for name, masks in targets.items():
            start = 0
            for examples, labels in sources[name].batches(_batch(schema)):
                for split, mask in masks.items():
                    mine = mask[start : start + len(examples)]
                    writers[split].append(examples[mine], labels[mine])
                    if split == "train":
                        moments.add(examples[mine])
                start += len(examples)
    return moments


def _tell(statistics: Statistics, sizes: dict[str, int]) -> None:
    log.info("rows: %s", sizes)
    if statistics.duplicates:
        log.warning("%d rows repeat an earlier one; they stay in the same split.", statistics.duplicates)
    if statistics.leakage:
        log.warning(
            "%d of %d test rows are training rows too, so the test accuracy is too good; remove them from "
            "the source, or leave its own test split out.",
            statistics.leakage,
            sizes["test"],
        )
