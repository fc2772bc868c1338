"""Keras on TensorFlow or on JAX, imported in this one place, quietly, and the devices that train.

    from modelyard.components.train.backend import BACKEND, keras, tf

TensorFlow is there in both cases: it cuts the rows into batches, and it writes the exported files. The import
costs seconds: what others import (settings, component, optimizers) does it inside functions.

A cluster's environment sets MODELYARD_ACCELERATOR to gpu or tpu for a step that requires one. Without it, a
missing driver would cost hours on a CPU before anybody saw it.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Without AVX-512, TensorFlow leaves oneDNN alone, and convolutions take 1.4 times as long.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# Memory of a step is kept for the next one: malloc gives it back to the kernel, and in a virtual machine
# the page faults cost as much as the step.
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
os.environ["KERAS_BACKEND"] = os.environ.get("KERAS_BACKEND") or "tensorflow"  # "" is what keras.json says
os.environ.pop("KERAS_MAX_EPOCHS", None)  # for debugging: the training would end early without a word
os.environ.pop("KERAS_MAX_STEPS_PER_EPOCH", None)

import keras
import tensorflow as tf

from modelyard.components.errors import TooLargeError, TrainError, of_machine

__all__ = ["BACKEND", "is_out_of_memory", "keras", "list_devices", "tf", "translate_out_of_memory"]

keras.config.set_floatx("float32")  # not what ~/.keras/keras.json has for another project
keras.config.set_epsilon(1e-7)
keras.config.set_image_data_format("channels_last")

BACKEND: str = keras.backend.backend()
REQUIRED_ACCELERATOR = "MODELYARD_ACCELERATOR"
ACCELERATOR_OPTIONAL = "MODELYARD_ACCELERATOR_OPTIONAL"
ACCELERATOR_IMAGES = {"gpu": "train-cuda", "tpu": "train-tpu"}

if BACKEND not in ("tensorflow", "jax"):
    raise TrainError(
        f"KERAS_BACKEND is {BACKEND}, but this step trains with tensorflow or jax. Set it to one of them."
    )


def list_devices(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the devices that Keras trains on, as `gpu:0`.

    Raises:
        TrainError: the environment requires an accelerator, and there is none.
    """
    found: list[str] = keras.distribution.list_devices()
    required = environ.get(REQUIRED_ACCELERATOR, "")
    if required and not found[0].startswith(required) and environ.get(ACCELERATOR_OPTIONAL) != "1":
        raise TrainError(
            f"The environment asks for a {required.upper()}, but Keras on {BACKEND} finds only {found[0]}. "
            f"Use the image {ACCELERATOR_IMAGES.get(required, 'for it')} on a node that has one, with its "
            "driver, or set accelerator_optional: true in the environment to train without."
        )
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception of Python, TensorFlow or JAX means that the memory is too small."""
    kinds = (MemoryError, tf.errors.ResourceExhaustedError)
    exhausted = isinstance(error, kinds) or str(error).startswith("RESOURCE_EXHAUSTED")
    return exhausted and of_machine(error) is None  # TensorFlow says the same of a full disk


@contextmanager
def translate_out_of_memory(batch_size: int) -> Iterator[None]:
    """Turn what is raised for want of memory, while batches are trained, into a TooLargeError."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TooLargeError(
            f"The model with a batch of {batch_size} does not fit into the device's memory. Lower "
            "training.batch_size, or the sizes in `model`."
        ) from error
