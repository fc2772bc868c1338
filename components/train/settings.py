"""`model` and `training`: what is trained, and how."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from modelyard.components.artifacts import Direction
from modelyard.components.problems import PROBLEMS
from modelyard.components.problems.base import Description
from modelyard.components.settings import Settings
from modelyard.components.train.keras_objects import (
    KerasObject,
    KerasSettingError,
    NameOrConfig,
    metric_names,
)

Size = Annotated[int, Field(ge=1, le=2**16)]
Weight = Annotated[float, Field(strict=False, ge=0, allow_inf_nan=False)]
PLATEAU = "ReduceLROnPlateau"
REGULARIZERS = ("kernel_regularizer", "bias_regularizer")
BUILT_IN = ("filters", "kernel", "dense", "dropout", *REGULARIZERS)
REGULARIZER_DESCRIPTION = (
    "Built-in CNN: Keras regularizer of the {} of each layer, such as `{{name: L2, l2: 0.001}}`. With "
    "model.build, give it to your layers there."
)


class Model(Settings):
    """The tutorial's CNN with its sizes, or any Keras model from the user's own code."""

    build: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_.][\w./]*:[A-Za-z_]\w*$",
        description="module:function in model.code that returns a Keras model; it is called with "
        "input_shape, the number of values in an answer (classes, or targets) and model.arguments. Without "
        "it the built-in CNN is used.",
    )
    code: str | None = Field(
        default=None,
        description="Folder with the user's own code, relative to the configuration file. Its fingerprint is "
        "part of the cache key and of the version's manifest. A run on a cluster uploads it, and names it "
        "gs://…/uploads/code/<fingerprint>.zip.",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments for the function in model.build."
    )
    logits: bool = Field(
        default=False,
        description="classification: the model's last layer gives logits; the export ends with a softmax.",
    )
    filters: tuple[Size, ...] = Field(
        default=(32, 64),
        strict=False,
        description="Built-in CNN: filters of each convolution, each followed by a 2x2 max pooling.",
    )
    kernel: int = Field(
        default=3, ge=1, le=2**10, description="Built-in CNN: size of the convolution kernels."
    )
    dense: tuple[Size, ...] = Field(
        default=(64,), strict=False, description="Built-in CNN: units of each dense layer."
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Built-in CNN: dropout before the last layer."
    )
    kernel_regularizer: NameOrConfig | None = Field(
        default=None, description=REGULARIZER_DESCRIPTION.format("kernel")
    )
    bias_regularizer: NameOrConfig | None = Field(
        default=None, description=REGULARIZER_DESCRIPTION.format("bias")
    )

    def regularizers(self) -> dict[str, KerasObject]:
        """Return the regularizers by the argument of a layer that takes them."""
        given = {key: value for key in REGULARIZERS if (value := getattr(self, key))}
        return {key: KerasObject.of("regularizers", value, f"model.{key}") for key, value in given.items()}

    @model_validator(mode="after")
    def _check_combination(self) -> "Model":
        module, _, function = (self.build or "").partition(":")
        if module.endswith(".py") or "/" in module or module.startswith("."):
            name = module.removesuffix(".py").strip("./").replace("/", ".")
            raise ValueError(
                f"model.build is {self.build}, which names a file; name the module: {name}:{function}"
            )
        if (self.build is None) != (self.code is None):
            raise ValueError("model.build and model.code go together: give both, or neither")
        if self.build is None and self.arguments:
            raise ValueError("model.arguments are for model.build: remove them")
        decided = {"input_shape", *(problem.size for problem in PROBLEMS.values())}
        if given := self.arguments.keys() & decided:
            raise ValueError(
                f"model.arguments must not give {' and '.join(sorted(given))}, which the data decides"
            )
        changed = [key for key in BUILT_IN if getattr(self, key) != type(self).model_fields[key].default]
        if self.build and changed:
            keys = " and ".join(f"model.{key}" for key in changed)
            raise ValueError(f"{keys} is for the built-in CNN, and model.build is {self.build}: remove it")
        return self


class CodeLocation(Settings):
    """Where the user's own code is: a folder, or the archive of one in a bucket.

    `endpoint` is the address of the bucket's emulator, if it is one; `user_project` pays for requests.
    """

    url: str
    endpoint: str | None = None
    user_project: str | None = None


class EarlyStopping(Settings):
    """When to stop before the last epoch: the arguments of keras.callbacks.EarlyStopping."""

    monitor: str = Field(
        default="val_loss",
        description="What is watched, on the validation rows: val_loss, val_accuracy for classification, "
        "val_mae or val_rmse for regression, or one of training.metrics, such as val_f1_score.",
    )
    patience: int = Field(default=3, ge=0, description="Epochs without an improvement.")
    min_delta: float = Field(default=0.0, ge=0, description="What counts as an improvement.")
    mode: Literal["auto", "min", "max"] = Field(
        default="auto", description="Whether less or more is better; `auto`: as the metric says."
    )
    baseline: float | None = Field(
        default=None,
        strict=False,
        allow_inf_nan=False,
        description="Patience is spent, too, while the metric is not better than this.",
    )
    start_from_epoch: int = Field(default=0, ge=0, description="Epochs before it begins to watch.")
    restore_best_weights: bool = Field(
        default=True, description="Take the best epoch's weights; `false`: those of the last epoch."
    )


class Training(Settings):
    """How the model is fitted."""

    epochs: int = Field(default=10, ge=1, le=100_000, description="Passes over the training rows.")
    batch_size: int = Field(default=32, ge=1, le=100_000, description="Examples in a step.")
    loss: NameOrConfig | None = Field(
        default=None,
        description="Keras loss by its name, or `{name: CategoricalCrossentropy, label_smoothing: 0.1}` with "
        "arguments ([which ones](training.md)). Default: SparseCategoricalCrossentropy for classification, "
        "MeanSquaredError for regression.",
    )
    metrics: tuple[NameOrConfig, ...] = Field(
        default=(),
        strict=False,
        description="Further Keras metrics of each epoch, as `[{name: F1Score, average: macro}]`, for "
        "history.json, the report, and the monitor of early stopping.",
    )
    callbacks: tuple[NameOrConfig, ...] = Field(
        default=(),
        strict=False,
        description="Keras callbacks, as `[{name: ReduceLROnPlateau, patience: 5}]`: those that a checkpoint "
        "restores ([which ones](training.md)).",
    )
    optimizer: str = Field(default="adam", description="Keras optimizer by its name: sgd, adam, AdamW, …")
    optimizer_settings: dict[str, Any] = Field(
        default_factory=dict,
        description="The optimizer's own settings, as Keras names them (learning_rate, momentum, clipnorm, "
        "gradient_accumulation_steps, use_ema, …). learning_rate may be a schedule of Keras with its "
        "arguments: `{name: CosineDecay, initial_learning_rate: 0.01, decay_steps: 1000}`.",
    )
    class_weights: dict[str, Weight] | Literal["balanced"] | None = Field(
        default=None,
        description="classification: what an example of each class counts in the loss; 1 for a class that is "
        "not named. `balanced`: in inverse proportion to the training examples of the class.",
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        default="float32",
        description="Keras' dtype policy of the layers. The model is exported in float32 in any case. A "
        "CPU without avx512_bf16 and amx_bf16 is slow with mixed_bfloat16.",
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="Stop when validation no longer improves; off without it."
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of weights, shuffling and dropout.")
    steps_per_execution: int = Field(
        default=64,
        ge=1,
        le=100_000,
        description="Training steps per call into TensorFlow: same maths, less overhead.",
    )
    checkpoint_every: float = Field(
        default=600.0,
        ge=0,
        description="Seconds between checkpoints, which are made after an epoch; 0 for none. A training that "
        "is started again with the same data, settings and code goes on after its last one.",
    )

    def optimizer_object(self) -> KerasObject:
        """Return the optimizer with its settings."""
        key = "training.optimizer_settings"
        return KerasObject("optimizers", self.optimizer, self.optimizer_settings, key, "training.optimizer")

    def loss_object(self, description: Description) -> KerasObject:
        """Return the loss, or the problem's default."""
        return KerasObject.of("losses", self.loss or description.losses[0], "training.loss")

    def metric_objects(self) -> list[KerasObject]:
        """Return the further metrics."""
        return [
            KerasObject.of("metrics", one, f"training.metrics.{place}")
            for place, one in enumerate(self.metrics)
        ]

    def callback_objects(self) -> list[KerasObject]:
        """Return the callbacks."""
        return [
            KerasObject.of("callbacks", one, f"training.callbacks.{place}")
            for place, one in enumerate(self.callbacks)
        ]

    def early_stopping_object(self) -> KerasObject | None:
        """Return early stopping."""
        if not (stopping := self.early_stopping):
            return None
        return KerasObject("callbacks", "EarlyStopping", stopping.model_dump(), "training.early_stopping", "")

    def monitors(self, description: Description) -> dict[str, Direction]:
        """Return what can be watched after an epoch, without `val_`, and which direction is better."""
        metrics = self.metric_objects()
        directions = (description.training_metrics[one.class_name] for one in metrics)
        return {
            "loss": "lower",
            **description.monitors,
            **dict(zip(metric_names(metrics), directions, strict=True)),
        }

    def recipe(self) -> dict[str, Any]:
        """Return what decides the result: all but when checkpoints are made."""
        return self.model_dump(mode="json", exclude={"checkpoint_every"})

    @property
    def min_epochs(self) -> int:
        """Return how many there are at least: the first epoch that is watched improves on nothing.

        Under a baseline, it counts as an epoch without an improvement.
        """
        if not (stopping := self.early_stopping):
            return self.epochs
        first = 1 if stopping.baseline is None else 0
        least = stopping.start_from_epoch + max(1, stopping.patience) + first
        return min(self.epochs, max(2, least))


def check_keras_settings(model: Model, training: Training, description: Description) -> None:
    """Check what is named of Keras, by what is known without Keras.

    Raises:
        KerasSettingError: Keras has no such class or argument, or it does not fit the problem or
            other settings.
    """
    metrics, callbacks = training.metric_objects(), training.callback_objects()
    loss = training.loss_object(description)
    for one in (training.optimizer_object(), loss, *metrics, *callbacks, *model.regularizers().values()):
        one.check()
    for one, known in ((loss, description.losses), *((one, description.training_metrics) for one in metrics)):
        if one.class_name not in known:
            raise KerasSettingError(
                f"{one.name_key} is {one.name}, which does not fit the problem's targets. Choose one of "
                f"{', '.join(known)}."
            )
    watching = {one.key: one.config()["config"]["monitor"] for one in callbacks if one.class_name == PLATEAU}
    if training.early_stopping:
        watching["training.early_stopping"] = training.early_stopping.monitor
    monitors = [f"val_{name}" for name in training.monitors(description)]
    for key, monitor in watching.items():
        if monitor not in monitors:
            raise KerasSettingError(f"{key}.monitor is {monitor}. Choose one of {', '.join(monitors)}.")
    _check_combinations(training, {one.class_name: one for one in callbacks})


def _check_combinations(training: Training, callbacks: Mapping[str, KerasObject]) -> None:
    """Refuse what Keras would refuse after the first epochs, or ignore."""
    stopping, optimizer = training.early_stopping, training.optimizer_settings
    swap, plateau = callbacks.get("SwapEMAWeights"), callbacks.get(PLATEAU)
    if len(callbacks) < len(training.callbacks):
        raise KerasSettingError("training.callbacks names a callback twice. Remove one.")
    if swap and not optimizer.get("use_ema"):
        raise KerasSettingError(
            f"{swap.name_key} is {swap.name}, which needs training.optimizer_settings.use_ema: true. Add it."
        )
    if plateau and isinstance(optimizer.get("learning_rate"), dict):
        raise KerasSettingError(
            f"{plateau.name_key} is {plateau.name}, which cannot change a schedule, and "
            "training.optimizer_settings.learning_rate is one. Remove one of them.",
        )
    swaps = swap and swap.arguments.get("swap_on_epoch")
    if stopping and optimizer.get("use_ema") and not (swaps and stopping.restore_best_weights):
        raise KerasSettingError(
            "training.early_stopping would end with weights that are not the averages of "
            "training.optimizer_settings.use_ema. Add {name: SwapEMAWeights, swap_on_epoch: true} to "
            "training.callbacks, with restore_best_weights."
        )
