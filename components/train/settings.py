"""`model` and `training`: what is trained, and how."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from modelyard.components.problems import PROBLEMS
from modelyard.components.settings import Settings

Size = Annotated[int, Field(ge=1, le=2**16)]
Weight = Annotated[float, Field(strict=False, ge=0, allow_inf_nan=False)]
BUILT_IN = ("filters", "kernel", "dense", "dropout")


class Model(Settings):
    """The tutorial's CNN with its sizes, or any Keras model from the user's own code."""

    build: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
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

    @model_validator(mode="after")
    def _combination(self) -> "Model":
        module, _, function = (self.build or "").partition(":")
        if module.endswith(".py"):
            raise ValueError(
                f"model.build is {self.build}, which names a file; name the module: "
                f"{module.removesuffix('.py')}:{function}"
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


class Code(Settings):
    """Where the user's own code is: a folder, or the archive of one in a bucket.

    `endpoint` is the address of the bucket's emulator, if it is one.
    """

    place: str
    endpoint: str | None = None


class EarlyStopping(Settings):
    """When to stop before the last epoch; the best epoch's weights are kept."""

    monitor: str = Field(
        default="val_loss",
        description="What is watched, on the validation rows: val_loss, or a metric of the problem: "
        "val_accuracy for classification, val_mae or val_rmse for regression.",
    )
    patience: int = Field(default=3, ge=0, description="Epochs without an improvement.")
    min_delta: float = Field(default=0.0, ge=0, description="What counts as an improvement.")


class Training(Settings):
    """How the model is fitted."""

    epochs: int = Field(default=10, ge=1, le=100_000, description="Passes over the training rows.")
    batch_size: int = Field(default=32, ge=1, le=100_000, description="Examples in a step.")
    loss: str | None = Field(
        default=None,
        description="What is minimised: cross_entropy for classification; mse (default) or huber for "
        "regression, of differences in standard deviations of the training targets.",
    )
    optimizer: str = Field(
        default="adam", description="Keras optimizer by its name, in snake_case: sgd, adam, adamw, …"
    )
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
        description="Keras' dtype policy of the layers. The model is exported in float32 in any case.",
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

    def decisive(self) -> dict[str, Any]:
        """Return what decides the result: all but when checkpoints are made."""
        return self.model_dump(mode="json", exclude={"checkpoint_every"})

    @property
    def least_epochs(self) -> int:
        """Return how many there are at least: Keras looks for an improvement from the second epoch on."""
        if self.early_stopping is None:
            return self.epochs
        return min(self.epochs, max(1, self.early_stopping.patience) + 1)
