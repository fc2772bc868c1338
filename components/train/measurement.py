"""What `modelyard plan` asks about a model, and the answers; read without TensorFlow.

Sizes are in bytes, times in seconds.
"""

from modelyard.components.artifacts import Normalization, Record, Schema
from modelyard.components.train.settings import Model, Training


class TrainingWorkload(Record):
    """A model and its data.

    `code` and `code_sha256` are those that the step `train` gets. `rows` and `validation` are the examples of
    each split. `features` is the folder that preprocess wrote; empty when there is none.
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
    """What one training step takes.

    `weights`, `gradients` and `optimizer` are exact. `flops` are those that TensorFlow's profiler counts in
    the graph of a step with a batch of `batch_size`; `uncounted` names the operations of the graph that it
    cannot count. `activations` are the tensors that the forward pass keeps for the gradients, and `working`
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
    working: int


class ProbeRequest(Record):
    """A probe: the model, and for how long its steps are timed. Without features it makes random ones."""

    workload: TrainingWorkload
    seconds: float = 20.0


class Pace(Record):
    """The time of `n` repetitions: `fixed + n * each`.

    `low` and `high` are the 10 % and 90 % quantiles of the measured windows, relative to their mean.
    """

    fixed: float
    each: float
    low: float
    high: float

    def seconds(self, count: float) -> float:
        """Return the time of `count` repetitions."""
        return self.fixed + count * self.each if count else 0.0


class ProbeResult(Record):
    """What real training steps took on `device`.

    `load` is the number of runnable processes per core in the minute before. `inside` is the time between the
    imports and the end, `setup` the part of it that opens the data and builds the model, `compile` what the
    first steps take beyond their time, `export` the time of all exports that the step `train` makes. `epoch`
    counts training steps, `validation` batches of validation. `memory` is the peak of the process,
    `device_memory` that of a GPU; `model_bytes` the size of the exported files.
    """

    device: str
    load: float
    synthetic: bool
    inside: float
    setup: float
    compile: float
    export: float
    epoch: Pace
    validation: Pace | None
    memory: int
    device_memory: int | None
    model_bytes: int


class CurvePoint(Record):
    """The error of a model that was trained on `rows` examples, on the validation rows; an 80 % interval."""

    rows: int
    error: float
    low: float
    high: float


class LearningCurve(Record):
    """How the error on the validation rows falls with more examples.

    `measure` says what the error is. `points` were trained, `beyond` is extrapolated by `a * rows^-b + c`;
    empty where `refused` says why not.
    """

    measure: str
    points: tuple[CurvePoint, ...]
    beyond: tuple[CurvePoint, ...]
    refused: str | None
