"""The rows of a dataset on disk: written in shards of bounded size, read through memory maps.

    with ShardWriter(directory, "train", (32, 32, 3), "uint8") as writer:
        writer.append(examples, targets)
    for examples, targets in Split(directory, "train").batches(256): ...

Shards are plain `.npy` files: no decoding, no TensorFlow, and constant memory whatever the size.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

SHARD_BYTES = 64 * 2**20


class ShardWriter:
    """Writes one split of a dataset, in shards of bounded size, from batches of any size.

    Shards are named when their number is known, at the end of the `with` block.

    Args:
        directory: where the shards go; it exists.
        split: the split's name.
        shape: of one example.
        dtype: of the examples. Targets are int64, or float32 when they are floating point.
    """

    def __init__(self, directory: Path, split: str, shape: tuple[int, ...], dtype: str) -> None:
        self.rows = 0
        self._directory, self._split = directory, split
        self._shape, self._dtype = shape, np.dtype(dtype)
        row_bytes = max(1, int(np.prod(shape)) * self._dtype.itemsize)
        self._capacity = max(1, SHARD_BYTES // row_bytes)
        self._examples: list[NDArray[Any]] = []
        self._targets: list[NDArray[Any]] = []
        self._pending = 0
        self._shards = 0

    def append(self, examples: NDArray[Any], targets: NDArray[Any]) -> None:
        """Add rows: examples (n, *shape) and targets (n,)."""
        if examples.shape[1:] != self._shape or len(examples) != len(targets):
            raise ValueError(f"{examples.shape} and {targets.shape} are not rows of {self._shape}")
        dtype = np.float32 if targets.dtype.kind == "f" else np.int64
        start = 0
        while start < len(examples):
            stop = min(len(examples), start + self._capacity - self._pending)
            self._examples.append(np.array(examples[start:stop], self._dtype))
            self._targets.append(np.array(targets[start:stop], dtype))
            self._pending += stop - start
            self.rows += stop - start
            start = stop
            if self._pending == self._capacity:
                self._flush()

    def _flush(self) -> None:
        if self._pending:
            stem = f"{self._split}-{self._shards:05d}"
            np.save(self._directory / f"{stem}.npy", np.concatenate(self._examples))
            np.save(self._directory / f"{stem}.targets.npy", np.concatenate(self._targets))
            self._shards += 1
            self._examples, self._targets, self._pending = [], [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            return
        self._flush()
        for number in range(self._shards):
            stem = f"{self._split}-{number:05d}"
            for suffix in (".npy", ".targets.npy"):
                shard = self._directory / f"{stem}{suffix}"
                shard.rename(self._directory / f"{stem}-of-{self._shards:05d}{suffix}")


class Split:
    """One split of a dataset on disk, through memory maps.

    `len()` is the number of rows; `targets` is int64 or float32 of shape (rows,); `gather` takes any rows.
    """

    def __init__(self, directory: Path, split: str) -> None:
        shards = sorted(directory.glob(f"{split}-?????-of-?????.npy"))
        self._shards = [np.load(path, mmap_mode="r", allow_pickle=False) for path in shards]
        targets = [np.load(path.with_suffix(".targets.npy"), allow_pickle=False) for path in shards]
        self.targets: NDArray[Any] = np.concatenate(targets) if targets else np.empty(0, np.int64)
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def gather(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the examples at `rows`, in that order: (len(rows), *shape)."""
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        out = np.empty((len(rows), *self._shards[0].shape[1:]), self._shards[0].dtype)
        for number in np.unique(owner):
            mine = owner == number
            out[mine] = self._shards[number][rows[mine] - self._starts[number]]
        return out

    def batches(self, size: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield (examples, targets) in order, at most `size` rows at a time."""
        for start, shard in zip(self._starts, self._shards, strict=False):
            for offset in range(0, len(shard), size):
                rows = slice(offset, min(len(shard), offset + size))
                yield (
                    np.asarray(shard[rows]),
                    self.targets[start + rows.start : start + rows.stop],
                )
