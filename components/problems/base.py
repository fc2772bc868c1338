"""The interface of a problem: its description, which does not require numpy, and its computations.

A *target* is the label or number of an example in the data. A *prediction* is the model's output for an
example: float32, one value for each of `Schema.names`; n predictions have shape (n, names). *Scores*, float64
(n, m), are the m values that evaluate stores for each example instead of its prediction, so that memory does
not depend on the number of classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any, NamedTuple

from modelyard.components.artifacts import (
    Direction,
    Golden,
    Metrics,
    Normalization,
    Schema,
    Signature,
    Tensor,
    format_number,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INPUT = "input"


class DisplayValue(NamedTuple):
    """A prediction or target as text, such as `frog` and `0.9981`; `note` may be empty."""

    text: str
    note: str

    def __str__(self) -> str:
        return f"{self.text} ({self.note})" if self.note else self.text


class Mistake(NamedTuple):
    """A test example with a wrong prediction: its number in the split from 0, its target and prediction."""

    number: int
    actual: DisplayValue
    predicted: DisplayValue


@dataclass(frozen=True)
class Description:
    """The properties of a problem that do not require numpy.

    Attributes:
        metrics: metrics on the test examples, and their direction.
        primary: the metric that is shown in lists.
        comparison_metrics: metrics, also of slices, that the gate can compare; the first is the default.
        margin: how much worse than a champion a candidate may be by default; for metrics of which lower is
            better, relative to that of the baseline.
        ranges: minimum and maximum of each metric, also of slices.
        slice_metrics: metrics of each slice; higher is better.
        monitors: metrics that Keras computes after each epoch in addition to the loss, and their direction.
        losses: Keras losses that fit the targets, the default first.
        training_metrics: Keras metrics that fit the targets, and their direction.
        output: name of the model's output in the exported files.
        meaning: description of the values of a prediction.
        size_name: argument of the user's `build` with the number of values of a prediction.
        format_prediction: formats a prediction, given the names of its values and the values.
        logits: whether `model.logits` may be set.
        class_weights: whether `training.class_weights` may be set.
        ranked: whether values are shares of a whole, of which the largest is shown first.
    """

    metrics: Mapping[str, Direction]
    primary: str
    monitors: Mapping[str, Direction]
    losses: tuple[str, ...]
    training_metrics: Mapping[str, Direction]
    output: str
    meaning: str
    size_name: str
    format_prediction: Callable[[Sequence[str], Sequence[float]], DisplayValue]
    comparison_metrics: tuple[str, ...]
    ranges: Mapping[str, tuple[float, float]]
    margin: float = 0.02
    slice_metrics: tuple[str, ...] = ()
    logits: bool = False
    class_weights: bool = False
    ranked: bool = False

    def difference(self, golden: Golden, number: int, prediction: Sequence[float]) -> float:
        """Return the largest difference from golden prediction `number`, relative to the scale.

        Raises:
            ValueError: the prediction has another number of values.
        """
        expected = golden.predictions[number]
        scale = golden.scale * len(expected) if len(golden.scale) == 1 else golden.scale
        values = zip(prediction, expected, scale, strict=True)
        differences = [abs(actual - golden_value) / unit for actual, golden_value, unit in values]
        return float("nan") if any(map(isnan, differences)) else max(differences)


def format_most_likely(names: Sequence[str], values: Sequence[float]) -> DisplayValue:
    """Return the name with the largest value."""
    best = max(range(len(values)), key=values.__getitem__)
    return DisplayValue(names[best], f"{values[best]:.4f}")


def format_numbers(names: Sequence[str], values: Sequence[float]) -> DisplayValue:
    """Return the values, with their names if there are several."""
    if len(values) == 1:
        return DisplayValue(format_number(values[0]), "")
    return DisplayValue(
        ", ".join(f"{name} {format_number(value)}" for name, value in zip(names, values, strict=True)), ""
    )


def build_signature(schema: Schema, description: Description) -> Signature:
    """Return the signature of a model."""
    inputs = Tensor(
        name=INPUT,
        shape=schema.shape,
        dtype=schema.dtype,
        meaning="pixels" if schema.image else "numbers",
        image=schema.image,
    )
    outputs = Tensor(
        name=description.output,
        shape=(len(schema.names),),
        dtype="float32",
        meaning=description.meaning,
        names=schema.names,
    )
    return Signature(problem=schema.problem, inputs=(inputs,), outputs=(outputs,))


def with_adapted_arguments(
    method: Callable[..., Any], adapt: Callable[[Any, Any], tuple[Any, Any]]
) -> Callable[..., Any]:
    """Return a method of a loss or metric that adapts targets and predictions first."""

    def call(targets: Any, predictions: Any, **others: Any) -> Any:
        return method(*adapt(targets, predictions), **others)

    return call


class Problem(ABC):
    """The computations of a problem. Targets are (n,), int64 or float32 (`target_dtype`)."""

    target_dtype: str
    stratified = False
    """Whether targets are classes, each of which needs test examples."""

    # preprocess

    @abstractmethod
    def check_schema(self, schema: Schema) -> None:
        """Raise DataError unless a model can be trained on such a dataset."""

    @abstractmethod
    def check_targets(self, schema: Schema, split: str, start: int, targets: "NDArray[Any]") -> None:
        """Raise DataError for the first invalid target of a batch that starts at `start` in `split`."""

    @abstractmethod
    def check_splits(self, schema: Schema, targets: Mapping[str, "NDArray[Any]"]) -> None:
        """Raise DataError unless a model can be trained and evaluated with the targets of the splits.

        The caller has checked that no split is empty.
        """

    @abstractmethod
    def compute_statistics(self, schema: Schema, targets: "NDArray[Any]") -> dict[str, Any]:
        """Return the statistics of the targets of a split, for statistics.json."""

    @abstractmethod
    def describe_targets(self, schema: Schema, statistics: Mapping[str, Any]) -> str:
        """Return a short text with the `statistics` of the training targets."""

    @abstractmethod
    def compute_scaling(self, targets: "NDArray[Any]") -> tuple[float, float]:
        """Return the mean and standard deviation for scaling predictions, from the training targets."""

    # train; these import Keras

    @abstractmethod
    def build_output_layer(self, names: Sequence[str], logits: bool) -> Any:
        """Return the last layer of the built-in network."""

    @abstractmethod
    def build_export_layer(self, logits: bool) -> Any:
        """Return the layer to add to the exported model, or None."""

    @abstractmethod
    def build_default_metrics(self) -> list[Any]:
        """Return the Keras metrics that are always computed, named as in `monitors`."""

    @abstractmethod
    def adapt_loss(self, loss: Any, logits: bool, normalization: Normalization) -> Any:
        """Return a Keras loss whose arguments are the targets and predictions of this problem.

        `logits` is `model.logits`; a loss with the argument `from_logits` already has it.
        """

    @abstractmethod
    def adapt_metric(self, metric: Any, logits: bool) -> Any:
        """Return a Keras metric; see `adapt_loss`."""

    @abstractmethod
    def check_untrained_predictions(self, predictions: "NDArray[Any]", logits: bool) -> None:
        """Raise TrainError if predictions of the user's untrained network show that its last layer is wrong.

        Training on such an output would not fail, but result in a worse model.
        """

    @abstractmethod
    def draw_random_targets(
        self, schema: Schema, count: int, random: "np.random.Generator"
    ) -> "NDArray[Any]":
        """Return random targets (count,), for measurements of speed."""

    # the learning curve of a plan

    error_name: str
    """Name of the validation error in the curve; lower is better."""

    @abstractmethod
    def minimum_examples(self, schema: Schema) -> int:
        """Return the minimum number of training examples of the smallest point of the curve."""

    @abstractmethod
    def resample_error(
        self, targets: "NDArray[Any]", scores: "NDArray[np.float64]", draws: int
    ) -> tuple[float, "NDArray[np.float64]"]:
        """Return the validation error, and its values (draws,) on resampled validation examples."""

    # evaluate

    @abstractmethod
    def check_predictions(self, predictions: "NDArray[Any]", model: str) -> None:
        """Raise EvaluateError unless the finite predictions (n, names) of a model are valid.

        `model` is its name for the message.
        """

    @abstractmethod
    def compute_scores(self, predictions: "NDArray[Any]", targets: "NDArray[Any]") -> "NDArray[np.float64]":
        """Return the scores (n, m) of predictions (n, names) for `measure`."""

    @abstractmethod
    def measure(
        self,
        schema: Schema,
        targets: "NDArray[Any]",
        candidate: "NDArray[np.float64]",
        champions: Mapping[int, "NDArray[np.float64]"],
        training: Mapping[str, Any],
        mask: "NDArray[np.bool_]",
    ) -> Metrics:
        """Return the metrics of the candidate, and its comparison with champions on the same examples.

        Args:
            schema: of the examples.
            targets: (n,).
            candidate: scores of the candidate.
            champions: scores of champions by version, the current champion first.
            training: `statistics` of the training targets, for the baseline.
            mask: (n,), the examples on which models are compared; with champions at least one.
        """

    @abstractmethod
    def select_golden_examples(
        self, schema: Schema, targets: "NDArray[Any]", count: int
    ) -> "NDArray[np.int64]":
        """Return the indices of at most `count` examples with diverse targets, in ascending order."""

    @abstractmethod
    def find_mistakes(
        self, schema: Schema, targets: "NDArray[Any]", scores: "NDArray[np.float64]", count: int
    ) -> list[Mistake]:
        """Return the worst wrong predictions, at most `count`."""

    @abstractmethod
    def build_figures(self, metrics: Metrics) -> dict[str, Any]:
        """Return `figures` for the problem's template of the report."""

    def log_plot(self, metrics: Metrics, artifact: Any) -> dict[str, Any]:
        """Log a plot to a ClassificationMetrics of KFP and return its data; by default none."""
        return {}
