"""The plan as a record, which `modelyard plan --output json` prints; its formulas, and its file.

<home>/plans/<key>.json    the last plan of a configuration in an environment

Sizes are in bytes, times in seconds, costs in USD. Unknown values are None.
"""

import hashlib
import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Literal

from modelyard.components.artifacts import Record, read, write
from modelyard.components.errors import DataError
from modelyard.components.train.measurement import Cost, LearningCurve, ProbeResult
from modelyard.components.train.settings import Training
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment

HOUR = 3600.0
FITS_BELOW, DOES_NOT_FIT_ABOVE = 0.8, 0.95  # shares of the device memory
EXPORTS = 3  # .keras, ONNX and SavedModel each contain the weights
ESTIMATE_ERROR = 0.15  # published predictors have errors of 5 to 12 % with a profile of the same hardware
Fit = Literal["fits", "uncertain", "does not fit"]


class Memory(Record):
    """The device memory of a training step.

    `weights`, `gradients` and `optimizer` are exact: together 16 bytes per parameter with Adam in float32.
    `activations` are stored for the gradients; `largest_operation` is the memory of the largest operation on
    them. Both grow with the batch.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    largest_operation: int
    batch_size: int

    @property
    def fixed(self) -> int:
        """The memory that does not depend on the batch."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """The memory of a step."""
        return self.fixed + self.activations + self.largest_operation

    def fit(self, capacity: float) -> Fit:
        """Return whether a step fits; libraries, kernels and fragmentation need the rest of the memory."""
        if self.weights + self.optimizer > DOES_NOT_FIT_ABOVE * capacity:
            return "does not fit"
        return "fits" if self.total < FITS_BELOW * capacity else "uncertain"

    def largest_batch(self, capacity: float) -> int:
        """Return the estimated largest batch that fits; 0 if no example fits."""
        per_example = (self.activations + self.largest_operation) / self.batch_size
        return max(0, int((FITS_BELOW * capacity - self.fixed) / per_example)) if per_example else 0


class Storage(Record):
    """Bytes that a run writes: the examples in `shards`, the exported `model`, and a `checkpoint`."""

    shards: int
    model: int
    checkpoint: int

    @property
    def run(self) -> int:
        """The bytes that remain: the outputs of ingest and preprocess, and the model."""
        return 2 * self.shards + self.model


class Estimate(Record):
    """A number with its interval; `high` is None if there is no upper limit."""

    value: float
    low: float
    high: float | None

    def scale(self, factor: float, bounded: bool = True) -> "Estimate":
        """Return this estimate times `factor`; without an upper limit unless `bounded`."""
        high = self.high * factor if bounded and self.high is not None else None
        return Estimate(value=self.value * factor, low=self.low * factor, high=high)


class TrainTime(Record):
    """The time of the step `train`, from a probe: start + compile + epochs * epoch + export.

    `epoch` includes `validation`. With early stopping, the lower limit is for the minimum number of epochs.
    """

    start: float
    compile: float
    epoch: float
    validation: float
    step: float
    export: float
    epochs: int
    total: Estimate


class AcceleratorOption(Record):
    """An accelerator: whether the model fits, the largest batch that fits, and the price per hour."""

    accelerator: str
    count: int
    memory: float
    fit: Fit
    largest_batch: int
    on_demand: float | None
    spot: float | None
    note: str = ""


class TrainingCost(Record):
    """The price per hour and the cost of training, if its time is known; `note` is the price's origin."""

    per_hour: float
    train: Estimate | None
    note: str


class Plan(Record):
    """The resources of a run in an environment.

    Attributes:
        examples: the number of examples of each split.
        targets: a description of the targets, if the data was prepared.
        device: the device that trains.
        capacity: the memory of the device.
        uncounted: operations that `flops_per_step` does not include.
        out_of_memory: the message of a probe that ran out of memory.
        errors: the reasons why the run cannot succeed, with remedies.
        exceeded_limits: the limits that the run exceeds, with remedies.
    """

    model: str
    environment: str
    created: str
    parameters: int
    examples: dict[str, int]
    targets: str
    device: str
    capacity: float | None
    memory: Memory
    fit: Fit | None
    flops_per_step: int
    steps: int
    uncounted: tuple[str, ...]
    storage: Storage
    probe: ProbeResult | None
    probed_at: str | None
    out_of_memory: str | None
    train: TrainTime | None
    cost: TrainingCost | None
    options: tuple[AcceleratorOption, ...]
    price_date: str
    learning_curve: LearningCurve | None
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    exceeded_limits: tuple[str, ...] = ()


def estimate_memory(cost: Cost) -> Memory:
    """Return the memory of a training step."""
    return Memory(**cost.model_dump(include=set(Memory.model_fields)))


def estimate_storage(shards: int, cost: Cost, probe: ProbeResult | None, training: Training) -> Storage:
    """Return the storage of a run; with early stopping, a checkpoint also contains the best weights."""
    return Storage(
        shards=shards,
        model=probe.model_bytes if probe else EXPORTS * cost.weights,
        checkpoint=cost.weights * (2 if training.early_stopping else 1) + cost.optimizer,
    )


def estimate_train_time(
    probe: ProbeResult, wall_seconds: float, training: Training, examples: dict[str, int]
) -> TrainTime:
    """Return the time of the step `train` on the probed machine.

    `wall_seconds` is the duration of the probe's process or pod in seconds. `examples` are numbers by split.
    """

    def count_batches(split: str) -> int:
        return math.ceil(examples.get(split, 0) / training.batch_size)

    validation = probe.validation.seconds(count_batches("validation")) if probe.validation else 0.0
    epoch = probe.epoch.seconds(count_batches("train")) + validation
    start = max(0.0, wall_seconds - probe.seconds) + probe.setup
    fixed = start + probe.compile + probe.export
    load = max(1.0, probe.load)  # a busy machine makes the estimate uncertain in both directions
    low, high = min(1 - ESTIMATE_ERROR, probe.epoch.low), max(1 + ESTIMATE_ERROR, probe.epoch.high)
    return TrainTime(
        start=start,
        compile=probe.compile,
        epoch=epoch,
        validation=validation,
        step=probe.epoch.per_batch,
        export=probe.export,
        epochs=training.epochs,
        total=Estimate(
            value=fixed + training.epochs * epoch,
            low=(fixed * (1 - ESTIMATE_ERROR) + training.min_epochs * epoch * low) / load,
            high=(fixed * (1 + ESTIMATE_ERROR) + training.epochs * epoch * high) * load,
        ),
    )


def find_exceeded_limits(
    plan: Plan, environment: Environment, training: Training, budget: float | None = None
) -> tuple[str, ...]:
    """Return the limits that a run exceeds: the budget in USD and the timeouts of its environment.

    With early stopping, the timeouts are compared with the time of the minimum number of epochs.
    """
    exceeded = []
    if plan.train and environment.on_cluster:
        may_stop_early = training.min_epochs < training.epochs
        duration = plan.train.total.low if may_stop_early else plan.train.total.value
        timeout, deadline = environment.resources("train").timeout, environment.active_deadline
        for key, limit in (("steps.train.timeout", timeout), ("active_deadline", deadline)):
            if limit and duration > limit:
                exceeded.append(
                    f"train takes {'at least ' if may_stop_early else ''}{duration / HOUR:.3g} h, more than "
                    f"environment.{key}, {limit / HOUR:.3g} h: increase it, or reduce training.epochs"
                )
    if budget is not None:
        cost = plan.cost.train if plan.cost else None
        if cost is None:
            remedy = "the price: set --price" if plan.train else "the time: run `modelyard plan --probe`"
            exceeded.append(f"--budget {budget:g} USD cannot be checked without {remedy}")
        elif cost.value > budget:
            exceeded.append(
                f"train costs {cost.value:,.2f} USD, more than --budget {budget:g} USD: reduce "
                "training.epochs, or use another machine"
            )
    return tuple(exceeded)


def compute_plan_key(config: Config, environment: Environment) -> str:
    """Return the key of a plan: a hash of everything that affects the time of a run.

    The configuration must be that of `uploads.prepare_uploads`, which names local data and code by content.

    Raises:
        ModelyardError: the code of the configuration cannot be read.
    """
    model = {**config.model.model_dump(mode="json"), "code": config.code_sha256()}
    sections = [config.source().to_json(), config.preparation().to_json(), model, config.training.recipe()]
    machine = [environment.kind, environment.resources("train").to_json()]
    machine += [environment.keras_backend, environment.pipeline_root or ""]
    return hashlib.sha256(json.dumps([sections, machine], sort_keys=True).encode()).hexdigest()[:16]


def save_plan(home: Path, key: str, plan: Plan) -> None:
    """Write a plan to its file, without `exceeded_limits`.

    Raises:
        OSError: the file cannot be written.
    """
    write(home / "plans" / f"{key}.json", plan.model_copy(update={"exceeded_limits": ()}))


def load_plan(home: Path, key: str) -> Plan | None:
    """Return the last plan of a configuration, if there is one."""
    with suppress(DataError, OSError):
        return read(home / "plans" / f"{key}.json", Plan)
    return None
