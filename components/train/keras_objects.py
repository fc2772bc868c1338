"""Keras objects by name, with arguments: optimizers, schedules, losses, metrics, callbacks, regularizers.

    loss: MeanAbsoluteError
    loss: {name: CategoricalCrossentropy, label_smoothing: 0.1}

Names and arguments are checked against keras_signatures.json, which does not require TensorFlow; a test
compares that file with Keras. Values that only Keras can check are checked when the step `train` or
`modelyard plan` builds the object. Only classes of Keras can be named.

    python -m modelyard.components.train.keras_objects > components/train/keras_signatures.json
"""

import difflib
import inspect
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from modelyard.components.errors import ConfigError, TrainError, describe

NameOrConfig = str | dict[str, Any]
"""A name, or `{name: …}` with arguments."""
Signatures = dict[str, dict[str, dict[str, Any]]]

SCHEDULES = "optimizers.schedules"
KIND_NAMES = {
    "optimizers": "optimizer",
    SCHEDULES: "learning-rate schedule",
    "losses": "loss",
    "metrics": "metric",
    "callbacks": "callback",
    "regularizers": "regularizer",
}
ALIASES = {  # from keras.losses.get and keras.metrics.get
    "mse": "MeanSquaredError",
    "mae": "MeanAbsoluteError",
    "mape": "MeanAbsolutePercentageError",
    "msle": "MeanSquaredLogarithmicError",
}
BASE_TYPES = ("Callback", "LearningRateSchedule", "Loss", "Metric", "Optimizer", "Regularizer")
WRAPPERS = ("LossScaleOptimizer", "MeanMetricWrapper", "MultiOptimizer", "OptimizerMap")
REQUIRED = "required"
RESERVED_ARGUMENTS = {
    "name": "modelyard sets it",
    "dtype": "training.precision decides it",
    "from_logits": "model.logits decides it",
}

CHECKPOINTS = "modelyard saves checkpoints itself (training.checkpoint_every)"
FUNCTION = "its argument is a Python function, which a configuration cannot contain"
IN_HISTORY = "history.json has the metrics of each epoch"
NOT_RESTORED = "a checkpoint cannot restore its output"
UNSUPPORTED_CALLBACKS = {
    "BackupAndRestore": CHECKPOINTS,
    "CallbackList": "training.callbacks is itself a list of callbacks",
    "CSVLogger": f"{NOT_RESTORED}, and {IN_HISTORY}",
    "EarlyStopping": "training.early_stopping does the same",
    "History": IN_HISTORY,
    "LambdaCallback": FUNCTION,
    "LearningRateScheduler": f"{FUNCTION}; training.optimizer_settings.learning_rate takes a schedule",
    "ModelCheckpoint": CHECKPOINTS,
    "OrbaxCheckpoint": CHECKPOINTS,
    "ProgbarLogger": "the step logs a line per epoch",
    "RemoteMonitor": NOT_RESTORED,
    "TensorBoard": NOT_RESTORED,
}
"""Callbacks that cannot be used, with the reason."""

CALLBACK_STATE: dict[str, tuple[str, ...]] = {
    "EarlyStopping": ("best", "best_epoch", "wait"),
    "ReduceLROnPlateau": ("best", "cooldown_counter", "wait"),
    "SwapEMAWeights": ("_ema_weights_in_model",),
    "TerminateOnNaN": (),
}
"""The attributes of each callback that a checkpoint contains."""


class KerasSettingError(ConfigError, ValueError):
    """A Keras object in the configuration is invalid; a ValueError, so that pydantic reports it."""


@dataclass(frozen=True)
class KerasObject:
    """A Keras object in the configuration.

    Attributes:
        kind: module of Keras, such as `optimizers.schedules`.
        name: of the class, such as ReduceLROnPlateau or reduce_lr_on_plateau.
        arguments: of the constructor.
        key: key of the arguments in the configuration.
        name_key: key of the name in the configuration.
    """

    kind: str
    name: str
    arguments: Mapping[str, Any]
    key: str
    name_key: str

    @classmethod
    def from_setting(cls, kind: str, value: NameOrConfig, key: str) -> Self:
        """Return the object for the setting `key: value`."""
        if isinstance(value, str):
            return cls(kind, value, {}, key, key)
        arguments = dict(value)
        return cls(kind, str(arguments.pop("name", "")), arguments, key, f"{key}.name")

    @property
    def class_name(self) -> str:
        """Return the name of the class; empty if Keras has no such class."""
        plain = self.name.lower().replace("_", "")
        if self.kind in ("losses", "metrics") and plain in ALIASES:
            return ALIASES[plain]
        return next((name for name in load_signatures()[self.kind] if name.lower() == plain), "")

    @property
    def signature(self) -> dict[str, Any]:
        """Return the defaults of the class's arguments."""
        return load_signatures()[self.kind][self.class_name]

    def config(self) -> dict[str, Any]:
        """Return the class and all its arguments, with the defaults of Keras."""
        values = {
            key: schedule.config() if (schedule := self._get_schedule(key)) else self.arguments[key]
            for key in self.arguments
        }
        arguments = {key: default for key, default in self.signature.items() if key != "name"} | values
        return {"class_name": self.class_name, "config": arguments}

    def check(self) -> None:
        """Raise KerasSettingError unless the class exists and accepts the arguments."""
        signatures, plain = load_signatures()[self.kind], self.name.lower().replace("_", "")
        for name, reason in UNSUPPORTED_CALLBACKS.items() if self.kind == "callbacks" else ():
            if plain == name.lower():
                raise KerasSettingError(
                    f"{self.name_key} is {self.name}, which cannot be used: {reason}. Remove it."
                )
        if not self.class_name:
            raise KerasSettingError(
                f"{self.name_key} is {self.name!r}, which is not a Keras {KIND_NAMES[self.kind]}. "
                f"{_suggest(self.name, signatures)}"
            )
        for argument, value in self.arguments.items():
            key = f"{self.key}.{argument}"
            if argument in RESERVED_ARGUMENTS:
                raise KerasSettingError(
                    f"{key} cannot be set, because {RESERVED_ARGUMENTS[argument]}. Remove it."
                )
            if argument not in self.signature:
                raise KerasSettingError(
                    f"{key} is not an argument of {self.name}. {_suggest(argument, self.signature)}"
                )
            if schedule := self._get_schedule(argument):
                schedule.check()
            elif expected := _describe_expected_value(argument, value, self.signature[argument], self.kind):
                raise KerasSettingError(
                    f"{key} is {value!r}, which {self.name} does not accept. Use {expected}."
                )
        for argument, default in self.signature.items():
            if default == REQUIRED and argument not in self.arguments:
                raise KerasSettingError(
                    f"{self.name} requires {self.key}.{argument}, which is missing. Add it."
                )

    def build(self, **reserved_arguments: Any) -> Any:
        """Return the object, which `check` has checked; raise TrainError if Keras rejects a value.

        `reserved_arguments` are RESERVED_ARGUMENTS; those that the class does not have are ignored.
        """
        keras_class = _find_keras_classes(self.kind)[self.class_name]
        values = dict(self.arguments)
        for key, value in values.items():
            if isinstance(self.signature[key], float) and isinstance(value, int):
                values[key] = float(value)  # Keras rejects a learning rate of 1
        values |= {key: schedule.build() for key in values if (schedule := self._get_schedule(key))}
        parameters = inspect.signature(keras_class).parameters
        values |= {key: reserved_arguments[key] for key in reserved_arguments.keys() & parameters.keys()}
        try:
            instance = keras_class(**values)
            if self.kind == SCHEDULES:
                instance(0)  # Keras checks some arguments only when it is called
        except Exception as error:
            arguments = ", ".join(f"{key}: {value!r}" for key, value in self.arguments.items())
            raise TrainError(
                f"{self.name} rejects {self.key} ({arguments}): {describe(error)} Change that value."
            ) from error
        return instance

    def _get_schedule(self, key: str) -> "KerasObject | None":
        value = self.arguments[key]
        if key != "learning_rate" or not isinstance(value, dict):
            return None
        return KerasObject.from_setting(SCHEDULES, value, f"{self.key}.{key}")


@cache
def load_signatures() -> Signatures:
    """Return the classes of each kind, with the default of each argument, or REQUIRED."""
    signatures: Signatures = json.loads(
        Path(__file__).with_name("keras_signatures.json").read_text(encoding="utf-8")
    )
    return signatures


def inspect_signatures() -> Signatures:
    """Return the contents of keras_signatures.json, from the installed Keras."""
    return {
        kind: {
            name: _read_defaults(keras_class)
            for name, keras_class in sorted(_find_keras_classes(kind).items())
            if name in CALLBACK_STATE or name not in (*BASE_TYPES, *WRAPPERS, *UNSUPPORTED_CALLBACKS)
        }
        for kind in KIND_NAMES
    }


def metric_names(metrics: Iterable[KerasObject]) -> list[str]:
    """Return the names under which Keras logs metrics; the second one of a class gets the suffix `_2`."""
    counts: Counter[str] = Counter()
    names = []
    for metric in metrics:
        name = metric.signature["name"] or re.sub("(.)([A-Z][a-z]+)", r"\1_\2", metric.class_name).lower()
        counts[name] += 1
        names.append(f"{name}_{counts[name]}" if counts[name] > 1 else name)
    return names


def _find_keras_classes(kind: str) -> dict[str, Any]:
    from modelyard.components.train.backend import keras

    module = keras
    for part in kind.split("."):
        module = getattr(module, part)
    return {value.__name__: value for value in vars(module).values() if inspect.isclass(value)}


def _read_defaults(keras_class: Any) -> dict[str, Any]:
    return {
        parameter.name: REQUIRED if parameter.default is parameter.empty else parameter.default
        for parameter in inspect.signature(keras_class).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD and parameter.name not in ("dtype", "from_logits")
    }


def _suggest(wrong: str, choices: Iterable[str]) -> str:
    names = {name.lower(): name for name in choices if name != "name"}
    plain = wrong.lower().replace("_", "")
    near = [name for key, name in names.items() if len(plain) > 2 and key.startswith(plain)][:3]
    near = near or [names[key] for key in difflib.get_close_matches(plain, names, n=3)]
    near = near or difflib.get_close_matches(wrong, names, n=3)
    return f"Did you mean {' or '.join(near)}?" if near else f"Choose one of {', '.join(names.values())}."


def _describe_expected_value(key: str, value: object, default: object, kind: str) -> str:
    """Return the expected kind of value, or an empty string if the value is valid."""
    if value is None and default is None:
        return ""
    number = _is_number(value)
    numbers = isinstance(value, list) and bool(value) and all(map(_is_number, value))
    if isinstance(default, bool):
        fits, expected = isinstance(value, bool), "true or false"
    elif key == "exclude_layers":
        fits = isinstance(value, list) and all(isinstance(name, str) for name in value)
        expected = "a list of names"
    elif key == "mode" and kind == "callbacks":  # Keras would only warn
        fits, expected = value in ("auto", "min", "max"), "auto, min or max"
    elif key == "average" or (isinstance(default, str) and default != REQUIRED):
        fits, expected = isinstance(value, str), "a string"
    elif key.endswith(("_steps", "_frequency")):
        fits, expected = number and value == int(value), "an integer"  # type: ignore[call-overload]
    elif key == "learning_rate":
        fits, expected = number and value > 0, "a number above 0"  # type: ignore[operator]
    elif kind != "optimizers" and (default in (None, REQUIRED) or kind == "losses"):
        fits, expected = number or numbers, "a finite number, or a list of them"
    else:
        fits, expected = number, "a finite number"
    return "" if fits else expected


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def main() -> None:
    """Print keras_signatures.json, one class per line."""
    kinds = (
        f'"{kind}": {{\n'
        + ",\n".join(f' "{name}": {json.dumps(arguments)}' for name, arguments in signatures.items())
        + "\n}"
        for kind, signatures in inspect_signatures().items()
    )
    print("{\n" + ",\n".join(kinds) + "\n}")  # noqa: T201


if __name__ == "__main__":
    main()
