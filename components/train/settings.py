"""The sections `model` and `training` of the configuration."""

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
POOL_SIZE = 2
IMAGE_RANKS = (2, 3)  # (height, width) and (height, width, channels)
DEFAULT_FILTERS = (32, 64)
REGULARIZERS = ("kernel_regularizer", "bias_regularizer")
BUILT_IN = ("filters", "kernel", "dense", "dropout", *REGULARIZERS)
REGULARIZER_DESCRIPTION = (
    "Built-in CNN: Keras regularizer of the {} of each layer, such as `{{name: L2, l2: 0.001}}`. With "
    "model.build, set regularizers in the layers of your model."
)


class Model(Settings):
    """The built-in CNN of the Keras tutorial, or any Keras model from the user's code."""

    build: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_.][\w./]*:[A-Za-z_]\w*$",
        description="module:function in model.code that returns a Keras model. Its arguments are "
        "input_shape, the number of outputs (classes or targets) and model.arguments. Default: the built-in "
        "CNN.",
    )
    code: str | None = Field(
        default=None,
        description="Folder with the code of your model, relative to the configuration file. Its "
        "fingerprint is part of the cache key and of the version's manifest. A run on a cluster uploads the "
        "folder as gs://…/uploads/code/<fingerprint>.zip.",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments for the function in model.build."
    )
    logits: bool = Field(
        default=False,
        description="classification: the last layer outputs logits; the exported model adds a softmax.",
    )
    filters: tuple[Size, ...] | None = Field(
        default=None,
        strict=False,
        description="Built-in CNN: filters of each convolution, which is followed by a 2x2 max pooling; [] "
        "for dense layers only. Default: [32, 64] for images, [32] for images that are too small for two "
        "convolutions, [] for other arrays.",
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
        """Return the regularizers by the layer argument that they are for."""
        values = {key: value for key in REGULARIZERS if (value := getattr(self, key))}
        return {
            key: KerasObject.from_setting("regularizers", value, f"model.{key}")
            for key, value in values.items()
        }

    def effective_filters(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the filters of the built-in CNN for examples of a shape."""
        if self.filters is not None:
            return self.filters
        if len(shape) not in IMAGE_RANKS:
            return ()
        fits = find_size_error(DEFAULT_FILTERS, self.kernel, shape) is None
        return DEFAULT_FILTERS if fits else DEFAULT_FILTERS[:1]

    @model_validator(mode="after")
    def _check_combination(self) -> "Model":
        module, _, function = (self.build or "").partition(":")
        if module.endswith(".py") or "/" in module or module.startswith("."):
            name = module.removesuffix(".py").strip("./").replace("/", ".")
            raise ValueError(
                f"model.build is {self.build}, which is a path; write the module: {name}:{function}"
            )
        if (self.build is None) != (self.code is None):
            raise ValueError("model.build and model.code require each other: set both or neither")
        if self.build is None and self.arguments:
            raise ValueError("model.arguments require model.build: remove them, or set model.build")
        reserved_keys = {"input_shape", *(problem.size_name for problem in PROBLEMS.values())}
        if conflicts := self.arguments.keys() & reserved_keys:
            raise ValueError(
                f"model.arguments has {' and '.join(sorted(conflicts))}, which the data decides: remove it"
            )
        changed_keys = [key for key in BUILT_IN if getattr(self, key) != type(self).model_fields[key].default]
        if self.build and changed_keys:
            keys = " and ".join(f"model.{key}" for key in changed_keys)
            raise ValueError(
                f"only the built-in CNN has {keys}, but model.build is {self.build}: remove {keys}"
            )
        return self


def find_size_error(filters: tuple[int, ...], kernel: int, shape: tuple[int, ...]) -> str | None:
    """Return why examples of a shape are not images, or too small for the convolutions; None if they fit."""
    if filters and len(shape) not in IMAGE_RANKS:
        return (
            f"The built-in CNN requires images, (height, width) or (height, width, channels), but an example "
            f"has shape {shape}. Set model.filters to [] for dense layers only, or set model.build."
        )
    sides = shape[:2]
    for number in range(1, len(filters) + 1):
        convolution_size = tuple(side - kernel + 1 for side in sides)
        pooling_size = tuple(side // POOL_SIZE for side in convolution_size)
        for layer, size, output_size in (
            (f"convolution_{number} ({kernel}x{kernel})", sides, convolution_size),
            (f"pooling_{number} ({POOL_SIZE}x{POOL_SIZE})", convolution_size, pooling_size),
        ):
            if min(output_size) < 1:
                return (
                    f"The input of {layer} is too small: {size[0]}x{size[1]} pixels for an example of shape "
                    f"{shape}. Set fewer model.filters (now {list(filters)}) or a smaller model.kernel, or "
                    "use larger images."
                )
        sides = pooling_size
    return None


class CodeLocation(Settings):
    """Location of the user's code: a local folder, or the URL of an archive in a bucket.

    `endpoint` is the URL of an emulator of the bucket's API; `user_project` is billed for requests.
    """

    url: str
    endpoint: str | None = None
    user_project: str | None = None


class EarlyStopping(Settings):
    """The arguments of keras.callbacks.EarlyStopping."""

    monitor: str = Field(
        default="val_loss",
        description="Metric to monitor: val_loss, val_accuracy for classification, val_mae or val_rmse for "
        "regression, or one of training.metrics, such as val_f1_score.",
    )
    patience: int = Field(default=3, ge=0, description="Epochs without improvement before training stops.")
    min_delta: float = Field(default=0.0, ge=0, description="Minimum change that counts as an improvement.")
    mode: Literal["auto", "min", "max"] = Field(
        default="auto",
        description="Whether a lower or a higher value is better; `auto`: depends on the metric.",
    )
    baseline: float | None = Field(
        default=None,
        strict=False,
        allow_inf_nan=False,
        description="An epoch counts as an improvement only if the metric is better than this value.",
    )
    start_from_epoch: int = Field(default=0, ge=0, description="Epochs before monitoring starts.")
    restore_best_weights: bool = Field(
        default=True,
        description="Restore the weights of the best epoch; `false`: keep those of the last epoch.",
    )


class Training(Settings):
    """Epochs, optimizer, loss, metrics and callbacks."""

    epochs: int = Field(default=10, ge=1, le=100_000, description="Passes over the training examples.")
    batch_size: int = Field(default=32, ge=1, le=100_000, description="Examples per training step.")
    loss: NameOrConfig | None = Field(
        default=None,
        description="Name of a Keras loss, or `{name: CategoricalCrossentropy, label_smoothing: 0.1}` with "
        "arguments; docs/training.md lists them. Default: SparseCategoricalCrossentropy for classification, "
        "MeanSquaredError for regression.",
    )
    metrics: tuple[NameOrConfig, ...] = Field(
        default=(),
        strict=False,
        description="Additional Keras metrics of each epoch, such as `[{name: F1Score, average: macro}]`. "
        "They are in history.json and the report, and early stopping can monitor them.",
    )
    callbacks: tuple[NameOrConfig, ...] = Field(
        default=(),
        strict=False,
        description="Keras callbacks whose state a checkpoint restores (docs/training.md lists them), such "
        "as `[{name: ReduceLROnPlateau, patience: 5}]`.",
    )
    optimizer: str = Field(default="adam", description="Name of a Keras optimizer: sgd, adam, AdamW, …")
    optimizer_settings: dict[str, Any] = Field(
        default_factory=dict,
        description="Arguments of the Keras optimizer (learning_rate, momentum, clipnorm, "
        "gradient_accumulation_steps, use_ema, …). learning_rate may be a Keras schedule with its "
        "arguments: `{name: CosineDecay, initial_learning_rate: 0.01, decay_steps: 1000}`.",
    )
    class_weights: dict[str, Weight] | Literal["balanced"] | None = Field(
        default=None,
        description="classification: weight of each class in the loss; 1 for classes that are not listed. "
        "`balanced`: inversely proportional to the number of training examples of the class.",
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        default="float32",
        description="Keras dtype policy of the layers. The exported model always uses float32. CPUs without "
        "avx512_bf16 or amx_bf16 are slow with mixed_bfloat16.",
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="Stop when the monitored metric no longer improves. Default: off."
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Random seed of weights, shuffling and dropout.")
    steps_per_execution: int = Field(
        default=64,
        ge=1,
        le=100_000,
        description="Training steps per call of TensorFlow. Reduces overhead; results do not change.",
    )
    checkpoint_every: float = Field(
        default=600.0,
        ge=0,
        description="Minimum seconds between checkpoints, which are saved after an epoch; 0 for none. "
        "Interrupted training with the same data, settings and code resumes from the last checkpoint.",
    )

    def optimizer_object(self) -> KerasObject:
        """Return the optimizer."""
        key = "training.optimizer_settings"
        return KerasObject("optimizers", self.optimizer, self.optimizer_settings, key, "training.optimizer")

    def loss_object(self, description: Description) -> KerasObject:
        """Return the loss; by default, that of the problem."""
        return KerasObject.from_setting("losses", self.loss or description.losses[0], "training.loss")

    def metric_objects(self) -> list[KerasObject]:
        """Return the additional metrics."""
        return self._keras_objects("metrics", self.metrics)

    def callback_objects(self) -> list[KerasObject]:
        """Return the callbacks."""
        return self._keras_objects("callbacks", self.callbacks)

    @staticmethod
    def _keras_objects(kind: str, values: tuple[NameOrConfig, ...]) -> list[KerasObject]:
        return [
            KerasObject.from_setting(kind, value, f"training.{kind}.{index}")
            for index, value in enumerate(values)
        ]

    def early_stopping_object(self) -> KerasObject | None:
        """Return the callback for early stopping, if configured."""
        if not self.early_stopping:
            return None
        arguments = self.early_stopping.model_dump()
        return KerasObject("callbacks", "EarlyStopping", arguments, "training.early_stopping", "")

    def weighted_slices(self) -> tuple[str, ...]:
        """Return the classes that have a weight, sorted."""
        return tuple(sorted(self.class_weights)) if isinstance(self.class_weights, dict) else ()

    def monitors(self, description: Description) -> dict[str, Direction]:
        """Return the metrics that can be monitored, without the prefix `val_`, and their direction."""
        metrics = self.metric_objects()
        directions = (description.training_metrics[metric.class_name] for metric in metrics)
        return {
            "loss": "lower",
            **description.monitors,
            **dict(zip(metric_names(metrics), directions, strict=True)),
        }

    def recipe(self) -> dict[str, Any]:
        """Return the settings that decide the result: all except the interval of checkpoints."""
        return self.model_dump(mode="json", exclude={"checkpoint_every"})

    @property
    def min_epochs(self) -> int:
        """Return the minimum number of epochs with early stopping.

        The first monitored epoch always is an improvement, unless there is a baseline.
        """
        if not (stopping := self.early_stopping):
            return self.epochs
        first = 1 if stopping.baseline is None else 0
        minimum = stopping.start_from_epoch + max(1, stopping.patience) + first
        return min(self.epochs, max(2, minimum))


def check_keras_settings(model: Model, training: Training, description: Description) -> None:
    """Check all Keras objects in the settings, without importing Keras.

    Raises:
        KerasSettingError: Keras has no such class or argument, or it does not fit the problem or
            other settings.
    """
    metrics, callbacks = training.metric_objects(), training.callback_objects()
    loss = training.loss_object(description)
    others = *metrics, *callbacks, *model.regularizers().values()
    for keras_object in (training.optimizer_object(), loss, *others):
        keras_object.check()
    for keras_object in (loss, *metrics):
        names = description.losses if keras_object is loss else tuple(description.training_metrics)
        if keras_object.class_name not in names:
            raise KerasSettingError(
                f"{keras_object.name_key} is {keras_object.name}, which does not fit the targets of the "
                f"problem. Choose one of {', '.join(names)}."
            )
    plateaus = (callback for callback in callbacks if callback.class_name == PLATEAU)
    monitor_by_key = {callback.key: callback.config()["config"]["monitor"] for callback in plateaus}
    if training.early_stopping:
        monitor_by_key["training.early_stopping"] = training.early_stopping.monitor
    monitors = [f"val_{name}" for name in training.monitors(description)]
    for key, monitor in monitor_by_key.items():
        if monitor not in monitors:
            raise KerasSettingError(
                f"{key}.monitor is {monitor}, which is not a metric of validation. Choose one of "
                f"{', '.join(monitors)}."
            )
    _check_combinations(training, {callback.class_name: callback for callback in callbacks})


def _check_combinations(training: Training, callbacks: Mapping[str, KerasObject]) -> None:
    """Reject combinations that Keras ignores or rejects only after the first epochs."""
    stopping, optimizer = training.early_stopping, training.optimizer_settings
    swap, plateau = callbacks.get("SwapEMAWeights"), callbacks.get(PLATEAU)
    if len(callbacks) < len(training.callbacks):
        raise KerasSettingError("training.callbacks has the same callback twice. Remove one.")
    if swap and not optimizer.get("use_ema"):
        raise KerasSettingError(
            f"{swap.name_key} is {swap.name}, which requires training.optimizer_settings.use_ema: true. "
            "Add it."
        )
    if plateau and isinstance(optimizer.get("learning_rate"), dict):
        raise KerasSettingError(
            f"{plateau.name_key} is {plateau.name}, which cannot change the schedule in "
            "training.optimizer_settings.learning_rate. Remove one of them."
        )
    swaps = swap and swap.arguments.get("swap_on_epoch")
    if stopping and optimizer.get("use_ema") and not (swaps and stopping.restore_best_weights):
        raise KerasSettingError(
            "training.early_stopping would end with weights that are not the averages of "
            "training.optimizer_settings.use_ema. Add {name: SwapEMAWeights, swap_on_epoch: true} to "
            "training.callbacks, and set early_stopping.restore_best_weights: true."
        )
