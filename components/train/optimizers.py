"""The optimizers of Keras by name, with their settings checked.

NAMES needs no TensorFlow, so that a configuration can be checked in milliseconds; `build` imports it.
"""

import difflib
import inspect
import math
from collections.abc import Mapping
from typing import Any

from modelyard.components.errors import TrainError, describe

NAMES = (
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "ftrl",
    "lamb",
    "lion",
    "muon",
    "nadam",
    "rmsprop",
    "schedule_free_adamw",
    "sgd",
)


def build(name: str, settings: Mapping[str, Any]) -> Any:
    """Return the Keras optimizer `name`.

    Args:
        name: one of NAMES.
        settings: its keyword arguments, as Keras names them; the others keep Keras' defaults.

    Raises:
        TrainError: no such optimizer or setting, or a value that the setting cannot have.
    """
    kind = _kind(name)
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD and key != "name"
    }
    for key, value in settings.items():
        if key not in defaults:
            raise TrainError(
                f"training.optimizer_settings.{key} is no setting of {name}. {_instead(key, tuple(defaults))}"
            )
        if wanted := _wanted_instead(key, value, defaults[key]):
            raise TrainError(
                f"training.optimizer_settings.{key} is {value!r}, which {name} cannot use. Give {wanted}."
            )
    values = {key: _as_default(value, defaults[key]) for key, value in settings.items()}
    if isinstance(rate := values.get("learning_rate"), Mapping):
        values["learning_rate"] = _schedule(rate)
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        given = ", ".join(f"{key}: {value!r}" for key, value in settings.items())
        raise TrainError(
            f"{name} refuses training.optimizer_settings ({given}): {describe(error)} Change that value."
        ) from error


def _kind(name: str) -> Any:
    if name not in NAMES:
        raise TrainError(
            f"training.optimizer is {name!r}, which is no Keras optimizer. {_instead(name, NAMES)}"
        )
    from modelyard.components.train.backend import keras

    kinds = {key.lower(): kind for key, kind in vars(keras.optimizers).items() if inspect.isclass(kind)}
    return kinds[name.replace("_", "")]


def _schedule(settings: Mapping[str, Any]) -> Any:
    """Return a learning-rate schedule of Keras: its name, and its arguments."""
    from modelyard.components.train.backend import keras

    kinds = {key: kind for key, kind in vars(keras.optimizers.schedules).items() if inspect.isclass(kind)}
    del kinds["LearningRateSchedule"]
    name, arguments = settings.get("name"), {key: one for key, one in settings.items() if key != "name"}
    where = "training.optimizer_settings.learning_rate"
    if name not in kinds:
        raise TrainError(
            f"{where}.name is {name!r}, which is no learning-rate schedule of Keras. "
            f"{_instead(str(name), tuple(sorted(kinds)))}"
        )
    try:
        return kinds[name](**arguments)
    except (ValueError, TypeError) as error:
        raise TrainError(f"{name} refuses {where}: {describe(error)} Change its arguments.") from error


def _as_default(value: Any, default: object) -> Any:
    """Return a whole number as a float where the default is one: Keras refuses a learning rate of 1."""
    return float(value) if isinstance(default, float) and isinstance(value, int) else value


def _instead(wrong: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(wrong, known, n=3)
    return f"Did you mean {' or '.join(near)}?" if near else f"Choose one of {', '.join(known)}."


def _wanted_instead(key: str, value: object, default: object) -> str:
    """Return what a setting has to be, or nothing when its value is that."""
    if value is None and default is None:
        return ""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif key == "exclude_layers":
        fits = isinstance(value, list) and all(isinstance(name, str) for name in value)
        wanted = "a list of names"
    elif key.endswith(("_steps", "_frequency")):
        fits, wanted = number and isinstance(value, int), "a whole number"
    elif key == "learning_rate" and isinstance(value, Mapping):
        fits, wanted = True, ""
    elif key == "learning_rate":
        fits, wanted = number and value > 0, "a number above 0"  # type: ignore[operator]
    else:
        fits, wanted = number, "a finite number"
    return "" if fits else wanted
