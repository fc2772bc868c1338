"""Networks that differ in what they spend their time on, for benchmarks/plan.py."""

from typing import Any

import keras
from keras import layers


def depthwise(input_shape: tuple[int, ...], classes: int) -> Any:
    """Separable convolutions: little arithmetic for much memory traffic."""
    examples = keras.Input(input_shape)
    found = examples
    for filters in (32, 64, 64):
        found = layers.SeparableConv2D(filters, 3, padding="same", activation="relu")(found)
        found = layers.BatchNormalization()(found)
        found = layers.MaxPooling2D()(found)
    found = layers.GlobalAveragePooling2D()(found)
    return keras.Model(examples, layers.Dense(classes, activation="softmax")(found))


def recurrent(input_shape: tuple[int, ...], classes: int) -> Any:
    """An LSTM over the rows of a picture: many small operations, one after the other."""
    height, width, channels = input_shape
    examples = keras.Input(input_shape)
    found = layers.Reshape((height, width * channels))(examples)
    found = layers.LSTM(32)(found)
    return keras.Model(examples, layers.Dense(classes, activation="softmax")(found))


def attention(input_shape: tuple[int, ...], classes: int) -> Any:
    """A block of a transformer over the patches of a picture."""
    examples = keras.Input(input_shape)
    found = layers.Conv2D(64, 4, strides=4)(examples)
    found = layers.Reshape((-1, 64))(found)
    attended = layers.MultiHeadAttention(4, 16)(found, found)
    found = layers.LayerNormalization()(layers.Add()([found, attended]))
    hidden = layers.Dense(64)(layers.Dense(128, activation="relu")(found))
    found = layers.LayerNormalization()(layers.Add()([found, hidden]))
    found = layers.GlobalAveragePooling1D()(found)
    return keras.Model(examples, layers.Dense(classes, activation="softmax")(found))
