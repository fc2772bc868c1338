"""The examples of a dataset on disk: `.npy` shards of bounded size, read through memory maps.

    with ShardWriter(folder, "train", (32, 32, 3), "uint8") as writer:
        writer.append(examples, targets)
    for examples, targets in Split(folder, "train").batches(256): ...

`….names.json` has the names of examples in the source, such as the paths of images. hashes.npz, a part of the
features, has the hashes of the examples.
"""

import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from modelyard.components.artifacts import Schema
from modelyard.components.errors import DataError, describe

SHARD_BYTES = 64 * 2**20
PREFETCHED_ITEMS = 3
HASHES = "hashes.npz"
Hashes = NDArray[np.uint64]


class ExampleIndex(NamedTuple):
    """Hashes of examples and their origin in the source, one split of the source after the other.

    `splits` are the names of the splits, `ends` the cumulative numbers of their examples, and `rows` the row
    of each example in its split. All arrays are one-dimensional.
    """

    hashes: Hashes
    splits: tuple[str, ...]
    ends: NDArray[np.int64]
    rows: NDArray[np.int64]

    def origin(self, index: int) -> str:
        """Return the origin of an example, such as `row 12 of all`."""
        split = self.splits[int(np.searchsorted(self.ends, index, side="right"))]
        return f"row {self.rows[index]} of {split}"


def write_hashes(folder: Path, train: ExampleIndex, test: ExampleIndex) -> None:
    """Write the distinct hashes of the training examples, sorted, and the index of the test examples."""
    np.savez(folder / HASHES, train=np.unique(train.hashes), **test._asdict())


def read_hashes(folder: Path) -> tuple[Hashes, ExampleIndex]:
    """Return the hashes of the training examples, and the index of the test examples."""
    with np.load(folder / HASHES, allow_pickle=False) as arrays:
        splits = tuple(arrays["splits"].tolist())
        return arrays["train"], ExampleIndex(arrays["hashes"], splits, arrays["ends"], arrays["rows"])


T = TypeVar("T")


class ShardWriter:
    """Writes one split of a dataset to an existing folder, from batches of any size.

    `shape` is that of one example. Targets are written as float32 if they are floating point, else as int64.
    The files get their final names at the end of the `with` block, when the number of shards is known.
    """

    def __init__(self, folder: Path, split: str, shape: tuple[int, ...], dtype: str) -> None:
        self.count = 0
        self._folder, self._split = folder, split
        self._shape, self._dtype = shape, np.dtype(dtype)
        example_bytes = max(1, int(np.prod(shape)) * self._dtype.itemsize)
        self._capacity = max(1, SHARD_BYTES // example_bytes)
        self._file: BinaryIO | None = None
        self._targets: list[NDArray[Any]] = []
        self._names: list[str] = []
        self._pending = 0
        self._shards = 0

    def append(self, examples: NDArray[Any], targets: NDArray[Any], names: Sequence[str] = ()) -> None:
        """Write examples (n, *shape), targets (n,) and, if available, their names in the source."""
        if examples.shape[1:] != self._shape or len(examples) != len(targets):
            raise ValueError(f"examples {examples.shape} and targets {targets.shape}, shape {self._shape}")
        dtype = np.float32 if targets.dtype.kind == "f" else np.int64
        start = 0
        while start < len(examples):
            if self._file is None:
                self._file = (self._folder / f"{self._stem()}.npy").open("wb")
                self._write_header(self._file)
            stop = min(len(examples), start + self._capacity - self._pending)
            self._file.write(np.ascontiguousarray(examples[start:stop], self._dtype).data)
            self._targets.append(np.array(targets[start:stop], dtype))
            self._names.extend(names[start:stop])
            self._pending += stop - start
            self.count += stop - start
            start = stop
            if self._pending == self._capacity:
                self._finish()

    def _stem(self) -> str:
        return f"{self._split}-{self._shards:05d}"

    def _write_header(self, file: BinaryIO) -> None:
        """Write the header of the shard; its size does not depend on the number of examples."""
        shape = (self._pending, *self._shape)
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

    def _finish(self) -> None:
        if self._file:
            with self._file as file:
                file.seek(0)
                self._write_header(file)
            np.save(self._folder / f"{self._stem()}.targets.npy", np.concatenate(self._targets))
            if any(self._names):
                (self._folder / f"{self._stem()}.names.json").write_text(json.dumps(self._names))
            self._shards += 1
            self._file, self._targets, self._names, self._pending = None, [], [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            if self._file:
                self._file.close()
            return
        self._finish()
        for number in range(self._shards):
            stem = f"{self._split}-{number:05d}"
            for suffix in (".npy", ".targets.npy", ".names.json"):
                shard = self._folder / f"{stem}{suffix}"
                if shard.exists():
                    shard.rename(self._folder / f"{stem}-of-{self._shards:05d}{suffix}")


class Split:
    """A split of a dataset on disk; `targets` is int64 or float32 of shape (n,), for n examples."""

    def __init__(self, folder: Path, split: str) -> None:
        shards = sorted(folder.glob(f"{split}-?????-of-?????.npy"))
        self._shards = [np.load(path, mmap_mode="r", allow_pickle=False) for path in shards]
        targets = [np.load(path.with_suffix(".targets.npy"), allow_pickle=False) for path in shards]
        self.targets: NDArray[Any] = np.concatenate(targets) if targets else np.empty(0, np.int64)
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])
        self._names = [path.with_suffix(".names.json") for path in shards]
        self._cached_names: tuple[int, list[str]] = (-1, [])

    @classmethod
    def open(cls, folder: Path, name: str, schema: Schema, remedy: str) -> "Split":
        """Open a split and check it against the schema; `remedy` is the last sentence of a DataError."""
        try:
            split = cls(folder, name)
        except (OSError, ValueError, EOFError) as error:
            reason = f"cannot be read: {describe(error)}"
            raise DataError(f"The split {name} in {folder} {reason} {remedy}") from error
        count, mismatch = schema.splits.get(name, 0), ""
        if not len(split) == len(split.targets) == count:
            mismatch = f"{len(split)} examples and {len(split.targets)} targets, but schema.json says {count}"
        for shard in split._shards:
            if shard.shape[1:] != schema.shape or shard.dtype != schema.dtype:
                expected = f"{schema.dtype} {schema.shape}"
                mismatch = f"examples of {shard.dtype} {shard.shape[1:]}, but schema.json says {expected}"
        if mismatch:
            raise DataError(f"The split {name} in {folder} has {mismatch}. {remedy}")
        return split

    def __len__(self) -> int:
        return int(self._starts[-1])

    def gather(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Return the examples at `indices`, in that order: (len(indices), *shape)."""
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        out = np.empty((len(indices), *self._shards[0].shape[1:]), self._shards[0].dtype)
        for number in np.unique(shards):
            mask = shards == number
            out[mask] = self._shards[number][indices[mask] - self._starts[number]]
        return out

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        """Return the names of examples in the source, "" without a name. Ascending indices are fastest."""
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        names = []
        for shard, index in zip(shards.tolist(), (indices - self._starts[shards]).tolist(), strict=True):
            if shard != self._cached_names[0]:
                path = self._names[shard]
                self._cached_names = shard, json.loads(path.read_bytes()) if path.exists() else []
            names.append(self._cached_names[1][index] if self._cached_names[1] else "")
        return names

    def batches(self, size: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield (examples, targets) in order, at most `size` examples at a time.

        The examples are copied from the files, because memory maps count as memory of the process.
        """
        for start, shard in zip(self._starts, self._shards, strict=False):
            example_bytes = shard[:1].nbytes
            for first in range(0, len(shard), size):
                count = min(size, len(shard) - first)
                values = np.fromfile(
                    shard.filename,
                    shard.dtype,
                    count * example_bytes // shard.itemsize,
                    offset=shard.offset + first * example_bytes,
                )
                targets = self.targets[start + first : start + first + count]
                yield values.reshape(count, *shard.shape[1:]), targets


def write_splits(
    folder: Path,
    splits: Sequence[str],
    shape: tuple[int, ...],
    dtype: str,
    batches: Iterator[tuple[str, NDArray[Any], NDArray[Any], Sequence[str]]],
) -> dict[str, int]:
    """Write batches to their splits, and return the number of examples of each split.

    A batch is (split, examples, targets, names); see `ShardWriter.append`.
    """
    with ExitStack() as stack:
        writers = {split: stack.enter_context(ShardWriter(folder, split, shape, dtype)) for split in splits}
        for split, examples, targets, names in prefetch(batches):
            writers[split].append(examples, targets, names)
    return {split: writer.count for split, writer in writers.items()}


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """Yield the items, and compute the next ones in a thread at the same time."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        pending = deque(thread.submit(next, items, end) for _ in range(PREFETCHED_ITEMS))
        while (item := pending.popleft().result()) is not end:
            pending.append(thread.submit(next, items, end))
            yield cast(T, item)
