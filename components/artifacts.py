"""The artifacts of the steps: their JSON files as records, and functions to read and write them.

raw, features   schema.json, and for each split `train-00000-of-00008.npy`, `….targets.npy` and, if the source
                names its examples, `….names.json` (in features: for the test split only)
features        also normalization.json, statistics.json and hashes.npz
model           model.keras, model.onnx, saved_model/, signature.json
history         history.json
evaluation      decision.json, golden.json, metrics.json, report.html, training_hashes.npy

shards.py reads and writes the examples.
"""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from modelyard.components.errors import ConfigError, DataError

ModelSplit = Literal["train", "validation", "test"]
Dtype = Literal["uint8", "float32"]
Direction = Literal["higher", "lower"]
MAX_SMALL_FILE_BYTES = 2**20
MAX_REPORTED_ERRORS = 3
_ERROR_TEXTS = {"missing": "is missing", "extra_forbidden": "is not a key"}  # by pydantic's type of error
UNCHANGED = "unchanged"
"""The output of fingerprint if data, configuration and code are unchanged, so that the run ends."""


class Record(BaseModel):
    """An immutable value that is stored or sent as JSON; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # a step uses few of the classes


R = TypeVar("R", bound=Record)


def read(path: Path, record_class: type[R]) -> R:
    """Return the record in a JSON file.

    Raises:
        DataError: the file is missing or invalid.
    """
    try:
        return record_class.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing: the step that writes it did not finish. Run the step again."
        ) from error
    except ValidationError as error:
        raise DataError(
            f"{path} is damaged, or another version of modelyard wrote it ({describe_validation(error)}). "
            "Delete it, and run the command again."
        ) from error


def describe_validation(error: ValidationError) -> str:
    """Return the first errors of an invalid document, with their keys, without a full stop."""
    details = error.errors(include_url=False)
    texts = []
    for detail in details[:MAX_REPORTED_ERRORS]:
        key = ".".join(map(str, detail["loc"]))
        if text := _ERROR_TEXTS.get(detail["type"]):
            texts.append(f"{key} {text}")
        else:
            message = detail["msg"].removeprefix("Value error, ")
            texts.append(f"{key}: {message}" if key else message)
    rest = len(details) - MAX_REPORTED_ERRORS
    return "; ".join(texts) + (f"; and {rest} more" if rest > 0 else "")


def write(path: Path, record: Record) -> None:
    """Write a record as JSON, atomically."""
    write_text(path, record.model_dump_json(indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: other processes read the previous or the new text.

    Raises:
        OSError: the file cannot be written; `filename` is `path`, and the previous file is unchanged.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        error.filename, error.filename2 = str(path), None
        raise


def read_small_file(path: Path) -> bytes:
    """Return the content of a file that a user names, such as a configuration.

    Raises:
        OSError: the file cannot be read, is neither regular nor a pipe of the shell, or has more than
            MAX_SMALL_FILE_BYTES.
    """
    mode = path.stat().st_mode
    shell_pipe = stat.S_ISFIFO(mode) and path.is_relative_to("/dev")  # `<(…)`; others may have no writer
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or shell_pipe):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    with path.open("rb") as file:
        content = file.read(MAX_SMALL_FILE_BYTES + 1)
    if len(content) > MAX_SMALL_FILE_BYTES:
        raise OSError(errno.EINVAL, f"it has more than {MAX_SMALL_FILE_BYTES:,} bytes", str(path))
    return content


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `path` if the block succeeds, and is deleted if it fails."""
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
    """Return the SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_sha256(folder: Path) -> str:
    """Return a SHA-256 of the names and contents of all files below `folder` that `tree_files` yields."""
    digest = hashlib.sha256()
    for name, path in tree_files(folder):
        digest.update(f"{name}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def tree_bytes(folder: Path) -> int:
    """Return the total size of all files below `folder`, in bytes."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def tree_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the relative name and the path of each file below `folder`, sorted by name.

    Hidden files and `__pycache__` are excluded.

    Raises:
        ConfigError: a symbolic link to a folder, which would be skipped silently.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))
        if not hidden and path.is_symlink() and path.is_dir():
            raise ConfigError(
                f"{path} is a symbolic link to a folder and is not followed. Replace it with the folder."
            )
        if path.is_file() and not hidden:
            yield name, path


class Identity(Record):
    """The output of fingerprint for the later steps.

    `run` is the fingerprint of data, configuration and code: equal fingerprints give the same version. `data`
    is the fingerprint of the data. `champion` is the version that the candidate is compared with, 0 for none;
    `earlier` are previous champions that were not rolled back, the latest first. `manifests` has the SHA-256
    of their manifests, so that versions with these numbers in another store have another cache key.
    """

    run: str
    data: str
    champion: int = 0
    earlier: tuple[int, ...] = ()
    manifests: tuple[str, ...] = ()


def format_number(value: float) -> str:
    """Return a number as text: with four decimals, or with four or more significant digits."""
    if value == 0 or 1e-3 <= abs(value) < 10:
        return f"{value:.4f}"
    return f"{value:#.4g}".rstrip(".") if abs(value) < 1e4 else f"{value:,.0f}"


# Datasets ---------------------------------------------------------------------------------------


class ImageFormat(Record):
    """The shape to which images are resized, and how."""

    height: int
    width: int
    channels: Literal[1, 3]
    resize: Literal["stretch", "crop", "pad", "exact"]


class Schema(Record):
    """The format of a dataset (`schema.json`).

    `shape` and `dtype` are those of one example. `problem` is the kind of prediction, and `names` are the
    classes or targets. `splits` maps the name of each split to its number of examples: raw data has the
    splits of the source (`all` if it has none), features have train, validation and test. `image` is None if
    the examples are not images. `notes` explain how the source was interpreted. `skipped` are the first 100
    files that could not be read, with the reason.
    """

    shape: tuple[int, ...]
    dtype: Dtype
    problem: str
    names: tuple[str, ...]
    splits: dict[str, int]
    image: ImageFormat | None = None
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


class Normalization(Record):
    """The normalization of examples and targets, which is part of the model (`normalization.json`).

    The model computes `(x - mean) / scale` from an example; both have one value, or one per channel (the last
    axis). It returns `y * target_scale + target_mean`; both have one value, or one per target.
    """

    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    target_mean: tuple[float, ...] = (0.0,)
    target_scale: tuple[float, ...] = (1.0,)


class Duplicates(Record):
    """The number of duplicate examples, and some pairs of them, such as `row 3 of all and row 1 of all`."""

    count: int
    origins: tuple[str, ...] = ()


class Statistics(Record):
    """Statistics of a dataset (`statistics.json`).

    `targets` has statistics of each split, which depend on the problem. `duplicates` are examples equal to an
    earlier one, `conflicting_labels` those of them with another label, `leakage` test examples that are also
    training examples. `mean`, `minimum` and `maximum` are over all values of the training examples. `scaling`
    describes the normalization in the model.
    """

    targets: dict[str, dict[str, Any]]
    duplicates: Duplicates
    conflicting_labels: Duplicates
    leakage: Duplicates
    scaling: str
    mean: float
    minimum: float
    maximum: float


# Models -----------------------------------------------------------------------------------------


class Tensor(Record):
    """An input or an output of a model, as in the ONNX file.

    `shape` has no batch axis. `meaning` describes the values, `names` those along the last axis, if they have
    names. `image` is the format of images as inputs; None if the input is not an image.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Dtype
    meaning: str
    names: tuple[str, ...] = ()
    image: ImageFormat | None = None


class Signature(Record):
    """The input of the exported model, before normalization, and its output (`signature.json`)."""

    problem: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def input(self) -> Tensor:
        """The only input."""
        (tensor,) = self.inputs
        return tensor

    @property
    def output(self) -> Tensor:
        """The only output."""
        (tensor,) = self.outputs
        return tensor


class History(Record):
    """The training history (`history.json`).

    `metrics` maps the name of each metric to its value after each epoch. `settings` are the effective ones; a
    Keras object is `{"class_name": …, "config": {…}}`, with Keras' defaults. `resumed_after` is the number of
    epochs before the last interruption, 0 without one.
    """

    metrics: dict[str, list[float]]
    settings: dict[str, Any] = {}
    epochs: int
    stopped_early: bool
    resumed_after: int = 0
    seconds: float
    examples_per_second: float
    parameters: int
    packages: dict[str, str]


# Evaluation -------------------------------------------------------------------------------------


class Interval(Record):
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Metric(Interval):
    """The value of a metric; `direction` is whether higher or lower is better."""

    direction: Direction


class Slice(Record):
    """The metrics of a part of the test examples, such as a class; no metrics if there are no examples."""

    name: str
    examples: int
    values: dict[str, Metric]


class Comparison(Interval):
    """The gain of the candidate over another model on the same examples; a positive gain is better.

    `metric` is the compared metric, of all examples or of the slice `slice`. `other` is its value for the
    other model and `version` that model's version, None for the baseline. `at_least` is the lower limit of
    the one-sided 95 % interval of the gain.
    """

    metric: str
    slice: str = ""
    other: float
    version: int | None = None
    at_least: float


class PairedMetrics(Record):
    """Metrics of candidate and champion on the test examples that no champion was trained on."""

    examples: int
    candidate: dict[str, Metric]
    champion: dict[str, Metric]


class Metrics(Record):
    """The metrics of a candidate on the test examples, and its comparisons (`metrics.json`).

    `examples` is the number of test examples. `values` has the metrics by name; `primary` is shown in lists.
    `champion` is the primary metric of the champion, if there is one, and `gain` the gain over it.
    `same_examples` has the metrics of both models on the examples that no champion was trained on.
    `trained_on` maps the version of a champion to the test examples that it was trained on, if known.
    `comparisons` are with the best of the recent champions on `same_examples`. `baseline` has the metrics of
    the best constant prediction, and `baseline_comparison` compares the candidate with it. `details` depends
    on the problem.
    """

    problem: str
    examples: int
    primary: str
    values: dict[str, Metric]
    champion: Metric | None = None
    gain: Interval | None = None
    same_examples: PairedMetrics | None = None
    trained_on: dict[int, Duplicates] = {}
    baseline: dict[str, float] = {}
    baseline_comparison: Comparison | None = None
    comparisons: tuple[Comparison, ...] = ()
    slices: tuple[Slice, ...] = ()
    details: dict[str, Any] = {}

    @property
    def primary_metric(self) -> Metric:
        """The primary metric."""
        return self.values[self.primary]


class Golden(Record):
    """Golden requests (`golden.json`).

    `instances` are examples as nested lists, `predictions` the predictions of evaluate: (n, outputs). `scale`
    is the unit of the tolerance: one value, or one per output.
    """

    problem: str
    instances: list[Any]
    predictions: list[list[float]]
    scale: list[float] = [1.0]


class Rule(Record):
    """The result of a rule of the gate; `value` is None if the test examples give no value."""

    rule: str
    value: float | None
    limit: float
    passed: bool


class Decision(Record):
    """The decision of the gate, with the reason as a sentence (`decision.json`).

    `champion` is the version that the candidate was compared with, if any. `notes` are sentences about
    examples and champions that the rules do not cover.
    """

    decision: Literal["promote", "hold", "reject"]
    reason: str
    champion: int | None = None
    rules: tuple[Rule, ...] = ()
    notes: tuple[str, ...] = ()


# Versions in the model store ---------------------------------------------------------------------


class Manifest(Record):
    """The description of a version (`manifest.json`), written last: without it the version does not exist.

    `files` maps the relative path of each file to its SHA-256. `run` is the fingerprint of the run, `data` of
    the data, `recipe_sha256` of the recipe, and `code_sha256` of the user's model code, empty without code.
    `created` is an ISO 8601 time in UTC. `run_id` is the run that published the version: its name, or its ID
    on KFP; empty if it was published without a run.
    """

    model: str
    version: int
    run: str
    run_id: str = ""
    created: str
    data: str
    recipe_sha256: str
    code_sha256: str = ""
    config: dict[str, Any]
    files: dict[str, str]
    signature: Signature
    metrics: Metrics
    decision: Decision
    packages: Mapping[str, str]


class Prediction(Record):
    """The prediction of a deployed version for a golden request, as text, such as `frog`.

    `note` is an addition such as `0.9981`, the probability; it may be empty.
    """

    version: int
    text: str
    note: str


class Outcome(Record):
    """The result of deploy (`outcome.json`): `promote`, or `hold` if it did not promote the version."""

    version: int
    decision: Literal["promote", "hold"]
    reason: str
