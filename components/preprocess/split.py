"""Which example goes to which split: by its content, so that the answer never depends on the order.

An example's XXH3 digest (128 bits, of its bytes in the shard) gives two numbers of 64 bits. The first
decides about the test, the second about validation, so the two choices are independent. A share s takes
the examples whose number is below s * 2**64: as the data grows, an example stays where it is. A number of
rows n takes the n smallest numbers. Identical examples have the same numbers and stay together, which may
make a split a few rows larger than asked.

Where targets are classes, the test part also takes the examples of a class with the smallest numbers: 10
different ones, or half of a class with fewer than 20. The limit of a class only falls as examples are added,
so once it has 20, an example may leave the test part and none enters it. An example with several labels is a
test example when it is one for each of them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from modelyard.components.artifacts import ModelSplit, Repeats
from modelyard.components.preprocess.settings import Preparation
from modelyard.components.shards import Rows

Words = NDArray[np.uint64]
Mask = NDArray[np.bool_]
POOLS = ("all", "train")
TEST_ROWS_PER_CLASS = 10
EXAMPLES = 5


def words(examples: NDArray[Any]) -> Words:
    """Return two independent numbers per example, uint64 of shape (n, 2), from (n, *shape)."""
    rows = np.ascontiguousarray(examples).reshape(len(examples), -1).view(np.uint8)
    size, data = rows.shape[1], rows.reshape(-1).data
    starts = range(0, len(data), size)
    digests = b"".join([xxh3_128_digest(data[at : at + size]) for at in starts])
    return np.frombuffer(digests, "<u8").astype(np.uint64).reshape(-1, 2)


def chosen(numbers: Words, amount: float | int) -> Mask:
    """Return which of the numbers (n,) a share or a number of rows takes."""
    if isinstance(amount, float):
        return numbers < np.uint64(int(amount * 2**64))
    if amount >= len(numbers):
        return np.ones(len(numbers), np.bool_)
    return np.asarray(numbers <= np.partition(numbers, amount - 1)[amount - 1])


def smallest_of_each_stratum(numbers: Words, strata: NDArray[Any]) -> Mask:
    """Return which rows are among the smallest numbers (n,) of their class: 10, or half of fewer than 20."""
    order = np.lexsort((numbers, strata))
    sorted_strata, sorted_numbers = strata[order], numbers[order]
    new_stratum = np.r_[True, sorted_strata[1:] != sorted_strata[:-1]][: len(order)]
    new = new_stratum | np.r_[True, sorted_numbers[1:] != sorted_numbers[:-1]][: len(order)]
    group = np.cumsum(new_stratum) - 1
    distinct = np.bincount(group, new).astype(np.int64)
    before = np.r_[0, np.cumsum(distinct)[:-1]]
    rank = np.cumsum(new) - 1 - before[group]
    mask = np.zeros(len(order), np.bool_)
    mask[order] = rank < np.minimum(TEST_ROWS_PER_CLASS, distinct // 2)[group]
    return mask


def place(
    source: Mapping[str, Words], preparation: Preparation, strata: Mapping[str, NDArray[Any]] | None = None
) -> dict[str, dict[ModelSplit, Mask]]:
    """Return, for each split of the source, which of its rows go to which split of the model.

    Args:
        source: the source's splits (`all`, or `train` with `test` and `validation` if it has them) and
            their words.
        preparation: how much to hold out of a source that does not do so itself.
        strata: the label of each row, by split, when the targets are classes.
    """
    pool = next(name for name in POOLS if name in source)
    left = np.ones(len(source[pool]), np.bool_)
    targets: dict[str, dict[ModelSplit, Mask]] = {pool: {}}
    for name, column, amount in (("test", 0, preparation.test), ("validation", 1, preparation.validation)):
        split: ModelSplit = "test" if name == "test" else "validation"
        if amount == "test":
            owner = "test" if "test" in source else pool
            targets[owner]["validation"] = targets[owner]["test"]
        elif name in source:
            targets[name] = {split: np.ones(len(source[name]), np.bool_)}
        else:
            numbers = source[pool][:, column]
            mask = _among(left, numbers, amount)
            if split == "test" and strata:
                added = smallest_of_each_stratum(numbers, strata[pool]) & ~mask
                if added.any():
                    added[added] = ~np.isin(numbers[added], numbers[~(mask | added)])
                mask |= added
            targets[pool][split] = mask
            left = left & ~mask
    targets[pool]["train"] = left
    return targets


def _among(left: Mask, numbers: Words, amount: float | int | str) -> Mask:
    mask = np.zeros(len(left), np.bool_)
    if not isinstance(amount, str):
        mask[left] = chosen(numbers[left], amount)
    return mask


def rows_of(source: Mapping[str, Words], masks: Mapping[str, Mask]) -> Rows:
    """Return the rows of the masks, in the order of the shards."""
    places = [np.flatnonzero(mask) for mask in masks.values()]
    hashes = [source[name][mask, 0] for name, mask in masks.items()]
    ends = np.cumsum([len(one) for one in places])
    return Rows(np.concatenate(hashes), tuple(masks), ends, np.concatenate(places))


def rows_of_split(
    source: Mapping[str, Words], targets: Mapping[str, Mapping[ModelSplit, Mask]], split: ModelSplit
) -> Rows:
    """Return the rows of a split of the model; `targets` is what `place` returned."""
    return rows_of(source, {name: masks[split] for name, masks in targets.items() if split in masks})


def repeats(
    source: Mapping[str, Words], strata: Mapping[str, NDArray[Any]] | None = None
) -> tuple[Repeats, Repeats]:
    """Return the rows that repeat an earlier one, and those of them that have another label.

    Args:
        source: as in `place`.
        strata: as in `place`.
    """
    rows = rows_of(source, {name: np.ones(len(words), np.bool_) for name, words in source.items()})
    order = np.argsort(rows.hashes, kind="stable")
    new = np.r_[True, np.diff(rows.hashes[order]) != 0]
    first = np.empty_like(order)
    first[order] = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
    again = first != np.arange(len(order))
    other = np.zeros_like(again)
    if strata:
        labels = np.concatenate([strata[name] for name in source])
        other = labels[first] != labels
    found = [np.flatnonzero(mask) for mask in (again, other)]
    same, conflicting = (
        Repeats(
            count=len(chosen_rows),
            examples=tuple(f"{rows.name(first[row])} and {rows.name(row)}" for row in chosen_rows[:EXAMPLES]),
        )
        for chosen_rows in found
    )
    return same, conflicting


def leakage(train: Rows, test: Rows) -> Repeats:
    """Return the test rows that are training rows too."""
    order = np.argsort(train.hashes, kind="stable")
    place = np.minimum(np.searchsorted(train.hashes, test.hashes, sorter=order), len(order) - 1)
    known = np.flatnonzero(train.hashes[order[place]] == test.hashes) if len(order) else order
    pairs = tuple(f"{train.name(order[place[row]])} and {test.name(row)}" for row in known[:EXAMPLES])
    return Repeats(count=len(known), examples=pairs)
