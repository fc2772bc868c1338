"""Keras on TensorFlow or on JAX, imported in this one place, quietly.

    from modelyard.components.train.backend import BACKEND, keras, tf

TensorFlow is there in both cases: it cuts the rows into batches, and it writes the exported files. The import
costs seconds: what others import (settings, component, optimizers) does it inside functions.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import tensorflow as tf

from modelyard.components.errors import TrainError

BACKEND: str = keras.backend.backend()

if BACKEND not in ("tensorflow", "jax"):
    raise TrainError(
        f"KERAS_BACKEND is {BACKEND}, but this step trains with tensorflow or jax. Set it to one of them."
    )

__all__ = ["BACKEND", "keras", "tf"]
