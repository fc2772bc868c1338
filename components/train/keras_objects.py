"""Optimizers, schedules, losses, metrics, callbacks and regularizers by their Keras names, with arguments.

    loss: MeanAbsoluteError
    loss: {name: CategoricalCrossentropy, label_smoothing: 0.1}

Names and arguments are checked against keras_signatures.json, so that a configuration is checked without
TensorFlow; a test compares that file with Keras. Values that only Keras can refuse are refused when the step
`train` or `modelyard plan` builds the object. Only Keras' own classes can be named.

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
"""A name, or `{name: …}` with arguments beside it."""
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
ALIASES = {  # those of keras.losses.get and keras.metrics.get
    "mse": "MeanSquaredError",
    "mae": "MeanAbsoluteError",
    "mape": "MeanAbsolutePercentageError",
    "msle": "MeanSquaredLogarithmicError",
}
BASE_CLASSES = ("Callback", "LearningRateSchedule", "Loss", "Metric", "Optimizer", "Regularizer")
WRAPPERS = ("LossScaleOptimizer", "MeanMetricWrapper", "MultiOptimizer", "OptimizerMap")
REQUIRED = "required"
RESERVED_ARGUMENTS = {
    "name": "modelyard names it",
    "dtype": "training.precision decides it",
    "from_logits": "model.logits decides it",
}

CHECKPOINTS = "modelyard makes the checkpoints (training.checkpoint_every)"
FUNCTION = "it takes Python functions, which a configuration cannot give"
LOGS = "history.json has the metrics of each epoch"
NOT_RESTORED = "a checkpoint does not restore what it has written or sent"
UNSUPPORTED_CALLBACKS = {
    "BackupAndRestore": CHECKPOINTS,
    "CallbackList": "training.callbacks is the list",
    "CSVLogger": f"{NOT_RESTORED}, and {LOGS}",
    "EarlyStopping": "write training.early_stopping",
    "History": LOGS,
    "LambdaCallback": FUNCTION,
    "LearningRateScheduler": f"{FUNCTION}; name a schedule in training.optimizer_settings.learning_rate",
    "ModelCheckpoint": CHECKPOINTS,
    "OrbaxCheckpoint": CHECKPOINTS,
    "ProgbarLogger": "the step prints a line per epoch already",
    "RemoteMonitor": NOT_RESTORED,
    "TensorBoard": NOT_RESTORED,
}
"""The callbacks that cannot be used, and why."""

CALLBACK_STATE: dict[str, tuple[str, ...]] = {
    "EarlyStopping": ("best", "best_epoch", "wait"),
    "ReduceLROnPlateau": ("best", "cooldown_counter", "wait"),
    "SwapEMAWeights": ("_ema_weights_in_model",),
    "TerminateOnNaN": (),
}
"""The attributes of each callback that a checkpoint holds."""


class KerasSettingError(ConfigError, ValueError):
    """A key of the configuration is wrong; pydantic takes it for a finding, as it is a ValueError."""


@dataclass(frozen=True)
class KerasObject:
    """An object of Keras as the configuration names it.

    Attributes:
        kind: the module of Keras, such as `optimizers.schedules`.
        name: of the class, as ReduceLROnPlateau or reduce_lr_on_plateau.
        arguments: of its constructor.
        key: the key that has the arguments.
        name_key: the key that has the name.
    """

    kind: str
    name: str
    arguments: Mapping[str, Any]
    key: str
    name_key: str

    @classmethod
    def of(cls, kind: str, value: NameOrConfig, key: str) -> Self:
        """Return what `key: value` names."""
        if isinstance(value, str):
            return cls(kind, value, {}, key, key)
        arguments = {argument: one for argument, one in value.items() if argument != "name"}
        return cls(kind, str(value.get("name", "")), arguments, key, f"{key}.name")

    @property
    def class_name(self) -> str:
        """Return the name of the class; empty when Keras has no such class."""
        plain = self.name.lower().replace("_", "")
        if self.kind in ("losses", "metrics") and plain in ALIASES:
            return ALIASES[plain]
        return next((name for name in load_signatures()[self.kind] if name.lower() == plain), "")

    @property
    def signature(self) -> dict[str, Any]:
        """Return the defaults of the class's arguments."""
        return load_signatures()[self.kind][self.class_name]

    def config(self) -> dict[str, Any]:
        """Return the class and all its arguments, with Keras' defaults."""
        given = {
            key: one.config() if (one := self._schedule(key)) else self.arguments[key]
            for key in self.arguments
        }
        arguments = {key: one for key, one in self.signature.items() if key != "name"} | given
        return {"class_name": self.class_name, "config": arguments}

    def check(self) -> None:
        """Raise KerasSettingError unless Keras has the class, and it takes such arguments."""
        known = load_signatures()[self.kind]
        refused = {
            name.lower(): reason for name, reason in UNSUPPORTED_CALLBACKS.items() if self.kind == "callbacks"
        }
        if reason := refused.get(self.name.lower().replace("_", "")):
            raise KerasSettingError(
                f"{self.name_key} is {self.name}, which cannot be used: {reason}. Remove it."
            )
        if not self.class_name:
            raise KerasSettingError(
                f"{self.name_key} is {self.name!r}, which is no {KIND_NAMES[self.kind]} of Keras. "
                f"{_suggestion(self.name, known)}"
            )
        for argument, value in self.arguments.items():
            key = f"{self.key}.{argument}"
            if argument in RESERVED_ARGUMENTS:
                raise KerasSettingError(f"{key} is no setting, as {RESERVED_ARGUMENTS[argument]}. Remove it.")
            if argument not in self.signature:
                raise KerasSettingError(
                    f"{key} is no setting of {self.name}. {_suggestion(argument, self.signature)}"
                )
            if schedule := self._schedule(argument):
                schedule.check()
            elif expected := _expected_value(argument, value, self.signature[argument], self.kind):
                raise KerasSettingError(f"{key} is {value!r}, which {self.name} cannot use. Give {expected}.")
        for argument, default in self.signature.items():
            if default == REQUIRED and argument not in self.arguments:
                raise KerasSettingError(
                    f"{self.key}.{argument} is missing, which {self.name} requires. Add it."
                )

    def build(self, **decided: Any) -> Any:
        """Return the object.

        Args:
            decided: arguments of RESERVED_ARGUMENTS; those that the class does not have are left out.

        Raises:
            TrainError: Keras refuses a value; what `check` refuses is not checked again.
        """
        kind = _keras_classes(self.kind)[self.class_name]
        values = {
            key: _match_default_type(value, self.signature[key]) for key, value in self.arguments.items()
        }
        values |= {key: one.build() for key in values if (one := self._schedule(key))}
        values |= {key: decided[key] for key in decided.keys() & inspect.signature(kind).parameters.keys()}
        try:
            built = kind(**values)
            if self.kind == SCHEDULES:
                built(0)  # what Keras does not check before it computes
        except Exception as error:
            given = ", ".join(f"{key}: {value!r}" for key, value in self.arguments.items())
            raise TrainError(
                f"{self.name} refuses {self.key} ({given}): {describe(error)} Change that value."
            ) from error
        return built

    def _schedule(self, key: str) -> "KerasObject | None":
        """Return the learning-rate schedule that an argument names, if it does."""
        value = self.arguments[key]
        if key != "learning_rate" or not isinstance(value, dict):
            return None
        return KerasObject.of(SCHEDULES, value, f"{self.key}.{key}")


@cache
def load_signatures() -> Signatures:
    """Return the classes of each kind, with the default of each argument, or REQUIRED."""
    found: Signatures = json.loads(
        Path(__file__).with_name("keras_signatures.json").read_text(encoding="utf-8")
    )
    return found


def inspect_signatures() -> Signatures:
    """Return what keras_signatures.json has to be, from Keras."""
    return {
        kind: {
            name: _defaults(one)
            for name, one in sorted(_keras_classes(kind).items())
            if name in CALLBACK_STATE or name not in (*BASE_CLASSES, *WRAPPERS, *UNSUPPORTED_CALLBACKS)
        }
        for kind in KIND_NAMES
    }


def metric_names(metrics: Iterable[KerasObject]) -> list[str]:
    """Return the names under which metrics are logged: Keras' own; the second of a class gets `_2`."""
    seen: Counter[str] = Counter()
    names = []
    for one in metrics:
        name = one.signature["name"] or _snake_case(one.class_name)
        seen[name] += 1
        names.append(f"{name}_{seen[name]}" if seen[name] > 1 else name)
    return names


def _keras_classes(kind: str) -> dict[str, Any]:
    """Return the classes of a module of Keras by their names."""
    from modelyard.components.train.backend import keras

    module = keras
    for part in kind.split("."):
        module = getattr(module, part)
    return {one.__name__: one for one in vars(module).values() if inspect.isclass(one)}


def _defaults(kind: Any) -> dict[str, Any]:
    named = inspect.signature(kind).parameters.values()
    arguments = (
        one for one in named if one.kind is not one.VAR_KEYWORD and one.name not in ("dtype", "from_logits")
    )
    return {one.name: REQUIRED if one.default is one.empty else one.default for one in arguments}


def _snake_case(name: str) -> str:
    return re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name).lower()


def _match_default_type(value: Any, default: object) -> Any:
    """Return a whole number as a float where the default is one: Keras refuses a learning rate of 1."""
    return float(value) if isinstance(default, float) and isinstance(value, int) else value


def _suggestion(wrong: str, known: Iterable[str]) -> str:
    names = {name.lower(): name for name in known if name != "name"}
    near = [names[one] for one in difflib.get_close_matches(wrong.lower().replace("_", ""), names, n=3)]
    near = near or difflib.get_close_matches(wrong, names, n=3)
    return f"Did you mean {' or '.join(near)}?" if near else f"Choose one of {', '.join(names.values())}."


def _expected_value(key: str, value: object, default: object, kind: str) -> str:
    """Return what an argument has to be, or nothing when its value is that."""
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
        fits, expected = isinstance(value, str), "text"
    elif key.endswith(("_steps", "_frequency")):
        fits, expected = number and value == int(value), "a whole number"  # type: ignore[call-overload]
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
    """Print keras_signatures.json: a line for each class."""
    kinds = (
        f'"{kind}": {{\n'
        + ",\n".join(f' "{name}": {json.dumps(one)}' for name, one in signatures.items())
        + "\n}"
        for kind, signatures in inspect_signatures().items()
    )
    print("{\n" + ",\n".join(kinds) + "\n}")  # noqa: T201 - the file


if __name__ == "__main__":
    main()
