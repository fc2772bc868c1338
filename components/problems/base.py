"""The interface of a problem: its description, which needs no numpy, and what the steps compute with.

A *target* is what a row of the data says, an *answer* is what the model says to an example: float32 of shape
(names,), one value for each of `Schema.names`. *Scores* are what evaluate keeps of a row, float64 (n, m), so
that memory does not depend on the size of examples or answers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

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


class Shown(NamedTuple):
    """An answer for people: `frog` and `0.9981`; `note` may be empty."""

    answer: str
    note: str

    def __str__(self) -> str:
        return f"{self.answer} ({self.note})" if self.note else self.answer


class Mistake(NamedTuple):
    """A test row whose answer is wrong: its number, and its target and answer for people."""

    row: int
    actual: Shown
    predicted: Shown


@dataclass(frozen=True)
class Description:
    """What every process knows of a problem.

    Attributes:
        metrics: what evaluate measures on the test rows, and which direction is better.
        primary: the metric that stands for the others in lists.
        compared: metrics, also of slices, that are compared with a champion's; the first is the default.
        margin: how much worse than a champion a candidate may be by default: of a metric of which lower is
            better as a share of a constant prediction's.
        ranges: smallest and largest value of each metric, of slices too.
        slice_metrics: what is measured of each slice; higher is better.
        monitors: what Keras computes after each epoch beside the loss, for early stopping; `val_` in front
            of a name is the one of the validation rows.
        losses: the losses of Keras that fit the targets, the default first.
        training_metrics: the metrics of Keras that fit the targets, and which direction is better.
        output: name of the model's output in the exported files.
        meaning: what the values of an answer are, in a few words.
        size: argument of the user's `build` that gets the number of values in an answer.
        show: returns an answer for people, from the names of its values and the values.
        logits: whether `model.logits` may be set.
        class_weights: whether `training.class_weights` may be.
        ranked: whether the values are shares of a whole, so that people want the largest first.
    """

    metrics: Mapping[str, Direction]
    primary: str
    monitors: Mapping[str, Direction]
    losses: tuple[str, ...]
    training_metrics: Mapping[str, Direction]
    output: str
    meaning: str
    size: str
    show: Callable[[Sequence[str], Sequence[float]], Shown]
    compared: tuple[str, ...]
    ranges: Mapping[str, tuple[float, float]]
    margin: float = 0.02
    slice_metrics: tuple[str, ...] = ()
    logits: bool = False
    class_weights: bool = False
    ranked: bool = False

    def difference(self, golden: Golden, number: int, answer: Sequence[float]) -> float:
        """Return how far an answer is from golden answer `number`, relative to the answers' scale.

        Raises:
            ValueError: it has another number of values.
        """
        expected = golden.predictions[number]
        scale = golden.scale * len(expected) if len(golden.scale) == 1 else golden.scale
        found = [abs(p - q) / one for p, q, one in zip(answer, expected, scale, strict=True)]
        return max(found) if all(one == one for one in found) else float("nan")


def show_likeliest(names: Sequence[str], values: Sequence[float]) -> Shown:
    """Return the name with the largest value."""
    best = max(range(len(values)), key=values.__getitem__)
    return Shown(names[best], f"{values[best]:.4f}")


def show_values(names: Sequence[str], values: Sequence[float]) -> Shown:
    """Return the values, with their names where there are several."""
    if len(values) == 1:
        return Shown(format_number(values[0]), "")
    return Shown(
        ", ".join(f"{name} {format_number(one)}" for name, one in zip(names, values, strict=True)), ""
    )


def signature_of(schema: Schema, description: Description) -> Signature:
    """Return the signature of a model that is trained on such examples."""
    given = Tensor(
        name=INPUT,
        shape=schema.shape,
        dtype=schema.dtype,
        meaning="pixels" if schema.image else "numbers",
        image=schema.image,
    )
    answer = Tensor(
        name=description.output,
        shape=(len(schema.names),),
        dtype="float32",
        meaning=description.meaning,
        names=schema.names,
    )
    return Signature(problem=schema.problem, inputs=(given,), outputs=(answer,))


def adapted(method: Callable[..., Any], change: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[..., Any]:
    """Return a method of a loss or metric that gets changed targets and answers."""

    def call(targets: Any, answers: Any, **others: Any) -> Any:
        return method(*change(targets, answers), **others)

    return call


class PlotArtifact(Protocol):
    """What we need of KFP's ClassificationMetrics."""

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        """Record a confusion matrix."""


class Problem(ABC):
    """What the steps compute with. Targets are (n,), int64 or float32 (`target_dtype`)."""

    target_dtype: str
    stratified = False
    """Whether targets are classes, each of which the test part needs examples of."""

    # preprocess

    @abstractmethod
    def check_schema(self, schema: Schema) -> None:
        """Raise DataError unless a model can learn something from such a dataset."""

    @abstractmethod
    def check_targets(self, schema: Schema, split: str, start: int, targets: "NDArray[Any]") -> None:
        """Raise DataError naming the first bad target of a batch that begins at row `start` of `split`."""

    @abstractmethod
    def check_splits(self, schema: Schema, targets: Mapping[str, "NDArray[Any]"]) -> None:
        """Raise DataError unless the targets of train, validation and test can train and judge a model.

        Every split has rows.
        """

    @abstractmethod
    def statistics(self, schema: Schema, targets: "NDArray[Any]") -> dict[str, Any]:
        """Return what statistics.json says of the targets of a split."""

    @abstractmethod
    def describe_targets(self, schema: Schema, statistics: Mapping[str, Any]) -> str:
        """Return in a few words what `statistics` says of the training targets."""

    @abstractmethod
    def scaling(self, targets: "NDArray[Any]") -> tuple[float, float]:
        """Return mean and deviation by which the model scales its answers, from the training targets."""

    # train; these import Keras

    @abstractmethod
    def output_layer(self, names: Sequence[str], logits: bool) -> Any:
        """Return the last layer of the built-in network."""

    @abstractmethod
    def export_layer(self, logits: bool) -> Any:
        """Return the layer that the exported model has after the last one that is trained, or None."""

    @abstractmethod
    def own_metrics(self) -> list[Any]:
        """Return the metrics of Keras that are computed after each epoch, named as in `monitors`."""

    @abstractmethod
    def loss_on(self, loss: Any, logits: bool, normalization: Normalization) -> Any:
        """Return a loss of Keras, one of the description's, so that it takes targets and answers as they are.

        Args:
            loss: the loss.
            logits: what `model.logits` says; a loss with the argument `from_logits` got it.
            normalization: with the scale of the targets.
        """

    @abstractmethod
    def metric_on(self, metric: Any, logits: bool) -> Any:
        """Return a metric of Keras, one of the description's; see `loss_on`."""

    @abstractmethod
    def check_untrained(self, answers: "NDArray[Any]", logits: bool) -> None:
        """Raise TrainError when answers of the user's untrained network show that its last layer is wrong.

        Either way training would go on without a word, to a worse model.
        """

    @abstractmethod
    def random_targets(self, schema: Schema, rows: int, random: "np.random.Generator") -> "NDArray[Any]":
        """Return random targets (rows,), for measurements of speed."""

    # the learning curve of a plan

    error: str
    """What it shows of the validation rows; lower is better."""

    @abstractmethod
    def minimum_rows(self, schema: Schema) -> int:
        """Return how many training rows the smallest part of a learning curve needs."""

    @abstractmethod
    def error_draws(
        self, targets: "NDArray[Any]", scores: "NDArray[np.float64]", draws: int
    ) -> tuple[float, "NDArray[np.float64]"]:
        """Return the error, and draws of it (draws,) that show what other validation rows would give."""

    # evaluate

    @abstractmethod
    def check_answers(self, answers: "NDArray[Any]", model: str) -> None:
        """Raise EvaluateError, which names `model`, unless finite answers (n, names) are of this problem."""

    @abstractmethod
    def scores(self, answers: "NDArray[Any]", targets: "NDArray[Any]") -> "NDArray[np.float64]":
        """Return what `measure` needs of answers (n, names): float64 (n, m)."""

    @abstractmethod
    def measure(
        self,
        schema: Schema,
        targets: "NDArray[Any]",
        candidate: "NDArray[np.float64]",
        champions: Mapping[int, "NDArray[np.float64]"],
        training: Mapping[str, Any],
        compared: "NDArray[np.bool_]",
    ) -> Metrics:
        """Return the metrics of the candidate, and its gains over the champions on the same rows.

        Args:
            schema: of the rows.
            targets: (n,).
            candidate: scores of its answers to these rows.
            champions: scores of the champions' answers to these rows, by version, today's first.
            training: `statistics` of the training targets, for the constant prediction.
            compared: the rows (n,) on which it is compared with the champions; with champions at least one.
        """

    @abstractmethod
    def golden_rows(self, schema: Schema, targets: "NDArray[Any]", count: int) -> "NDArray[np.int64]":
        """Return `count` rows, or all, whose targets are as different as possible, in ascending order."""

    @abstractmethod
    def mistakes(
        self, schema: Schema, targets: "NDArray[Any]", scores: "NDArray[np.float64]", count: int
    ) -> list[Mistake]:
        """Return the worst of the wrong answers, at most `count`, from targets (n,) and scores (n, m)."""

    @abstractmethod
    def figures(self, metrics: Metrics) -> dict[str, Any]:
        """Return what the problem's template of the report shows of the details, as `figures`."""

    def log_plot(self, metrics: Metrics, artifact: PlotArtifact) -> dict[str, Any]:
        """Show in KFP's UI what it can show of this problem, and return it; nothing by default."""
        return {}
