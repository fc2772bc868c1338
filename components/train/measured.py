"""What tracing and probing a model found, as they hand it over: JSON, read without TensorFlow.

Sizes are in bytes, times in seconds, arithmetic in floating-point operations.
"""

from typing import Any

from modelyard.components.artifacts import Normalization, Record, Schema

ANSWER = "probed: "  # before what a probe prints


class Question(Record):
    """The model that is asked about.

    `code` and `code_sha256` are what the step `train` gets. `rows` is how many training rows an epoch has,
    `validation` how many follow it; None when nobody knows.
    """

    examples: Schema
    normalization: Normalization
    architecture: dict[str, Any]
    training: dict[str, Any]
    code: str = ""
    code_sha256: str = ""
    rows: int | None = None
    validation: int | None = None


class Traced(Record):
    """What a training step is made of, exactly, as long as `lower_bound` is empty.

    `flops` are those of one step with a full batch, `backward` the part of the gradients; `batch_size` is as
    many rows as there are, if they are fewer than a batch. `activations` is what the forward pass keeps for
    the backward pass, an upper bound, as memory is reused. `working` and `updating` are what the largest
    operation holds of the batch, and of what is shaped as the variables. `optimizer` are the bytes of the
    optimizer's variables.
    """

    parameters: int
    trainable: int
    weights: int
    gradients: int
    optimizer: int
    batch_size: int
    flops: int
    backward: int
    lower_bound: tuple[str, ...]
    activations: int
    working: int
    updating: int
    batch: int
    dtype: str
    seconds: float


class Trial(Record):
    """What is to be probed, and for how long.

    `features` is the folder that preprocess wrote; empty for rows of noise of the same shape.
    """

    question: Question
    features: str = ""
    seconds: float = 20.0


class Pace(Record):
    """How long n of something take: `fixed + n * each`; `low` and `high` are what windows took of that.

    `low` and `high` are the 10 % and 90 % quantiles of measured by expected time, over `windows` windows of
    `count` each.
    """

    fixed: float
    each: float
    windows: int
    low: float
    high: float
    count: int = 1

    def seconds(self, count: float) -> float:
        """Return how long `count` of them take."""
        return self.fixed + count * self.each if count else 0.0


class Probed(Record):
    """What real steps took, on this machine.

    `inside` is the time between the imports and the end, `age` that since the process began, where the system
    tells. `load` is how many processes wanted each core in the minute before. `export` is the first one,
    which imports what it needs, `export_again` another. `first_epoch` is what the first call takes beyond its
    steps: tracing, compiling. `epoch` counts training steps with the real input, `compute` and `half` those
    of a batch in memory (the whole batch, half of it), `input` batches read without training; `validation`
    batches of validation. `score` is what ONNX Runtime takes for a row. `memory` is the highest resident
    memory of the process; `device_memory` that of the accelerator, None on a processor.
    """

    device: str
    backend: str
    age: float | None
    load: float
    synthetic: bool
    steps: int
    inside: float
    opening: float
    building: float
    export: float
    export_again: float
    first_epoch: float
    first_validation: float
    epoch: Pace
    validation: Pace | None
    compute: Pace
    half: Pace | None
    input: Pace
    score: float
    memory: int
    device_memory: int | None
    model_bytes: int
    traced: Traced


class CurvePoint(Record):
    """The share of validation rows that a model of so many rows gets wrong, with an 80 % interval."""

    rows: int
    error: float
    low: float
    high: float


class LearningCurve(Record):
    """How the error falls as rows grow: `points` are trained, `beyond` is `a · rows^-b + c` through them.

    `refused` says why nothing is extrapolated; then `beyond` is empty.
    """

    points: tuple[CurvePoint, ...]
    beyond: tuple[CurvePoint, ...]
    exponent: float | None
    floor: float | None
    refused: str | None
    seconds: float
