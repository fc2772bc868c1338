"""Which example goes to which split: by its content, so that the answer never depends on the order.

An example's BLAKE2b digest (16 bytes, over its bytes in the shard) gives two numbers of 64 bits. The first
decides about the test, the second about validation, so the two choices are independent. A share s takes
the examples whose number is below s * 2**64: as the data grows, an example stays where it is. A number of
rows n takes the n smallest numbers. Identical examples have the same numbers and stay together, which may
make a split a few rows larger than asked.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components.artifacts import ModelSplit
from modelyard.components.preprocess.settings import Preparation

Words = NDArray[np.uint64]
Mask = NDArray[np.bool_]
POOLS = ("all", "train")


def words(examples: NDArray[Any]) -> Words:
    """Return two independent numbers per example, uint64 of shape (n, 2), from (n, *shape)."""
    rows = np.ascontiguousarray(examples).reshape(len(examples), -1).view(np.uint8)
    digests = b"".join(hashlib.blake2b(row.data, digest_size=16).digest() for row in rows)
    return np.frombuffer(digests, "<u8").astype(np.uint64).reshape(-1, 2)


def chosen(numbers: Words, amount: float | int) -> Mask:
    """Return which of the numbers (n,) a share or a number of rows takes."""
    if isinstance(amount, float):
        return numbers < np.uint64(int(amount * 2**64))
    if amount >= len(numbers):
        return np.ones(len(numbers), np.bool_)
    return np.asarray(numbers <= np.partition(numbers, amount - 1)[amount - 1])


def place(source: Mapping[str, Words], preparation: Preparation) -> dict[str, dict[ModelSplit, Mask]]:
    """Return, for each split of the source, which of its rows go to which split of the model.

    Args:
        source: the source's splits (`all`, or `train` with `test` and `validation` if it has them) and
            their words.
        preparation: how much to hold out of a source that does not do so itself.
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
            mask = _among(left, source[pool][:, column], amount)
            targets[pool][split] = mask
            left = left & ~mask
    targets[pool]["train"] = left
    return targets


def _among(left: Mask, numbers: Words, amount: float | int | str) -> Mask:
    mask = np.zeros(len(left), np.bool_)
    if not isinstance(amount, str):
        mask[left] = chosen(numbers[left], amount)
    return mask


def duplicates(source: Mapping[str, Words]) -> int:
    """Return how many rows repeat an earlier one."""
    identities = np.concatenate([numbers[:, 0] for numbers in source.values()])
    return len(identities) - len(np.unique(identities))


def leakage(source: Mapping[str, Words], targets: Mapping[str, Mapping[ModelSplit, Mask]]) -> int:
    """Return how many test rows are training rows too."""
    parts: dict[str, list[Words]] = {"train": [], "test": []}
    for name, masks in targets.items():
        for split, mask in masks.items():
            if split in parts:
                parts[split].append(source[name][mask, 0])
    return int(np.isin(np.concatenate(parts["test"]), np.concatenate(parts["train"])).sum())
