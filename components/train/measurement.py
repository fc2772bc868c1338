"""Requests and results of the measurements of `modelyard plan`; this module does not import TensorFlow.

Sizes are in bytes, times in seconds.
"""

from modelyard.components.artifacts import Normalization, Record, Schema
from modelyard.components.train.settings import Model, Training


class TrainingWorkload(Record):
    """A model, its training settings and its data.

    `code` and `code_sha256` are those of TrainSpec, `code` as JSON. `training_examples` and
    `validation_examples` are numbers of examples. `features` is the output folder of preprocess; empty
    without one.
    """

    example_schema: Schema
    normalization: Normalization
    model: Model
    training: Training
    code: str = ""
    code_sha256: str = ""
    training_examples: int
    validation_examples: int = 0
    features: str = ""


class Cost(Record):
    """Memory and floating-point operations of one training step.

    `weights`, `gradients` and `optimizer` are exact. `flops` is counted by TensorFlow's profiler in the graph
    of a step with a batch of `batch_size`; `uncounted` lists the operations that it cannot count.
    `activations` are the tensors that the forward pass stores for the gradients, and `largest_operation`
    the inputs and outputs of the largest operation on them.
    """

    parameters: int
    weights: int
    gradients: int
    optimizer: int
    batch_size: int
    flops: int
    uncounted: tuple[str, ...]
    activations: int
    largest_operation: int


class ProbeRequest(Record):
    """A request to measure training steps for `seconds`, on random examples if there are no features."""

    workload: TrainingWorkload
    seconds: float = 20.0


class Pace(Record):
    """A linear model of the time of `n` batches: `fixed + n * per_batch`.

    `low` and `high` are the 10 % and 90 % quantiles of the measured times of many batches, relative to their
    mean.
    """

    fixed: float
    per_batch: float
    low: float
    high: float

    def seconds(self, count: float) -> float:
        """Return the time of a number of batches."""
        return self.fixed + count * self.per_batch if count else 0.0


class ProbeResult(Record):
    """Times and memory of real training steps on `device`.

    `load` is the number of runnable processes per core in the preceding minute. `synthetic` is whether the
    examples were random. `seconds` is the time of the
    probe without imports, `setup` the part of it that opens the data and builds the model, `compile` the time
    of compilation in the first steps, `export` the time of all exports in the step `train`. `epoch`
    is the pace of training steps, `validation` that of validation batches. `memory` is the peak of the
    process, `device_memory` that of a GPU, and `model_bytes` the size of the exported files.
    """

    device: str
    load: float
    synthetic: bool
    seconds: float
    setup: float
    compile: float
    export: float
    epoch: Pace
    validation: Pace | None
    memory: int
    device_memory: int | None
    model_bytes: int


class CurvePoint(Record):
    """The validation error of a model that is trained on a number of examples, with an 80 % interval."""

    examples: int
    error: float
    low: float
    high: float


class LearningCurve(Record):
    """The validation error as a function of the number of training examples.

    `measure` is the name of the error. `points` are measured, `extrapolated` follow from the power law
    `a * examples^-b + c`. `reason` is why `extrapolated` is empty.
    """

    measure: str
    points: tuple[CurvePoint, ...]
    extrapolated: tuple[CurvePoint, ...]
    reason: str | None
