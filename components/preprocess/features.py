"""The step `preprocess`: validates raw examples, splits them and computes their normalization.

    preprocess("…/raw", PreprocessSpec(preparation=Preparation(validation=5000)), "…/features")

The source is read twice, in batches: to check and hash the examples, and to write them to their splits.
Memory holds a batch, and a target and 16 bytes for each example.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from modelyard.components import artifacts, problems
from modelyard.components.artifacts import Duplicates, ModelSplit, Normalization, Schema, Statistics
from modelyard.components.errors import ConfigError, DataError, pluralize, summarize_names
from modelyard.components.preprocess import split as splitting
from modelyard.components.preprocess.settings import Preparation
from modelyard.components.preprocess.spec import PreprocessSpec
from modelyard.components.preprocess.split import HashPairs, Mask
from modelyard.components.problems.base import Problem
from modelyard.components.shards import Split, prefetch, write_hashes, write_splits
from modelyard.components.step import log

BATCH_BYTES = 2**22
EXACT_SUM_EXAMPLES = 256
"""Number of uint8 examples whose sum is exact in uint16, and whose sum of squares is exact in float32."""
MIN_RANGE, MAX_RANGE = 0.05, 20
"""Magnitudes of the training values, relative to data.scale, outside of which a warning is logged."""
LISTED_NAMES = 20
"""Maximum number of classes in an error message."""
FINDING_NOUNS = {
    "duplicates": ("duplicate", "in the same split as the original"),
    "conflicting_labels": ("duplicate", "with another label than the original"),
    "leakage": ("test example", "in the training examples"),
}
SPLITS: tuple[ModelSplit, ...] = get_args(ModelSplit)


def preprocess(raw: str, spec: PreprocessSpec, features: str) -> None:
    """Check the examples in the output folder of ingest, split them and compute the normalization.

    Write shards, schema.json, normalization.json, statistics.json and hashes.npz to the folder `features`.

    Raises:
        DataError: the examples do not match the schema, or no model can be trained on them.
        ConfigError: the gate or the class weights name a class that the data does not have.
    """
    settings = spec.preparation
    schema = artifacts.read(Path(raw) / "schema.json", Schema)
    problem = problems.get_problem(schema.problem)
    check_source(schema)
    problem.check_schema(schema)
    check_named_slices("gate", spec.named_slices, schema)
    check_named_slices("training.class_weights", spec.weighted_slices, schema)
    remedy = "Ingest the source again."
    sources = {name: Split.open(Path(raw), name, schema, remedy) for name in schema.splits}
    hashes = {name: _check_and_hash(schema, problem, name, source) for name, source in sources.items()}
    strata = {name: source.targets for name, source in sources.items()} if problem.stratified else None
    masks = splitting.assign_splits(hashes, settings, strata)
    duplicates, conflicts = splitting.find_duplicates(hashes, strata)
    train, test = (splitting.index_split(hashes, masks, split) for split in ("train", "test"))
    leakage = splitting.find_leakage(train, test)
    findings = {"duplicates": duplicates, "conflicting_labels": conflicts, "leakage": leakage}
    check_findings(findings, settings)
    targets: dict[str, NDArray[Any]] = {split: _select_targets(sources, masks, split) for split in SPLITS}
    check_splits(schema, problem, targets, duplicates)
    with artifacts.replace_folder(Path(features)) as folder:
        moments = Moments(schema.shape, with_standard_deviation=settings.normalize == "standardize")
        parts = _iterate_parts(schema, sources, masks, moments)
        sizes = write_splits(folder, SPLITS, schema.shape, schema.dtype, parts)
        write_hashes(folder, train, test)
        normalization, scaling = compute_normalization(settings, moments, schema)
        mean, scale = problem.compute_scaling(targets["train"])
        target_scaling = {"target_mean": (mean,), "target_scale": (scale,)}
        artifacts.write(folder / "normalization.json", normalization.model_copy(update=target_scaling))
        statistics = Statistics(
            targets={split: problem.compute_statistics(schema, part) for split, part in targets.items()},
            **findings,
            scaling=scaling,
            mean=float(moments.mean.mean()),
            minimum=moments.minimum,
            maximum=moments.maximum,
        )
        artifacts.write(folder / "statistics.json", statistics)
        artifacts.write(folder / "schema.json", schema.model_copy(update={"splits": sizes}))
    log(f"examples: {sizes}; {scaling}")


def check_source(schema: Schema) -> None:
    """Raise DataError unless the source has valid splits that are not empty."""
    names = set(schema.splits)
    if not ({"all", "train"} & names) or names - {"all", "train", "test", "validation"} or len(names) > 3:
        raise DataError(
            f"The dataset has the splits {', '.join(sorted(names))}. Use `all`, or `train` with optional "
            "`test` and `validation`."
        )
    if not sum(schema.splits.values()):
        raise DataError("The dataset has no examples in any split. Check data.source.")
    if empty := [name for name, size in schema.splits.items() if not size]:
        raise DataError(f"The split {empty[0]} has 0 examples. Add examples to it, or remove the split.")


def check_named_slices(key: str, names: Sequence[str], schema: Schema) -> None:
    """Raise ConfigError if the configuration `key` names a class that the data does not have."""
    if unknown := [name for name in names if name not in schema.names]:
        near = get_close_matches(unknown[0], schema.names, n=1)
        raise ConfigError(
            f"{key} names {unknown[0]!r}, which is not a class of the data."
            + (f" Did you mean {near[0]!r}?" if near else "")
            + f" The classes are {summarize_names(schema.names, LISTED_NAMES)}."
        )


def _check_and_hash(schema: Schema, problem: Problem, name: str, source: Split) -> HashPairs:
    """Check the examples of a split of the source and return their hashes (n, 2)."""
    hashes: list[HashPairs] = []
    start = 0
    for examples, targets in prefetch(source.batches(_choose_batch_size(schema))):
        problem.check_targets(schema, name, start, targets)
        check_examples(schema, name, start, examples)
        hashes.append(splitting.hash_examples(examples))
        start += len(examples)
    return np.concatenate(hashes)


def check_examples(schema: Schema, split: str, start: int, examples: NDArray[Any]) -> None:
    """Raise DataError for the first invalid example of a batch that starts at `start` in `split`."""
    if schema.dtype != "uint8" and not np.isfinite(examples).all():
        index = np.argwhere(~np.isfinite(examples))[0]
        raise DataError(
            f"Example {start + index[0]} of {split} has the value {examples[tuple(index)]} at "
            f"{index[1:].tolist()}. Remove the example or replace the value in the source."
        )


def check_findings(findings: Mapping[str, Duplicates], preparation: Preparation) -> None:
    """Log duplicates, conflicting labels and leakage; raise DataError for those in `data.fail_on`."""
    for name, finding in findings.items():
        if not finding.count:
            continue
        noun, condition = FINDING_NOUNS[name]
        origins = "; ".join(finding.origins)
        description = f"The data has {pluralize(finding.count, noun)} {condition}, such as {origins}"
        if name in preparation.fail_on:
            raise DataError(
                f"{description}, and data.fail_on has {name}. Remove them from the source, or remove {name} "
                "from data.fail_on."
            )
        consequence = " Such examples bias the test metrics." if name == "leakage" else ""
        log(f"{description}.{consequence}")


def _select_targets(
    sources: dict[str, Split], masks: dict[str, dict[ModelSplit, Mask]], split: ModelSplit
) -> NDArray[Any]:
    parts = [sources[name].targets[by_split[split]] for name, by_split in masks.items() if split in by_split]
    return np.concatenate(parts)


def check_splits(
    schema: Schema, problem: Problem, targets: Mapping[str, NDArray[Any]], duplicates: Duplicates
) -> None:
    """Raise DataError if a split is empty, or no model can be trained and evaluated with its targets."""
    try:
        for split, part in targets.items():
            if not len(part):
                key = "data.test or data.validation" if split == "train" else f"data.{split}"
                raise DataError(
                    f"The split {split} has 0 of the {sum(schema.splits.values())} examples of the dataset. "
                    f"Change {key}, or add examples."
                )
        problem.check_splits(schema, targets)
    except DataError as error:
        if 2 * duplicates.count < sum(schema.splits.values()):
            raise
        raise DataError(
            f"{error} The cause may be {pluralize(duplicates.count, 'duplicate')} in the same split as the "
            f"original, such as {duplicates.origins[0]}: remove duplicates."
        ) from error


def _iterate_parts(
    schema: Schema, sources: dict[str, Split], masks: dict[str, dict[ModelSplit, Mask]], moments: "Moments"
) -> Iterator[tuple[ModelSplit, NDArray[Any], NDArray[Any], Sequence[str]]]:
    """Yield the part of each batch for each split of the model; add training examples to the moments."""
    for name, by_split in masks.items():
        start = 0
        for examples, targets in sources[name].batches(_choose_batch_size(schema)):
            for split, mask in by_split.items():
                indices = np.flatnonzero(mask[start : start + len(examples)])
                part = examples.take(indices, axis=0)
                if split == "train":
                    moments.add(part)
                names = sources[name].names(start + indices) if split == "test" else ()  # for the report
                yield split, part, targets[indices], names
            start += len(examples)


def _choose_batch_size(schema: Schema) -> int:
    return max(1, BATCH_BYTES // max(1, int(np.prod(schema.shape)) * np.dtype(schema.dtype).itemsize))


def compute_normalization(
    preparation: Preparation, moments: "Moments", schema: Schema
) -> tuple[Normalization, str]:
    """Return the normalization of `data.normalize` from the training examples, and its description."""
    match preparation.normalize:
        case "scale":
            minimum, maximum = moments.minimum, moments.maximum
            scale = preparation.scale or _choose_default_scale(minimum, maximum, schema)
            origin = "from data.scale" if preparation.scale else "the default of data.scale"
            description = (
                f"training values from {minimum:.4g} to {maximum:.4g} are divided by {scale:g}, {origin}"
            )
            if not MIN_RANGE * scale <= max(-minimum, maximum) <= MAX_RANGE * scale:
                log(f"{description}, which is far from the range of the values: check data.scale.")
            return Normalization(scale=(scale,)), description
        case "standardize":
            mean, deviation = tuple(moments.mean.tolist()), tuple(moments.standard_deviation.tolist())
            description = (
                "training values are standardized: minus their mean, divided by their standard deviation"
            )
            return Normalization(mean=mean, scale=deviation), description
    return Normalization(), "values are not normalized"


def _choose_default_scale(minimum: float, maximum: float, schema: Schema) -> float:
    if schema.image:
        return 255.0
    magnitude = max(-minimum, maximum)
    if magnitude <= 1:
        return 1.0
    return next((scale for scale in (255.0, 65535.0) if scale / 2 <= magnitude <= scale), magnitude)


class Moments:
    """Mean and standard deviation per channel, minimum and maximum, from batches of any size.

    The channels are the last axis of an example with one or three axes; an example with another number of
    axes has one channel. Batches are merged as in Chan, Golub and LeVeque, "Updating formulae and a
    pairwise algorithm for computing sample variances" (1979), in float64. The standard deviation is optional.
    """

    def __init__(self, shape: tuple[int, ...], with_standard_deviation: bool) -> None:
        self.channels = shape[-1] if len(shape) in (1, 3) else 1
        self.mean = np.zeros(self.channels)
        self.minimum, self.maximum = np.inf, -np.inf
        self._with_standard_deviation = with_standard_deviation
        self._squares = np.zeros(self.channels)
        self._count = 0

    def add(self, examples: NDArray[Any]) -> None:
        """Add examples of shape (n, *shape)."""
        size = EXACT_SUM_EXAMPLES if examples.dtype == np.uint8 else max(1, len(examples))
        for start in range(0, len(examples), size):
            batch = examples[start : start + size]
            self._add(batch.reshape(len(batch), -1))

    def _add(self, batch: NDArray[Any]) -> None:
        count = batch.size // self.channels
        sums = batch.sum(axis=0, dtype=np.uint16 if batch.dtype == np.uint8 else np.float64)
        mean = self._sum_by_channel(sums) / count
        total, change = self._count + count, mean - self.mean
        if self._with_standard_deviation:
            squares = self._sum_squared_differences(batch, mean)
            self._squares += squares + change**2 * (self._count * count / total)
        self.mean += change * (count / total)
        self._count = total
        self.minimum = min(self.minimum, float(batch.min()))
        self.maximum = max(self.maximum, float(batch.max()))

    def _sum_squared_differences(self, batch: NDArray[Any], mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum of (x - mean)**2 per channel."""
        if batch.dtype == np.uint8:  # the sum of x**2 is exact
            values = batch.astype(np.float32)
            squares = self._sum_by_channel(np.einsum("ij,ij->j", values, values))
            return squares - batch.size // self.channels * mean**2
        differences = batch - np.tile(mean, batch.shape[1] // self.channels)
        return self._sum_by_channel(np.einsum("ij,ij->j", differences, differences))

    def _sum_by_channel(self, columns: NDArray[Any]) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = columns.reshape(-1, self.channels).sum(axis=0, dtype=np.float64)
        return sums

    @property
    def standard_deviation(self) -> NDArray[np.float64]:
        """The standard deviation per channel; 1 for constant channels."""
        values = np.sqrt(self._squares / max(1, self._count))
        return np.where(values > 0, values, 1.0)
