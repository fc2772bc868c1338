"""Which devices train, and whether they are what the environment asks for.

A cluster's environment sets MODELYARD_ACCELERATOR to gpu or tpu for a step that asks for one. Without it, a
driver that is missing would cost hours on a processor before anybody saw it.
"""

import os
from collections.abc import Mapping

from components.errors import TrainError
from components.train.backend import BACKEND, keras, tf

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


def out_of_memory(error: Exception) -> bool:
    """Say whether an exception of TensorFlow or JAX means that the device's memory is too small."""
    return isinstance(error, tf.errors.ResourceExhaustedError) or str(error).startswith("RESOURCE_EXHAUSTED")
