"""Which devices train, and whether they are what the environment asks for.

A cluster's environment sets MODELYARD_ACCELERATOR to gpu or tpu for a step that asks for one. Without it, a
driver that is missing would cost hours on a processor before anybody saw it.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from modelyard.components.errors import TooLargeError, TrainError
from modelyard.components.train.backend import BACKEND, keras, tf

ASKED = "MODELYARD_ACCELERATOR"
OPTIONAL = "MODELYARD_ACCELERATOR_OPTIONAL"
IMAGES = {"gpu": "train-cuda", "tpu": "train-tpu"}


def devices(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the devices that Keras trains on, as `gpu:0`.

    Raises:
        TrainError: the environment asks for an accelerator, and there is none.
    """
    found: list[str] = keras.distribution.list_devices()
    asked = environ.get(ASKED, "")
    if asked and not found[0].startswith(asked) and environ.get(OPTIONAL) != "1":
        raise TrainError(
            f"The environment asks for a {asked.upper()}, but Keras on {BACKEND} finds only {found[0]}. "
            f"Use the image {IMAGES.get(asked, 'for it')} on a node that has one, with its driver, or set "
            "accelerator_optional: true in the environment to train without."
        )
    return found


def out_of_memory(error: BaseException) -> bool:
    """Say whether an exception of Python, TensorFlow or JAX means that the memory is too small."""
    kinds = (MemoryError, tf.errors.ResourceExhaustedError)
    return isinstance(error, kinds) or str(error).startswith("RESOURCE_EXHAUSTED")


@contextmanager
def room_for(batch_size: int) -> Iterator[None]:
    """Turn what is raised for want of memory, while batches are trained, into a TooLargeError."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise TooLargeError(
            f"The model with a batch of {batch_size} does not fit into the device's memory. Lower "
            "training.batch_size, or the sizes in `model`."
        ) from error
