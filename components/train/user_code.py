"""Builds a Keras model with the user's code: `module:function` in the folder model.code.

    # networks/small.py, with model.build: small:build and model.code: networks
    def build(input_shape, classes, width=64):
        return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), ...])

The function is called with the shape of one example, the number of outputs (`classes` or `targets`), and
model.arguments. The input of its model is normalized float32 examples. The output is (None, classes) for
classification: probabilities, or logits with model.logits. For regression the output is (None, targets),
without activation, in standard deviations from the mean of the training targets; modelyard scales it to the
unit of the targets. A compiled model is an error, because the configuration decides how it is trained.
"""

import difflib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from modelyard.components import artifacts, problems
from modelyard.components.artifacts import Schema
from modelyard.components.errors import ModelyardError, TooLargeError, TrainError, describe, pluralize
from modelyard.components.train.backend import is_out_of_memory, keras
from modelyard.components.train.settings import Model

RAW_LAYER, SCALED_LAYER = "raw_examples", "scaled_predictions"
"""Layers before the normalization and after the scaling. A user's model that has one of them, such as a
version that the user's code loads, does this itself."""
TRAINING_METHODS = ("train_step", "test_step", "compute_loss", "compute_metrics", "fit")


def build_model(settings: Model, schema: Schema, code: Path, code_sha256: str) -> Any:
    """Return the user's model; `code_sha256` is checked before the code in the folder is imported.

    Raises:
        TrainError: the folder changed, the function does not exist or fails, or its result is not a model
            that the step can train.
    """
    _check_unchanged(code, code_sha256)
    function = _load_function(str(settings.build), code)
    size, values = problems.get_description(schema.problem).size_name, len(schema.names)
    arguments = {"input_shape": schema.shape, size: values, **settings.arguments}
    _check_arguments(str(settings.build), function, arguments)
    with translate_errors(code, f"model.build {settings.build}"):
        model = function(**arguments)
    if not isinstance(model, keras.Model):
        raise TrainError(
            f"model.build {settings.build} returned a value of the type {type(model).__name__}. Return a "
            "keras.Model."
        )
    _check_training(str(settings.build), model)
    return model


def has_layer(model: Any, name: str) -> bool:
    """Return whether a model has a layer with a name, at any depth."""
    return any(layer.name == name for layer in model._flatten_layers())


def apply_model(model: Any, settings: Model, schema: Schema, examples: Any, code: Path) -> Any:
    """Return the output of the user's model.

    `examples` is symbolic (None, *shape), normalized unless the model has the layer RAW_LAYER.

    Raises:
        TrainError: the model fails, or its output has the wrong shape or dtype.
    """
    size, values = problems.get_description(schema.problem).size_name, len(schema.names)
    with translate_errors(
        code, f"The model of {settings.build}, called with examples of shape {schema.shape},"
    ):
        outputs = model(examples)
    shape = getattr(outputs, "shape", None)
    if shape != (None, values):
        raise TrainError(
            f"The output of the model of {settings.build} is {shape or type(outputs).__name__}, but must be "
            f"{(None, values)}, because the data has {pluralize(values, size.removesuffix('s'))}. End the "
            f"model with a Dense layer of `{size}` units."
        )
    if outputs.dtype != "float32":
        raise TrainError(
            f"The output of the model of {settings.build} is {outputs.dtype}, but must be float32. Set "
            'dtype="float32" in its last layer.'
        )
    return outputs


def _check_training(build: str, model: Any) -> None:
    """Raise TrainError if the model was compiled, or overrides a method of training."""
    keras_base = next(base for base in type(model).__mro__ if base.__module__.startswith("keras."))
    overridden = [
        name for name in TRAINING_METHODS if getattr(type(model), name) is not getattr(keras_base, name)
    ]
    if overridden:
        raise TrainError(
            f"The model of {build} overrides {overridden[0]}, which would not be used, because the "
            "configuration decides how its layers are trained. Remove it, and set training.loss, "
            "training.optimizer and training.class_weights."
        )
    if model.compiled:
        optimizer, loss = type(model.optimizer).__name__, model.loss
        raise TrainError(
            f"The model of {build} was compiled with {optimizer} and the loss {loss}, which would not be "
            "used. Remove compile(), or load it with compile=False, and set training.optimizer, "
            "training.optimizer_settings and training.loss."
        )


@contextmanager
def translate_errors(code: Path, action: str) -> Iterator[None]:
    """Raise TrainError with file, line and cause for an exception in the user's code.

    If the code runs out of memory, it is a TooLargeError.
    """
    try:
        yield
    except ModelyardError:
        raise
    except (Exception, SystemExit) as error:
        location = _find_error_location(error, code)
        if is_out_of_memory(error):
            raise TooLargeError(
                f"{action} ran out of memory{location}: {describe(error)} Lower the layer sizes in `model`, "
                "or training.batch_size."
            ) from error
        subject = "that line" if location else f"the code in {code}"
        raise TrainError(f"{action} failed{location}: {describe(error)} Correct {subject}.") from error


def _find_error_location(error: BaseException, code: Path) -> str:
    """Return ` at file:line` of the innermost frame inside the folder, or an empty string."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}:{error.lineno}"
    folder = code.resolve()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).resolve().is_relative_to(folder):
            return f" at {frame.filename}:{frame.lineno}"
    return ""


def _check_unchanged(code: Path, expected: str) -> None:
    if not code.is_dir():
        raise TrainError(f"model.code is {code}, which is not a folder. Set it to the folder of the module.")
    if (actual := artifacts.tree_sha256(code)) != expected:
        raise TrainError(
            f"The code in {code} changed during the run: its fingerprint is {actual[:12]}, but was "
            f"{expected[:12]}. Run again."
        )


def _check_arguments(build: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    signature = inspect.signature(function)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise TrainError(
            f"model.build {build} is called with {', '.join(arguments)}, but its signature is {signature}: "
            f"{error}. Change model.arguments or the function."
        ) from error


def _load_function(build: str, code: Path) -> Callable[..., Any]:
    name, _, attribute = build.partition(":")
    module = _import_module(name, build, code)
    function = getattr(module, attribute, None)
    if not callable(function):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(attribute, names, n=3) or names
        raise TrainError(
            f"model.build is {build}, but {module.__file__} has no function {attribute}. "
            f"{'Choose one of ' + ', '.join(near) if near else 'Define it'}."
        )
    return function  # type: ignore[no-any-return]


def _import_module(name: str, build: str, code: Path) -> ModuleType:
    """Import the module from the folder; the folder remains in sys.path for imports during training."""
    folder = code.resolve()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    with translate_errors(code, f"The import of {name} for model.build {build}"):
        module = importlib.import_module(name)
    file = getattr(module, "__file__", None)
    if not file or not Path(file).resolve().is_relative_to(folder):
        raise TrainError(
            f"model.build is {build}, but {name} is the module {file or 'built into Python'}, "
            f"outside {code}. Rename the module in {code}."
        )
    return module
