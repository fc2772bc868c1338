"""Keras on TensorFlow, imported in this one place, quietly.

    from components.train.backend import keras, tf

The import costs seconds: what others import (settings, component, optimizers) does it inside functions.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import tensorflow as tf

from components.errors import TrainError

if keras.backend.backend() != "tensorflow":
    raise TrainError(
        f"KERAS_BACKEND is {keras.backend.backend()}, but this step trains and exports with TensorFlow. "
        "Unset KERAS_BACKEND."
    )

__all__ = ["keras", "tf"]
