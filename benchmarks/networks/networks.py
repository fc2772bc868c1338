"""Networks with different bottlenecks, for benchmarks/plan.py."""

from typing import Any

import keras
from keras import layers


def depthwise(input_shape: tuple[int, ...], classes: int) -> Any:
    """Separable convolutions: little arithmetic for much memory traffic."""
    examples = keras.Input(input_shape)
    x = examples
    for filters in (32, 64, 64):
        x = layers.SeparableConv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.BatchNormalization()(x)
        x = layers.MaxPooling2D()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(examples, layers.Dense(classes, activation="softmax")(x))


def recurrent(input_shape: tuple[int, ...], classes: int) -> Any:
    """An LSTM over the rows of an image: many small operations, one after the other."""
    height, width, channels = input_shape
    examples = keras.Input(input_shape)
    x = layers.Reshape((height, width * channels))(examples)
    x = layers.LSTM(32)(x)
    return keras.Model(examples, layers.Dense(classes, activation="softmax")(x))


def attention(input_shape: tuple[int, ...], classes: int) -> Any:
    """A transformer block over the patches of an image."""
    examples = keras.Input(input_shape)
    x = layers.Conv2D(64, 4, strides=4)(examples)
    x = layers.Reshape((-1, 64))(x)
    attended = layers.MultiHeadAttention(4, 16)(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, attended]))
    hidden = layers.Dense(64)(layers.Dense(128, activation="relu")(x))
    x = layers.LayerNormalization()(layers.Add()([x, hidden]))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(examples, layers.Dense(classes, activation="softmax")(x))
