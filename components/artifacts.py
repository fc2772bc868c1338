"""What passes between the steps: the files, their names, and how they are read and written.

raw, features   schema.json, and per split `train-00000-of-00008.npy` with `….labels.npy` beside it
features        also normalization.json and statistics.json
model           model.keras, model.onnx, saved_model/, signature.json
history         history.json
evaluation      decision.json, golden.json, metrics.json

Shards are plain `.npy` files, read through memory maps: no decoding, no TensorFlow, and constant memory
whatever the size of the dataset. Each artifact is written beside its place and moved there when it is
whole (`writing`), so that nobody ever sees a half-written one.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from components.errors import DataError

SHARD_BYTES = 64 * 2**20
ModelSplit = Literal["train", "validation", "test"]


class Record(BaseModel):
    """A small frozen value that crosses a border as JSON; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def canonical(self) -> str:
        """Return the one JSON text for this value: sorted keys, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


R = TypeVar("R", bound=Record)


def read(path: Path, kind: type[R]) -> R:
    """Read `kind` from the JSON file at `path`.

    Raises:
        DataError: the file is missing, or is not such a record.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; the step that writes it did not finish.") from error
    except ValidationError as error:
        raise DataError(f"{path} is not a {kind.__name__}: {error}") from error


def write(path: Path, record: Record) -> None:
    """Write `record` as indented JSON."""
    path.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give an empty directory that becomes `path` when the block ends well, and goes when it fails."""
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.is_dir():
            shutil.rmtree(path)
        partial.replace(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_sha256(folder: Path) -> str:
    """Return one SHA-256 over the names and contents of all files below `folder`.

    Hidden files, links and compiled Python are left out: they do not change what the code does.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))
        if path.is_file() and not path.is_symlink() and not hidden:
            digest.update(f"{name}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


# Datasets ---------------------------------------------------------------------------------------


class ImageFormat(Record):
    """How a picture of any size and mode becomes an example of one shape."""

    height: int
    width: int
    channels: Literal[1, 3]
    resize: Literal["stretch", "crop", "pad", "exact"]


class Schema(Record):
    """What every example of a dataset is (`schema.json`).

    `shape` is one example's, without the batch axis. `splits` maps a split's name to its rows: raw data
    has the source's own splits (`all` when it has none), features have train, validation and test.
    `image` is None when the examples did not come from pictures.
    """

    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32"]
    classes: tuple[str, ...]
    splits: dict[str, int]
    image: ImageFormat | None = None


class Normalization(Record):
    """What the model does to an example first (`normalization.json`): `(x - mean) / deviation`.

    `mean` and `deviation` have one value, or one per channel (the last axis).
    """

    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)


class Statistics(Record):
    """What preprocess saw (`statistics.json`).

    `rows` maps each split to its rows per class, in label order. `duplicates` counts the rows of the source
    that repeat an earlier one, `leakage` the test rows that are training rows too. `mean`, `minimum` and
    `maximum` are over all values of the training rows.
    """

    rows: dict[str, tuple[int, ...]]
    duplicates: int
    leakage: int
    mean: float
    minimum: float
    maximum: float


class ShardWriter:
    """Writes one split of a dataset, in shards of bounded size, from batches of any size.

    Shards are named when their number is known, at the end of the `with` block.

    Args:
        directory: where the shards go; it exists.
        split: the split's name.
        shape: of one example.
        dtype: of the examples; labels are int64.
    """

    def __init__(self, directory: Path, split: str, shape: tuple[int, ...], dtype: str) -> None:
        self.rows = 0
        self._directory, self._split = directory, split
        self._shape, self._dtype = shape, np.dtype(dtype)
        row_bytes = max(1, int(np.prod(shape)) * self._dtype.itemsize)
        self._capacity = max(1, SHARD_BYTES // row_bytes)
        self._examples: list[NDArray[Any]] = []
        self._labels: list[NDArray[np.int64]] = []
        self._pending = 0
        self._shards = 0

    def append(self, examples: NDArray[Any], labels: NDArray[Any]) -> None:
        """Add rows: examples (n, *shape) and labels (n,)."""
        if examples.shape[1:] != self._shape or len(examples) != len(labels):
            raise ValueError(f"{examples.shape} and {labels.shape} are not rows of {self._shape}")
        start = 0
        while start < len(examples):
            stop = min(len(examples), start + self._capacity - self._pending)
            self._examples.append(np.array(examples[start:stop], self._dtype))
            self._labels.append(np.array(labels[start:stop], np.int64))
            self._pending += stop - start
            self.rows += stop - start
            start = stop
            if self._pending == self._capacity:
                self._flush()

    def _flush(self) -> None:
        if self._pending:
            stem = f"{self._split}-{self._shards:05d}"
            np.save(self._directory / f"{stem}.npy", np.concatenate(self._examples))
            np.save(self._directory / f"{stem}.labels.npy", np.concatenate(self._labels))
            self._shards += 1
            self._examples, self._labels, self._pending = [], [], 0

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
            for suffix in (".npy", ".labels.npy"):
                shard = self._directory / f"{stem}{suffix}"
                shard.rename(self._directory / f"{stem}-of-{self._shards:05d}{suffix}")


class Split:
    """One split of a dataset on disk, through memory maps.

    `len()` is the number of rows; `labels` is int64 of shape (rows,); `gather` takes any rows.
    """

    def __init__(self, directory: Path, split: str) -> None:
        shards = sorted(directory.glob(f"{split}-?????-of-?????.npy"))
        self._shards = [np.load(path, mmap_mode="r", allow_pickle=False) for path in shards]
        labels = [np.load(path.with_suffix(".labels.npy"), allow_pickle=False) for path in shards]
        self.labels: NDArray[np.int64] = np.concatenate(labels) if labels else np.empty(0, np.int64)
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

    def batches(self, size: int) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
        """Yield (examples, labels) in order, at most `size` rows at a time."""
        for start, shard in zip(self._starts, self._shards, strict=False):
            for offset in range(0, len(shard), size):
                rows = slice(offset, min(len(shard), offset + size))
                yield (
                    np.asarray(shard[rows]),
                    self.labels[start + rows.start : start + rows.stop],
                )


# Models -----------------------------------------------------------------------------------------


class Signature(Record):
    """What the exported model takes and gives (`signature.json`).

    Input: `dtype` (batch, *shape), raw, as before any normalisation. Output: float32 probabilities
    (batch, len(classes)).
    """

    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32"]
    classes: tuple[str, ...]
    image: ImageFormat | None = None


class History(Record):
    """What training did, epoch by epoch (`history.json`): metric name to one value per epoch."""

    metrics: dict[str, list[float]]
    epochs: int
    stopped_early: bool
    seconds: float
    samples_per_second: float
    parameters: int
    packages: dict[str, str]


# Evaluation -------------------------------------------------------------------------------------


class Interval(Record):
    """An estimate with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class ClassMetrics(Record):
    """How one class fared; a metric without a denominator is None."""

    name: str
    rows: int
    precision: float | None
    recall: float | None
    f1: float | None


class Metrics(Record):
    """How the candidate, and the champion if there is one, did on the same test rows."""

    rows: int
    accuracy: Interval
    loss: float
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    champion_accuracy: Interval | None = None
    gain: Interval | None = None


class Golden(Record):
    """Requests with the answers that evaluate saw (`golden.json`): a real server must give the same.

    `instances` are raw examples as nested lists, `predictions` the probabilities (n, classes).
    """

    instances: list[Any]
    predictions: list[list[float]]
    tolerance: float = 1e-4


class Decision(Record):
    """What the gate decided, and why, in a sentence (`decision.json`).

    `champion` is the version that the candidate was compared with; None when there was none.
    """

    decision: Literal["promote", "hold", "reject"]
    reason: str
    champion: int | None = None


# Versions in the model store ---------------------------------------------------------------------


class Manifest(Record):
    """What a version is (`manifest.json`), written last: without it the version does not exist.

    `files` maps each file's path inside the version to its SHA-256. `run` is the fingerprint of data,
    config and code; `created` an ISO 8601 time in UTC.
    """

    model: str
    version: int
    run: str
    created: str
    data: str
    code: str
    config: dict[str, Any]
    files: dict[str, str]
    signature: Signature
    metrics: Metrics
    decision: Decision
    packages: Mapping[str, str]


class Outcome(Record):
    """How a run ended for its version (`outcome.json`): the gate's decision, unless deploy held it."""

    version: int
    decision: Literal["promote", "hold", "reject"]
    reason: str
