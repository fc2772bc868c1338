"""The optimizers of Keras by name, with their settings checked.

NAMES needs no TensorFlow, so that a configuration can be checked in milliseconds; `build` imports it.
"""

import difflib
import inspect
import math
from collections.abc import Mapping
from typing import Any

from components.errors import TrainError
from components.train.cause import said

NAMES = (
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "ftrl",
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
        if not _fits(value, defaults[key]) or (key == "learning_rate" and value <= 0):
            raise TrainError(
                f"training.optimizer_settings.{key} is {value!r}, which {name} cannot use. Give "
                f"{_wanted(key, defaults[key])}."
            )
    try:
        return kind(**settings)
    except (ValueError, TypeError) as error:
        given = ", ".join(f"{key}: {value!r}" for key, value in settings.items())
        raise TrainError(
            f"training.optimizer_settings ({given}) are refused by {name}: {said(error)} Change that value."
        ) from error


def _kind(name: str) -> Any:
    if name not in NAMES:
        raise TrainError(
            f"training.optimizer is {name!r}, which is no Keras optimizer. {_instead(name, NAMES)}"
        )
    from components.train.backend import keras

    kinds = {key.lower(): kind for key, kind in vars(keras.optimizers).items() if inspect.isclass(kind)}
    return kinds[name.replace("_", "")]


def _instead(wrong: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(wrong, known, n=3)
    return f"Did you mean {' or '.join(near)}?" if near else f"Choose one of {', '.join(known)}."


def _fits(value: object, default: object) -> bool:
    """Say whether a value is of the kind of its setting's default; a setting that is None is a number."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    if value is None:
        return default is None
    if isinstance(default, str | list | tuple):
        return isinstance(value, type(default))
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wanted(key: str, default: object) -> str:
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, str | list | tuple):
        return f"a value such as {default!r}"
    return "a number above 0" if key == "learning_rate" else "a finite number"
