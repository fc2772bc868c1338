"""The network: from raw examples to predictions in the unit of the targets, including normalization.

The built-in network is the CNN of the Keras tutorials: convolution and pooling, repeated, then dense layers.
Any other Keras model comes from the user's code (user_code.py) and gets the same normalization.
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
from modelyard.components.train.settings import POOL_SIZE, Model, find_size_error


def build_network(
    settings: Model,
    schema: Schema,
    normalization: Normalization,
    code: Path,
    code_sha256: str,
    precision: str = "float32",
) -> Any:
    """Return an untrained `keras.Model`.

    The input is raw examples (batch, *schema.shape) of `schema.dtype`; the output is predictions (batch, n).

    Args:
        settings: `build` and `code`, or the layers of the built-in CNN.
        schema: of the examples.
        normalization: of the examples and the targets.
        code: folder with the user's code; not used for the built-in CNN.
        code_sha256: expected fingerprint of that folder.
        precision: Keras dtype policy of the layers; normalized examples and predictions are float32.

    Raises:
        TrainError: the network does not fit the examples or the targets, or the user's code fails.
    """
    with dtype_policy(precision):
        raw = keras.Input(schema.shape, dtype=schema.dtype, name="input")
        raw_examples = keras.layers.Identity(dtype="float32", name=user_code.RAW_LAYER)(raw)
        examples = _normalize(raw_examples, normalization)
        scaled = False
        if settings.build is None:
            outputs = _apply_cnn(settings, schema, examples)
        else:
            model = user_code.build_model(settings, schema, code, code_sha256)
            if user_code.has_layer(model, user_code.RAW_LAYER):
                log("the model normalizes its input: data.normalize is not applied again")
                examples = raw
            scaled = user_code.has_layer(model, user_code.SCALED_LAYER)
            outputs = user_code.apply_model(model, settings, schema, examples, code)
        if not scaled:
            outputs = _scale_outputs(outputs, normalization)
            outputs = keras.layers.Identity(dtype="float32", name=user_code.SCALED_LAYER)(outputs)
        return keras.Model(raw, outputs, name="model")


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Set the Keras dtype policy of layers that are created in the block."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


def add_export_layer(network: Any, settings: Model, schema: Schema) -> Any:
    """Return the model to export: the network, followed by the export layer of the problem if it has one."""
    outputs = network.outputs[0]
    if layer := problems.get_problem(schema.problem).build_export_layer(settings.logits):
        outputs = layer(outputs)
    return keras.Model(network.inputs[0], outputs, name="model")


def _normalize(raw: Any, normalization: Normalization) -> Any:
    """Return `(raw - mean) / scale` in float32."""
    mean, scale = map(_as_operand, (normalization.mean, normalization.scale))
    examples = keras.ops.cast(raw, "float32")
    if any(normalization.mean):
        examples = keras.ops.subtract(examples, mean)
    if any(value != 1 for value in normalization.scale):
        examples = keras.ops.divide(examples, scale)
    return examples


def _scale_outputs(outputs: Any, normalization: Normalization) -> Any:
    """Return `outputs * target_scale + target_mean`."""
    mean, scale = map(_as_operand, (normalization.target_mean, normalization.target_scale))
    if any(value != 1 for value in normalization.target_scale):
        outputs = keras.ops.multiply(outputs, scale)
    if any(normalization.target_mean):
        outputs = keras.ops.add(outputs, mean)
    return outputs


def _as_operand(values: tuple[float, ...]) -> Any:
    return np.asarray(values, np.float32) if len(values) > 1 else values[0]


def _apply_cnn(settings: Model, schema: Schema, examples: Any) -> Any:
    """Return the output of the built-in CNN; without filters it has dense layers only."""
    filters = settings.effective_filters(schema.shape)
    if error := find_size_error(filters, settings.kernel, schema.shape):
        raise TrainError(error)
    layers: list[Any] = []
    if filters and len(schema.shape) == 2:
        layers.append(keras.layers.Reshape((*schema.shape, 1), name="channel"))
    for number, channels in enumerate(filters, 1):
        layers += [
            keras.layers.Conv2D(channels, settings.kernel, activation="relu", name=f"convolution_{number}"),
            keras.layers.MaxPooling2D(POOL_SIZE, name=f"pooling_{number}"),
        ]
    layers.append(keras.layers.Flatten(name="flatten"))
    for number, units in enumerate(settings.dense, 1):
        layers.append(keras.layers.Dense(units, activation="relu", name=f"dense_{number}"))
    if settings.dropout:
        layers.append(keras.layers.Dropout(settings.dropout, name="dropout"))
    with dtype_policy("float32"):
        layers.append(problems.get_problem(schema.problem).build_output_layer(schema.names, settings.logits))
    for argument, regularizer in settings.regularizers().items():
        for layer in layers:
            if hasattr(layer, argument):
                setattr(layer, argument, regularizer.build())
    for layer in layers:
        examples = layer(examples)
    return examples
