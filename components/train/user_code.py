"""A Keras model from the user's own code: `module:function` in a folder that the configuration names.

    # networks/small.py, with model.build: small:build and model.code: networks
    def build(input_shape, classes, width=64):
        return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), ...])

The function gets the shape of one example, the number of values in an answer under the problem's name for it
(`classes`, `targets`), and model.arguments. Its model takes normalized float32 examples. For classification
it gives (None, classes): probabilities, or logits with model.logits. For regression it gives (None, targets)
without activation: standard deviations from the mean of the training targets, which are scaled to their unit
behind it. A compiled model is refused: the configuration says how it is trained.
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
from modelyard.components.errors import ModelyardError, TooLargeError, TrainError, describe
from modelyard.components.train.backend import is_out_of_memory, keras
from modelyard.components.train.settings import Model

RAW_LAYER, SCALED_LAYER = "raw_examples", "scaled_answers"
TRAINING_METHODS = ("train_step", "test_step", "compute_loss", "compute_metrics", "fit")


def build_model(settings: Model, schema: Schema, code: Path, code_sha256: str) -> Any:
    """Return the user's model.

    Args:
        settings: with `build` and `arguments`.
        schema: the shape of an example, the problem and the names of an answer's values.
        code: the folder.
        code_sha256: what its fingerprint has to be; checked before anything in it runs.

    Raises:
        TrainError: the folder changed, there is no such function, it fails, or what it returns is not
            a model that the step can train.
    """
    _check_unchanged(code, code_sha256)
    function = _load_function(str(settings.build), code)
    size, values = problems.describe(schema.problem).size, len(schema.names)
    arguments = {"input_shape": schema.shape, size: values, **settings.arguments}
    _check_arguments(str(settings.build), function, arguments)
    with translate_errors(code, f"model.build {settings.build}"):
        model = function(**arguments)
    if not isinstance(model, keras.Model):
        raise TrainError(
            f"model.build {settings.build} returned {type(model).__name__}, not a keras.Model. "
            "Return the model."
        )
    _check_training(str(settings.build), model)
    return model


def has_layer(model: Any, name: str) -> bool:
    """Say whether a model has a layer of this name, RAW_LAYER or SCALED_LAYER, at any depth."""
    return any(layer.name == name for layer in model._flatten_layers())


def apply(model: Any, settings: Model, schema: Schema, examples: Any, code: Path) -> Any:
    """Return what the user's model makes of examples.

    Args:
        model: what `build_model` returned.
        settings: with `build`.
        schema: the shape of an example, the problem and the names of an answer's values.
        examples: symbolic (None, *shape), normalized unless the model has the layer RAW_LAYER.
        code: the folder.

    Raises:
        TrainError: the model fails, or its answers do not fit.
    """
    size, values = problems.describe(schema.problem).size, len(schema.names)
    with translate_errors(
        code, f"The model of {settings.build}, called with examples of shape {schema.shape},"
    ):
        outputs = model(examples)
    got = getattr(outputs, "shape", None)
    if got != (None, values):
        raise TrainError(
            f"The model of {settings.build} gives {got or type(outputs).__name__}, but {(None, values)} is "
            f"expected: {size} is {values}. Let it have one output, a Dense layer of `{size}` units."
        )
    if outputs.dtype != "float32":
        raise TrainError(
            f"The model of {settings.build} gives {outputs.dtype}, but clients are promised float32. Give "
            'its last layer dtype="float32".'
        )
    return outputs


def _check_training(build: str, model: Any) -> None:
    own = [
        name
        for name in TRAINING_METHODS
        if getattr(type(model), name) is not _keras_method(type(model), name)
    ]
    if own:
        raise TrainError(
            f"The model of {build} overrides {own[0]}, which would not be used: its layers are "
            "trained as the configuration says. Remove it, and set training.loss, training.optimizer and "
            "training.class_weights."
        )
    if model.compiled:
        optimizer, loss = type(model.optimizer).__name__, model.loss
        raise TrainError(
            f"The model of {build} was compiled with {optimizer} and the loss {loss}, which would not be "
            "used. Remove compile(), or load it with compile=False, and set training.optimizer, "
            "training.optimizer_settings and training.loss."
        )


def _keras_method(kind: type, name: str) -> Any:
    """Return the method of the first class that Keras itself defines."""
    return next(getattr(each, name) for each in kind.__mro__ if each.__module__.startswith("keras."))


@contextmanager
def translate_errors(code: Path, what: str) -> Iterator[None]:
    """Turn an exception of the user's code into a TrainError with file, line and cause.

    Raises:
        TooLargeError: it ran out of memory.
        TrainError: it failed in another way.
    """
    try:
        yield
    except ModelyardError:
        raise
    except (Exception, SystemExit) as error:
        place = _error_location(error, code)
        if is_out_of_memory(error):
            raise TooLargeError(
                f"{what} ran out of memory{place}: {describe(error)} Lower the sizes in `model` or "
                "training.batch_size."
            ) from error
        where = "there" if place else f"in {code}"
        raise TrainError(f"{what} failed{place}: {describe(error)} Correct it {where}.") from error


def _error_location(error: BaseException, code: Path) -> str:
    """Return ` at file:line` of the innermost frame inside the folder, or nothing."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}:{error.lineno}"
    folder = code.resolve()
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve().is_relative_to(folder)
    ]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _check_unchanged(code: Path, expected: str) -> None:
    if not code.is_dir():
        raise TrainError(f"model.code is {code}, which is no folder. Name the folder that holds the module.")
    if (found := artifacts.tree_sha256(code)) != expected:
        raise TrainError(
            f"The code in {code} has the fingerprint {found[:12]}, but the run began with {expected[:12]}: "
            "a file changed meanwhile. Run again."
        )


def _check_arguments(build: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    signature = inspect.signature(function)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise TrainError(
            f"model.build {build} is called with {', '.join(arguments)}, but takes {signature}: {error}. "
            "Change model.arguments or the function."
        ) from error


def _load_function(build: str, code: Path) -> Callable[..., Any]:
    name, _, attribute = build.partition(":")
    module = _import_module(name, build, code)
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(attribute, known, n=3) or known
        raise TrainError(
            f"model.build is {build}, but {module.__file__} has no function {attribute}. "
            f"{'It has ' + ', '.join(near) + '.' if near else 'Define it there.'}"
        )
    return function  # type: ignore[no-any-return]


def _import_module(name: str, build: str, code: Path) -> ModuleType:
    """Import the module from the folder, which stays importable: layers may import more while they train."""
    folder = code.resolve()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    with translate_errors(code, f"The import of {name} for model.build {build}"):
        module = importlib.import_module(name)
    file = getattr(module, "__file__", None)
    if not file or not Path(file).resolve().is_relative_to(folder):
        raise TrainError(
            f"model.build is {build}, but the name {name} belongs to {file or 'Python itself'} and not to "
            f"{code}. Give the module in {code} another name."
        )
    return module
