"""The network: raw examples in, normalized inside, answers out in the unit of the targets.

Built-in is the CNN of the Keras tutorials: convolution and pooling, repeated, then dense layers. Any other
Keras model comes from the user's own code (user_code.py) and is put in the same frame.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.components import problems
from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.errors import TrainError
from modelyard.components.step import log
from modelyard.components.train import user_code
from modelyard.components.train.backend import keras
from modelyard.components.train.settings import Model

POOL_SIZE = 2


def build_network(
    settings: Model,
    schema: Schema,
    normalization: Normalization,
    code: Path,
    code_sha256: str,
    precision: str = "float32",
) -> Any:
    """Return an untrained `keras.Model`.

    It takes raw examples (batch, *schema.shape) of `schema.dtype` and gives (batch, values of an answer).

    Args:
        settings: which network.
        schema: what the examples are.
        normalization: what is done to them first, and to the answers last.
        code: folder with the user's own code; not looked at for the built-in CNN.
        code_sha256: what that folder's fingerprint has to be.
        precision: Keras' dtype policy of the layers; examples, and answers, are float32.

    Raises:
        TrainError: the network does not fit the examples or the answers, or the user's code fails.
    """
    with dtype_policy(precision):
        raw = keras.Input(schema.shape, dtype=schema.dtype, name="input")
        marked = keras.layers.Identity(dtype="float32", name=user_code.RAW_LAYER)(raw)
        examples = _normalize(marked, normalization)
        scaled = False
        if settings.build is None:
            outputs = _apply_cnn(settings, schema, examples)
        else:
            own = user_code.build_model(settings, schema, code, code_sha256)
            if user_code.has_layer(own, user_code.RAW_LAYER):
                log("the model normalizes its input: data.normalize is not applied again")
                examples = raw
            scaled = user_code.has_layer(own, user_code.SCALED_LAYER)
            outputs = user_code.apply(own, settings, schema, examples, code)
        if not scaled:
            outputs = _scale_outputs(outputs, normalization)
            outputs = keras.layers.Identity(dtype="float32", name=user_code.SCALED_LAYER)(outputs)
        return keras.Model(raw, outputs, name="model")


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Make layers with a dtype policy of Keras."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def add_export_layer(network: Any, settings: Model, schema: Schema) -> Any:
    """Return the network that is exported: the same layers, with the last one that the problem adds."""
    outputs = network.outputs[0]
    if layer := problems.of(schema.problem).export_layer(settings.logits):
        outputs = layer(outputs)
    return keras.Model(network.inputs[0], outputs, name="model")


def _normalize(raw: Any, normalization: Normalization) -> Any:
    """Return `(raw - mean) / deviation` in float32."""
    mean, deviation = (
        np.asarray(values, np.float32) if len(values) > 1 else values[0]
        for values in (normalization.mean, normalization.deviation)
    )
    examples = keras.ops.cast(raw, "float32")
    if any(normalization.mean):
        examples = keras.ops.subtract(examples, mean)
    if any(value != 1 for value in normalization.deviation):
        examples = keras.ops.divide(examples, deviation)
    return examples


def _scale_outputs(outputs: Any, normalization: Normalization) -> Any:
    """Return `outputs * target_deviation + target_mean`."""
    mean, deviation = (
        np.asarray(values, np.float32) if len(values) > 1 else values[0]
        for values in (normalization.target_mean, normalization.target_deviation)
    )
    if any(value != 1 for value in normalization.target_deviation):
        outputs = keras.ops.multiply(outputs, deviation)
    if any(normalization.target_mean):
        outputs = keras.ops.add(outputs, mean)
    return outputs


def _apply_cnn(settings: Model, schema: Schema, examples: Any) -> Any:
    """Return what the built-in CNN makes of examples; without filters it is a plain dense network."""
    _check_image_size(settings, schema.shape)
    layers: list[Any] = []
    if settings.filters and len(schema.shape) == 2:
        layers.append(keras.layers.Reshape((*schema.shape, 1), name="channel"))
    for number, filters in enumerate(settings.filters, 1):
        layers.append(
            keras.layers.Conv2D(filters, settings.kernel, activation="relu", name=f"convolution_{number}")
        )
        layers.append(keras.layers.MaxPooling2D(POOL_SIZE, name=f"pooling_{number}"))
    layers.append(keras.layers.Flatten(name="flatten"))
    for number, units in enumerate(settings.dense, 1):
        layers.append(keras.layers.Dense(units, activation="relu", name=f"dense_{number}"))
    if settings.dropout:
        layers.append(keras.layers.Dropout(settings.dropout, name="dropout"))
    with dtype_policy("float32"):
        layers.append(problems.of(schema.problem).output_layer(schema.names, settings.logits))
    for argument, regularizer in settings.regularizers().items():
        for layer in layers:
            if hasattr(layer, argument):
                setattr(layer, argument, regularizer.build())
    for layer in layers:
        examples = layer(examples)
    return examples


def _check_image_size(settings: Model, shape: tuple[int, ...]) -> None:
    """Raise unless each convolution and pooling still has pixels to work on."""
    if not settings.filters:
        return
    if len(shape) not in (2, 3):
        raise TrainError(
            f"The built-in CNN takes pictures, (height, width) or (height, width, channels), but an example "
            f"has shape {shape}. Set model.filters to [] for dense layers only, or name a network of your "
            "own in model.build."
        )
    sides = shape[:2]
    for number in range(1, len(settings.filters) + 1):
        convolved = tuple(side - settings.kernel + 1 for side in sides)
        for layer, given, left in (
            (f"convolution_{number} ({settings.kernel}x{settings.kernel})", sides, convolved),
            (
                f"pooling_{number} ({POOL_SIZE}x{POOL_SIZE})",
                convolved,
                tuple(side // POOL_SIZE for side in convolved),
            ),
        ):
            if min(left) < 1:
                raise TrainError(
                    f"{layer} has no room: of examples of shape {shape} only {given[0]}x{given[1]} pixels "
                    f"reach it. Give fewer model.filters (now {list(settings.filters)}), a smaller "
                    "model.kernel, or larger pictures."
                )
        sides = tuple(side // POOL_SIZE for side in convolved)
