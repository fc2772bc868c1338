"""What passes between the steps: the files, their names, and how they are read and written.

raw, features   schema.json, and per split `train-00000-of-00008.npy` with `….targets.npy` beside it, and
                `….names.json` where the source names its rows (of features: the test rows)
features        also normalization.json, statistics.json and hashes.npz
model           model.keras, model.onnx, saved_model/, signature.json
history         history.json
evaluation      decision.json, golden.json, metrics.json, report.html, training_hashes.npy

The records are here, the shards in shards.py. Each artifact is written beside its place and moved there
when it is whole (`replace_folder`), so that nobody ever sees a half-written one.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from modelyard.components.errors import ConfigError, DataError

ModelSplit = Literal["train", "validation", "test"]
Dtype = Literal["uint8", "float32"]
Direction = Literal["higher", "lower"]
UNCHANGED = "unchanged"
"""What fingerprint gives instead of the data's fingerprint when nothing is new and the run is to end."""


class Record(BaseModel):
    """A small frozen value that crosses a border as JSON; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # a step uses few of them


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
        problems = ((".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors())
        said = "; ".join(f"{key}: {message}" if key else message for key, message in problems)
        raise DataError(
            f"{path} is not a {kind.__name__}: {said}. It was damaged, or another version of modelyard wrote "
            "it: run its step again, or remove it."
        ) from error


def write(path: Path, record: Record) -> None:
    """Write `record` as indented JSON; see `write_text`."""
    write_text(path, record.model_dump_json(indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file: another process sees it whole or not at all, or as it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
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

    Hidden files and compiled Python are left out: they do not change what the code does.

    Raises:
        ConfigError: there is a link to a folder, whose content would not be seen.
    """
    digest = hashlib.sha256()
    for name, path in tree_files(folder):
        digest.update(f"{name}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def tree_bytes(folder: Path) -> int:
    """Return the bytes of all files below `folder`."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def tree_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield what counts for `tree_sha256`, in order: each file's name below `folder`, and its path."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))
        if not hidden and path.is_symlink() and path.is_dir():
            raise ConfigError(f"{path} is a link to a folder, which is not followed. Put the folder there.")
        if path.is_file() and not hidden:
            yield name, path


class Identity(Record):
    """What fingerprint says of a run, to the steps behind it, as one JSON text.

    `run` is the fingerprint of data, configuration and code: the same run gives the same version. `data` is
    the fingerprint of the data. `champion` is the version that the candidate is compared with; 0 when there
    is none. `earlier` are the champions before it that still count, the latest first.
    """

    run: str
    data: str
    champion: int = 0
    earlier: tuple[int, ...] = ()


def format_number(value: float) -> str:
    """Return a number as people read it: with four decimals below 10, else with four digits or more."""
    if value == 0 or 1e-3 <= abs(value) < 10:
        return f"{value:.4f}"
    return f"{value:#.4g}".rstrip(".") if abs(value) < 1e4 else f"{value:,.0f}"


# Datasets ---------------------------------------------------------------------------------------


class ImageFormat(Record):
    """How a picture of any size and mode becomes an example of one shape."""

    height: int
    width: int
    channels: Literal[1, 3]
    resize: Literal["stretch", "crop", "pad", "exact"]


class Schema(Record):
    """What every example of a dataset is (`schema.json`).

    `shape` is one example's, without the axis of rows. `problem` is the kind of its target, and `names` are
    those of the values of an answer: the classes, or the targets. `splits` maps a split's name to its rows:
    raw data has the source's own splits (`all` when it has none), features have train, validation and test.
    `image` is None when the examples did not come from pictures. `notes` are sentences on how the source
    became examples, where that needed a decision, and `skipped` files that were left out as unusable, with
    the reason: the first 100 of them.
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
    """What the model does to an example and to its answer (`normalization.json`).

    An example becomes `(x - mean) / deviation` first; both have one value, or one per channel (the last
    axis). What the layers give becomes `y * target_deviation + target_mean` in the end; both have one value,
    or one per target. They are of the training rows.
    """

    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)
    target_mean: tuple[float, ...] = (0.0,)
    target_deviation: tuple[float, ...] = (1.0,)


class Duplicates(Record):
    """How many rows repeat another one, and examples: pairs of rows of the source."""

    count: int
    examples: tuple[str, ...] = ()


class Statistics(Record):
    """What preprocess saw (`statistics.json`).

    `targets` is what the problem says of the targets of each split. `duplicates` are the rows of the source
    that repeat an earlier one, `conflicting_labels` those of them that have another label, `leakage` the test
    rows that are training rows too. `mean`, `minimum` and `maximum` are over all values of the training rows.
    `scaling` says what the model does to them, in a sentence.
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

    `shape` is one example's or answer's, without the axis of rows. `meaning` says in a few words what the
    values are, and `names` what the values along the last axis are called, where they have names. `image`
    says how pictures become such an input; None when they do not.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Dtype
    meaning: str
    names: tuple[str, ...] = ()
    image: ImageFormat | None = None


class Signature(Record):
    """What the exported model takes, raw, as before any normalisation, and gives (`signature.json`)."""

    problem: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def input(self) -> Tensor:
        """The only input."""
        (one,) = self.inputs
        return one

    @property
    def output(self) -> Tensor:
        """The only output."""
        (one,) = self.outputs
        return one


class History(Record):
    """What training did, epoch by epoch (`history.json`): metric name to one value per epoch.

    `resumed_after` are the epochs that an earlier attempt had finished, before it was cut off. `settings` are
    those that were in effect; an object of Keras is `{"class_name": …, "config": {…}}` with Keras' defaults.
    """

    metrics: dict[str, list[float]]
    settings: dict[str, Any] = {}
    epochs: int
    stopped_early: bool
    resumed_after: int = 0
    seconds: float
    samples_per_second: float
    parameters: int
    packages: dict[str, str]


# Evaluation -------------------------------------------------------------------------------------


class Interval(Record):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


class Metric(Interval):
    """A measured number, and whether a higher or a lower one is better."""

    direction: Direction


class Slice(Record):
    """How the model did on the test rows of one kind, such as a class; no value where there are no rows."""

    name: str
    rows: int
    values: dict[str, Metric]


class Comparison(Interval):
    """By how much the candidate is better than another model on the same rows: positive is better.

    `metric` is what is compared, of all rows or of the slice `slice`. `other` is the other's value and
    `version` its version, None for a constant prediction. The gain is at least `at_least` in 95 % of all
    cases, the one-sided limit.
    """

    metric: str
    slice: str = ""
    other: float
    version: int | None = None
    at_least: float


class PairedMetrics(Record):
    """Metrics of candidate and champion on the same test rows: those that no champion was trained on."""

    rows: int
    candidate: dict[str, Metric]
    champion: dict[str, Metric]


class Metrics(Record):
    """How the candidate, and the champion if there is one, did on the test rows.

    `values` maps a metric's name to what was measured, `primary` names the one that stands for them in lists.
    `champion` is the primary metric of the champion, `gain` how much better the candidate is on the same
    rows: positive is better, in either direction; `same_rows` has all metrics of both. `baseline` are metrics
    of a constant prediction, and `constant` compares the candidate with it. `comparisons` are with the best
    of the recent champions, on the rows of `same_rows`. `trained_on` has the test rows that a champion was
    trained on, by version, where the version has a record of its training rows. `details` is the problem's
    own.
    """

    problem: str
    rows: int
    primary: str
    values: dict[str, Metric]
    champion: Metric | None = None
    gain: Interval | None = None
    same_rows: PairedMetrics | None = None
    trained_on: dict[int, Duplicates] = {}
    baseline: dict[str, float] = {}
    constant: Comparison | None = None
    comparisons: tuple[Comparison, ...] = ()
    slices: tuple[Slice, ...] = ()
    details: dict[str, Any] = {}

    @property
    def primary_metric(self) -> Metric:
        """The primary metric."""
        return self.values[self.primary]


class Golden(Record):
    """Requests with the answers that evaluate saw (`golden.json`): a real server must give the same.

    `instances` are raw examples as nested lists, `predictions` the answers (n, values of an answer). `scale`
    is what a tolerance is relative to: one value, or one for each value of an answer.
    """

    problem: str
    instances: list[Any]
    predictions: list[list[float]]
    scale: list[float] = [1.0]


class Rule(Record):
    """A rule of the gate: passed when `value` is above `limit`, or on the right side of it.

    `value` is None when the test rows do not give one.
    """

    rule: str
    value: float | None
    limit: float
    passed: bool


class Decision(Record):
    """What the gate decided, and why, in a sentence (`decision.json`).

    `champion` is the version that the candidate was compared with; None when there was none. `rules` are all
    that were looked at, `notes` what they cannot judge.
    """

    decision: Literal["promote", "hold", "reject"]
    reason: str
    champion: int | None = None
    rules: tuple[Rule, ...] = ()
    notes: tuple[str, ...] = ()


# Versions in the model store ---------------------------------------------------------------------


class Manifest(Record):
    """What a version is (`manifest.json`), written last: without it the version does not exist.

    `files` maps each file's path inside the version to its SHA-256. `run` is the fingerprint of data,
    config and code, `data` of the data, `recipe_sha256` of the configuration and the code that decide the
    result, `code_sha256` of the user's own model code, empty without it; `created` is an ISO 8601 time (UTC).
    `run_id` is the run that published the version: its name, or its id on KFP; empty when none did.
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
    """What the deployed server answered over HTTP to one of the version's golden requests, as text."""

    version: int
    answer: str
    note: str


class Outcome(Record):
    """How a run ended for its version (`outcome.json`): the gate's decision, unless deploy held it."""

    version: int
    decision: Literal["promote", "hold", "reject"]
    reason: str
