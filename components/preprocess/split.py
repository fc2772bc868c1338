"""Assigns examples to splits by their content, independently of their order.

The XXH3 digest of an example (128 bits, of its bytes in the shard) is split into two hashes of 64 bits. The
first decides about the test split, the second about validation, so the two are independent. A share s selects
the examples whose hash is below s * 2**64: an example keeps its split when the data grows. A number n selects
the n smallest hashes. Identical examples have equal hashes and are in the same split, which may therefore be
a few examples larger than configured.

If targets are classes, the test split also gets the examples with the smallest hashes of each class: 10
distinct ones, or half of a class with fewer than 20. Once a class has 20 examples, adding examples can move
an earlier example out of the test split, but not into it. An example with several labels is a test example
only if it is selected for each label.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from modelyard.components.artifacts import Duplicates, ModelSplit
from modelyard.components.preprocess.settings import Preparation
from modelyard.components.shards import ExampleIndex, Hashes

HashPairs = NDArray[np.uint64]
Mask = NDArray[np.bool_]
POOLS = ("all", "train")
TEST_EXAMPLES_PER_CLASS = 10
LISTED_PAIRS = 5


def hash_examples(examples: NDArray[Any]) -> HashPairs:
    """Return two independent hashes per example, uint64 of shape (n, 2), from (n, *shape)."""
    flat = np.ascontiguousarray(examples).reshape(len(examples), -1).view(np.uint8)
    size, data = flat.shape[1], flat.reshape(-1).data
    starts = range(0, len(data), size)
    digests = b"".join([xxh3_128_digest(data[start : start + size]) for start in starts])
    return np.frombuffer(digests, "<u8").astype(np.uint64).reshape(-1, 2)


def assign_splits(
    source: Mapping[str, HashPairs],
    preparation: Preparation,
    strata: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, dict[ModelSplit, Mask]]:
    """Return the mask of the examples for each split of the model, by split of the source.

    Args:
        source: hashes by split of the source: `all`, or `train` with optional `test` and `validation`.
        preparation: sizes of the splits that the source does not have.
        strata: labels by split of the source if the targets are classes, else None.
    """
    pool = next(name for name in POOLS if name in source)
    masks: dict[str, dict[ModelSplit, Mask]] = {pool: {}}
    if "test" in source:
        masks["test"] = {"test": np.ones(len(source["test"]), np.bool_)}
        remaining = np.ones(len(source[pool]), np.bool_)
    else:
        labels = strata[pool] if strata else None
        masks[pool]["test"] = _select_test_examples(source[pool][:, 0], preparation.test, labels)
        remaining = ~masks[pool]["test"]
    if isinstance(preparation.validation, str):  # validates on the test examples
        owner = "test" if "test" in source else pool
        masks[owner]["validation"] = masks[owner]["test"]
    elif "validation" in source:
        masks["validation"] = {"validation": np.ones(len(source["validation"]), np.bool_)}
    else:
        validation = np.zeros(len(remaining), np.bool_)
        validation[remaining] = select_amount(source[pool][remaining, 1], preparation.validation)
        masks[pool]["validation"] = validation
        remaining = remaining & ~validation
    masks[pool]["train"] = remaining
    return masks


def _select_test_examples(hashes: Hashes, amount: float | int, labels: NDArray[Any] | None) -> Mask:
    """Return the mask of the hashes (n,) that the amount selects, and the smallest hashes of each label."""
    mask = select_amount(hashes, amount)
    if labels is not None:
        added = _select_smallest_of_each_class(hashes, labels) & ~mask
        if added.any():  # except hashes that also have a label for which they are not selected
            added[added] = ~np.isin(hashes[added], hashes[~(mask | added)])
        mask |= added
    return mask


def select_amount(hashes: Hashes, amount: float | int) -> Mask:
    """Return the mask of the hashes (n,) that a share or a number of examples selects."""
    if isinstance(amount, float):
        return hashes < np.uint64(int(amount * 2**64))
    if amount >= len(hashes):
        return np.ones(len(hashes), np.bool_)
    return np.asarray(hashes <= np.partition(hashes, amount - 1)[amount - 1])


def _select_smallest_of_each_class(hashes: Hashes, labels: NDArray[Any]) -> Mask:
    """Return the mask of the smallest hashes (n,) of each class: 10, or half of fewer than 20."""
    order = np.lexsort((hashes, labels))
    sorted_labels, sorted_hashes = labels[order], hashes[order]
    new_label = np.r_[True, sorted_labels[1:] != sorted_labels[:-1]][: len(order)]
    new_hash = new_label | np.r_[True, sorted_hashes[1:] != sorted_hashes[:-1]][: len(order)]
    group = np.cumsum(new_label) - 1
    distinct = np.bincount(group, new_hash).astype(np.int64)
    before = np.r_[0, np.cumsum(distinct)[:-1]]  # distinct hashes in the groups before each group
    rank = np.cumsum(new_hash) - 1 - before[group]
    mask = np.zeros(len(order), np.bool_)
    mask[order] = rank < np.minimum(TEST_EXAMPLES_PER_CLASS, distinct // 2)[group]
    return mask


def index_examples(source: Mapping[str, HashPairs], masks: Mapping[str, Mask]) -> ExampleIndex:
    """Return the index of the examples that the masks select, in the order of the shards."""
    indices = [np.flatnonzero(mask) for mask in masks.values()]
    hashes = [source[name][mask, 0] for name, mask in masks.items()]
    ends = np.cumsum([len(index) for index in indices])
    return ExampleIndex(np.concatenate(hashes), tuple(masks), ends, np.concatenate(indices))


def index_split(
    source: Mapping[str, HashPairs], masks: Mapping[str, Mapping[ModelSplit, Mask]], split: ModelSplit
) -> ExampleIndex:
    """Return the index of a split of the model; `masks` is from `assign_splits`."""
    return index_examples(
        source, {name: by_split[split] for name, by_split in masks.items() if split in by_split}
    )


def find_duplicates(
    source: Mapping[str, HashPairs], strata: Mapping[str, NDArray[Any]] | None = None
) -> tuple[Duplicates, Duplicates]:
    """Return the examples that repeat an earlier one, and those of them with another label.

    The arguments are those of `assign_splits`.
    """
    examples = index_examples(
        source, {name: np.ones(len(hashes), np.bool_) for name, hashes in source.items()}
    )
    order = np.argsort(examples.hashes, kind="stable")
    new = np.r_[True, np.diff(examples.hashes[order]) != 0]
    first = np.empty_like(order)
    first[order] = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
    repeated = first != np.arange(len(order))
    conflicting = np.zeros_like(repeated)
    if strata:
        labels = np.concatenate([strata[name] for name in source])
        conflicting = labels[first] != labels

    def describe(mask: Mask) -> Duplicates:
        indices = np.flatnonzero(mask)
        pairs = ((examples.origin(first[index]), examples.origin(index)) for index in indices[:LISTED_PAIRS])
        return Duplicates(count=len(indices), origins=tuple(map(" and ".join, pairs)))

    return describe(repeated), describe(conflicting)


def find_leakage(train: ExampleIndex, test: ExampleIndex) -> Duplicates:
    """Return the test examples that are also training examples."""
    order = np.argsort(train.hashes, kind="stable")
    position = np.minimum(np.searchsorted(train.hashes, test.hashes, sorter=order), len(order) - 1)
    indices = np.flatnonzero(train.hashes[order[position]] == test.hashes) if len(order) else order
    pairs = tuple(
        f"{train.origin(order[position[index]])} and {test.origin(index)}" for index in indices[:LISTED_PAIRS]
    )
    return Duplicates(count=len(indices), origins=pairs)
