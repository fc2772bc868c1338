"""The work of the step `preprocess`: raw shards become checked, split and measured features.

    preprocess("…/raw", PreprocessSpec(preparation=Preparation(validation=5000)), "…/features")

Reads the source twice, in batches: once to check and hash every row, once to write it where it belongs.
Besides a batch, memory holds a target and 16 bytes per row.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from modelyard.components import artifacts, problems
from modelyard.components.artifacts import ModelSplit, Normalization, Repeats, Schema, Statistics
from modelyard.components.errors import ConfigError, DataError
from modelyard.components.preprocess import split as splitting
from modelyard.components.preprocess.settings import Preparation
from modelyard.components.preprocess.spec import PreprocessSpec
from modelyard.components.preprocess.split import Mask, Words
from modelyard.components.problems.base import Problem
from modelyard.components.shards import ShardWriter, Split, prefetched, write_hashes
from modelyard.components.step import log

BATCH_BYTES = 2**22
EXACT_ROWS = 256
"""Rows of bytes, whose sums uint16 and whose sums of squares float32 hold exactly: 256 * 255**2 < 2**24."""
MINIMUM_RANGE, MAXIMUM_RANGE = 0.05, 20
NAMED = 20
"""How many classes an error lists."""
REPEATS = {
    "duplicates": "rows repeat an earlier one; they stay in the same split",
    "conflicting_labels": "rows repeat an earlier one under another label",
    "leakage": "test rows are training rows too, so the model looks better than it is",
}
SPLITS: tuple[ModelSplit, ...] = get_args(ModelSplit)


class Moments:
    """Mean, variance, least and greatest value per channel, from batches of any size.

    The channels are the last axis of an example with one or three axes; an example with another number of
    axes has one channel. Batches are merged as in Chan, Golub and LeVeque, "Updating formulae and a
    pairwise algorithm for computing sample variances" (1979), in float64. `deviation` is there if asked for.
    """

    def __init__(self, shape: tuple[int, ...], deviation: bool = True) -> None:
        self.channels = shape[-1] if len(shape) in (1, 3) else 1
        self.mean = np.zeros(self.channels)
        self.minimum, self.maximum = np.inf, -np.inf
        self._with_deviation = deviation
        self._squares = np.zeros(self.channels)
        self._count = 0

    def add(self, examples: NDArray[Any]) -> None:
        """Add examples of shape (n, *shape)."""
        size = EXACT_ROWS if examples.dtype == np.uint8 else max(1, len(examples))
        for start in range(0, len(examples), size):
            rows = examples[start : start + size]
            self._add(rows.reshape(len(rows), -1))

    def _add(self, rows: NDArray[Any]) -> None:
        exact = rows.dtype == np.uint8
        count = rows.size // self.channels
        mean = self._by_channel(rows.sum(axis=0, dtype=np.uint16 if exact else np.float64)) / count
        total, step = self._count + count, mean - self.mean
        if self._with_deviation:
            values: NDArray[Any] = rows.astype(np.float32 if exact else np.float64)
            if not exact:
                values -= np.tile(mean, values.shape[1] // self.channels)
            squares = self._by_channel(np.einsum("ij,ij->j", values, values))
            if exact:
                squares -= count * mean**2
            self._squares += squares + step**2 * (self._count * count / total)
        self.mean += step * (count / total)
        self._count = total
        self.minimum = min(self.minimum, float(rows.min()))
        self.maximum = max(self.maximum, float(rows.max()))

    def _by_channel(self, columns: NDArray[Any]) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = columns.reshape(-1, self.channels).sum(axis=0, dtype=np.float64)
        return sums

    @property
    def deviation(self) -> NDArray[np.float64]:
        """The standard deviation per channel; 1 for a channel that never changes."""
        deviation = np.sqrt(self._squares / max(1, self._count))
        return np.where(deviation > 0, deviation, 1.0)


def preprocess(raw: str, spec: PreprocessSpec, features: str) -> None:
    """Check the examples, split them, measure the normalisation and write `features`.

    Args:
        raw: directory that ingest wrote.
        spec: how the examples are split and normalised.
        features: directory to write: shards, schema.json, normalization.json, statistics.json, hashes.npz.

    Raises:
        DataError: the examples are not what the schema says, or nobody can learn from them.
        ConfigError: the gate has a rule for a class that the data does not have.
    """
    settings = spec.preparation
    schema = artifacts.read(Path(raw) / "schema.json", Schema)
    problem = problems.of(schema.problem)
    check_source(schema)
    problem.check_schema(schema)
    check_named_slices(spec.named_slices, schema)
    sources = {name: _open(Path(raw), name, schema) for name in schema.splits}
    words = {name: _checked(schema, problem, name, source) for name, source in sources.items()}
    strata = {name: source.targets for name, source in sources.items()} if problem.stratified else None
    masks = splitting.place(words, settings, strata)
    duplicates, conflicts = splitting.repeats(words, strata)
    train, test = (splitting.rows_of_split(words, masks, split) for split in ("train", "test"))
    leakage = splitting.leakage(train, test)
    repeats = {"duplicates": duplicates, "conflicting_labels": conflicts, "leakage": leakage}
    check_repeats(repeats, settings)
    targets = _targets(sources, masks)
    check_splits(schema, targets)
    problem.check_splits(schema, targets)
    with artifacts.writing(Path(features)) as directory:
        moments = _write(directory, schema, sources, masks, settings.normalize == "standardize")
        measured, scaling = normalization(settings, moments, schema)
        statistics = Statistics(
            targets={split: problem.statistics(schema, part) for split, part in targets.items()},
            **repeats,
            scaling=scaling,
            mean=float(moments.mean.mean()),
            minimum=moments.minimum,
            maximum=moments.maximum,
        )
        sizes = {split: len(part) for split, part in targets.items()}
        artifacts.write(directory / "schema.json", schema.model_copy(update={"splits": sizes}))
        mean, deviation = problem.scaling(targets["train"])
        of_targets = {"target_mean": (mean,), "target_deviation": (deviation,)}
        artifacts.write(directory / "normalization.json", measured.model_copy(update=of_targets))
        artifacts.write(directory / "statistics.json", statistics)
        write_hashes(directory, train, test)
    _tell(statistics, sizes)


def _open(directory: Path, name: str, schema: Schema) -> Split:
    try:
        source = Split(directory, name)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"A shard of {name} in {directory} cannot be read: {error}. Ingest the source again."
        ) from error
    if not len(source) == len(source.targets) == schema.splits[name]:
        raise DataError(
            f"The shards of {name} in {directory} have {len(source)} rows and {len(source.targets)} targets, "
            f"but schema.json says {schema.splits[name]}. Ingest the source again."
        )
    return source


def _batch(schema: Schema) -> int:
    return max(1, BATCH_BYTES // max(1, int(np.prod(schema.shape)) * np.dtype(schema.dtype).itemsize))


def _checked(schema: Schema, problem: Problem, name: str, source: Split) -> Words:
    """Check every row of a source's split and return its words (rows, 2)."""
    words: list[Words] = []
    start = 0
    for examples, targets in prefetched(source.batches(_batch(schema))):
        problem.check_targets(schema, name, start, targets)
        check_rows(schema, name, start, examples)
        words.append(splitting.words(examples))
        start += len(examples)
    return np.concatenate(words)


def _targets(sources: dict[str, Split], masks: dict[str, dict[ModelSplit, Mask]]) -> dict[str, NDArray[Any]]:
    """Return the targets of each split of the model."""
    parts: dict[str, list[NDArray[Any]]] = {split: [] for split in SPLITS}
    for name, chosen in masks.items():
        for split, mask in chosen.items():
            parts[split].append(sources[name].targets[mask])
    return {split: np.concatenate(found) for split, found in parts.items()}


def _write(
    directory: Path,
    schema: Schema,
    sources: dict[str, Split],
    masks: dict[str, dict[ModelSplit, Mask]],
    deviation: bool,
) -> Moments:
    """Write each row to its splits, and return the moments of the training rows."""
    moments = Moments(schema.shape, deviation)

    def parts() -> Iterator[tuple[ModelSplit, NDArray[Any], NDArray[Any], Sequence[str]]]:
        for name, chosen in masks.items():
            start = 0
            for examples, targets in sources[name].batches(_batch(schema)):
                for split, mask in chosen.items():
                    mine = np.flatnonzero(mask[start : start + len(examples)])
                    rows = examples.take(mine, axis=0)
                    if split == "train":
                        moments.add(rows)
                    names = sources[name].names(start + mine) if split == "test" else ()  # for the report
                    yield split, rows, targets[mine], names
                start += len(examples)

    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(ShardWriter(directory, split, schema.shape, schema.dtype))
            for split in SPLITS
        }
        for split, rows, targets, names in prefetched(parts()):
            writers[split].append(rows, targets, names)
    return moments


def _tell(statistics: Statistics, sizes: dict[str, int]) -> None:
    log(f"rows: {sizes}; {statistics.scaling}")
    for name, words in REPEATS.items():
        found: Repeats = getattr(statistics, name)
        if found.count:
            log(f"{found.count} {words}, such as {'; '.join(found.examples)}.")


def check_repeats(repeats: Mapping[str, Repeats], preparation: Preparation) -> None:
    """Raise DataError when rows repeat each other in a way that `data.fail_on` forbids."""
    for name, found in repeats.items():
        if name in preparation.fail_on and found.count:
            raise DataError(
                f"{found.count} {REPEATS[name]}, such as {'; '.join(found.examples)}, and data.fail_on has "
                f"{name}. Remove them from the source, or take {name} out of data.fail_on."
            )


def check_named_slices(names: Sequence[str], schema: Schema) -> None:
    """Raise ConfigError when the gate has a rule for a class that the data does not have."""
    if unknown := [name for name in names if name not in schema.names]:
        near = get_close_matches(unknown[0], schema.names, n=1)
        more = f" and {len(schema.names) - NAMED:,} more" if len(schema.names) > NAMED else ""
        raise ConfigError(
            f"The section gate has a rule for {unknown[0]!r}, which is not a class of the data"
            + (f"; did you mean {near[0]!r}?" if near else ".")
            + f" The classes are {', '.join(schema.names[:NAMED])}{more}."
        )


def check_source(schema: Schema) -> None:
    """Raise DataError unless the source has rows, and splits that we know."""
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


def check_rows(schema: Schema, split: str, start: int, examples: NDArray[Any]) -> None:
    """Raise DataError naming the first bad row of a batch that begins at row `start` of `split`."""
    if examples.shape[1:] != schema.shape or str(examples.dtype) != schema.dtype:
        raise DataError(
            f"Row {start} of {split} is {examples.dtype} of shape {examples.shape[1:]}, but schema.json says "
            f"{schema.dtype} of shape {schema.shape}. Ingest the source again."
        )
    if schema.dtype != "uint8" and not np.isfinite(examples).all():
        bad = np.argwhere(~np.isfinite(examples))[0]
        raise DataError(
            f"Row {start + bad[0]} of {split} has the value {examples[tuple(bad)]} at {bad[1:].tolist()}. "
            "Remove the row, or replace the value, in the source."
        )


def check_splits(schema: Schema, targets: dict[str, NDArray[Any]]) -> None:
    """Raise DataError unless each split has rows; `targets` are those of each split."""
    for split, part in targets.items():
        if not len(part):
            key = "data.test or data.validation" if split == "train" else f"data.{split}"
            raise DataError(
                f"The split {split} has 0 of the {sum(schema.splits.values())} rows of the dataset. "
                f"Change {key}, or add examples; equal ones always stay together."
            )


def normalization(preparation: Preparation, moments: Moments, schema: Schema) -> tuple[Normalization, str]:
    """Return what `data.normalize` says, measured on the training rows where needed, and a sentence."""
    match preparation.normalize:
        case "scale":
            least, greatest = moments.minimum, moments.maximum
            scale = preparation.scale or default_scale(least, greatest, schema)
            chosen = "as data.scale says" if preparation.scale else "chosen because data.scale is not set"
            said = f"training values from {least:.4g} to {greatest:.4g} are divided by {scale:g}, {chosen}"
            if not MINIMUM_RANGE * scale <= max(-least, greatest) <= MAXIMUM_RANGE * scale:
                log(f"{said}; that is far from the range of the values: check data.scale.")
            return Normalization(deviation=(scale,)), said
        case "standardize":
            mean, deviation = tuple(moments.mean.tolist()), tuple(moments.deviation.tolist())
            said = "the mean of the training values is subtracted, then they are divided by their deviation"
            return Normalization(mean=mean, deviation=deviation), said
    return Normalization(), "values are taken as they are"


def default_scale(least: float, greatest: float, schema: Schema) -> float:
    """Return what the values are divided by when data.scale does not say it."""
    if schema.image:
        return 255.0
    magnitude = max(-least, greatest)
    if magnitude <= 1:
        return 1.0
    return next((scale for scale in (255.0, 65535.0) if scale / 2 <= magnitude <= scale), magnitude)
