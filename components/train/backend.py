"""Configures and imports Keras, on TensorFlow or JAX, and checks the accelerator.

    from modelyard.components.train.backend import BACKEND, keras, tf

TensorFlow is imported with both backends: it batches the examples and writes the exported files. The import
takes seconds, so modules that other packages import (settings, component) import this one inside functions.

On a cluster, MODELYARD_ACCELERATOR is gpu or tpu for a step that requires one, so that a missing driver is
an error instead of hours of training on a CPU.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow disables oneDNN without AVX-512, which makes convolutions 1.4 times slower.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# Reuse the memory of a training step for the next one: malloc returns it to the kernel, and in a virtual
# machine the page faults take as long as the step.
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
os.environ["KERAS_BACKEND"] = os.environ.get("KERAS_BACKEND") or "tensorflow"  # else keras.json decides
os.environ.pop("KERAS_MAX_EPOCHS", None)  # would end the training early
os.environ.pop("KERAS_MAX_STEPS_PER_EPOCH", None)

import keras
import tensorflow as tf

from modelyard.components.errors import TooLargeError, TrainError, find_machine_error

__all__ = ["BACKEND", "is_out_of_memory", "keras", "list_devices", "tf", "translate_out_of_memory"]

keras.config.set_floatx("float32")  # overrides ~/.keras/keras.json
keras.config.set_epsilon(1e-7)
keras.config.set_image_data_format("channels_last")

BACKEND: str = keras.backend.backend()
REQUIRED_ACCELERATOR = "MODELYARD_ACCELERATOR"
ACCELERATOR_OPTIONAL = "MODELYARD_ACCELERATOR_OPTIONAL"
ACCELERATOR_IMAGES = {"gpu": "train-cuda", "tpu": "train-tpu"}

if BACKEND not in ("tensorflow", "jax"):
    raise TrainError(
        f"KERAS_BACKEND is {BACKEND}, but the step train supports tensorflow and jax. Set it to one of these."
    )


def list_devices(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the devices that Keras trains on, such as `gpu:0`.

    Raises:
        TrainError: the environment requires an accelerator, and there is none.
    """
    devices: list[str] = keras.distribution.list_devices()
    device = environ.get(REQUIRED_ACCELERATOR, "")
    if device and not devices[0].startswith(device) and environ.get(ACCELERATOR_OPTIONAL) != "1":
        raise TrainError(
            f"The environment requires a {device.upper()}, but Keras on {BACKEND} finds only {devices[0]}. "
            f"Use the image {ACCELERATOR_IMAGES.get(device, 'for it')} on a node that has one, with its "
            "driver, or set accelerator_optional: true in the environment to train without it."
        )
    return devices


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception of Python, TensorFlow or JAX means out of memory."""
    kinds = (MemoryError, tf.errors.ResourceExhaustedError)
    exhausted = isinstance(error, kinds) or str(error).startswith("RESOURCE_EXHAUSTED")
    return exhausted and find_machine_error(error) is None  # TensorFlow raises the same error for a full disk


@contextmanager
def translate_out_of_memory(batch_size: int) -> Iterator[None]:
    """Raise TooLargeError when a training step runs out of memory."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TooLargeError(
            f"The model with a batch of {batch_size} does not fit in the memory of the device. Lower "
            "training.batch_size or the layer sizes in `model`."
        ) from error
