"""TF Serving's REST API, version 1.

POST /v1/models/NAME[/versions/N]:predict
    {"instances": [...]}  a list of examples                  -> {"predictions": [...]}
    {"inputs": [...]}     the batch, or {"<input name>": ...}  -> {"outputs": [...]}
GET  /v1/models/NAME[/versions/N]           the state of the version
GET  /v1/models/NAME[/versions/N]/metadata  its inputs and outputs

An example is a nested list, {"b64": "<an image>"}, or either under the input's name.
https://www.tensorflow.org/tfx/serving/api_rest
"""

import binascii
from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from simdjson import Array, Object

from modelyard.components.artifacts import ImageFormat, Tensor
from modelyard.components.errors import DataError
from modelyard.components.serve import tensors
from modelyard.components.serve.limits import LARGE_IMAGE, LARGE_INPUT_LOCK, Limits
from modelyard.components.serve.model import Predictor
from modelyard.components.serve.replies import HttpError, Reply, encode, encode_predictions, shorten

if TYPE_CHECKING:
    from PIL.Image import Image

RESPONSE_KEYS = {"instances": "predictions", "inputs": "outputs"}
SIGNATURE = "serving_default"
DTYPES = {"uint8": "DT_UINT8", "float32": "DT_FLOAT"}


def status(predictor: Predictor, champion: int | None, error: str) -> Reply:
    """Return the version's state in the format of TF Serving; `name` and `ready` are KServe's.

    `error` is why the champion is not served; empty if it is.
    """
    version = {
        "version": str(predictor.version),
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    body = {"name": predictor.name, "ready": True, "model_version_status": [version]}
    return Reply(encode(body | ({"champion": champion, "error": error} if error else {})))


def metadata(predictor: Predictor) -> Reply:
    """Return the model's inputs and outputs in the format of TF Serving."""
    signature = predictor.signature
    default = {
        "inputs": {tensor.name: _describe_tensor(tensor) for tensor in signature.inputs},
        "outputs": {tensor.name: _describe_tensor(tensor) for tensor in signature.outputs},
        "method_name": "tensorflow/serving/predict",
    }
    body = {
        "model_spec": {"name": predictor.name, "signature_name": "", "version": str(predictor.version)},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: default}}},
    }
    return Reply(encode(body))


def _describe_tensor(tensor: Tensor) -> dict[str, Any]:
    sizes = [{"size": str(size), "name": ""} for size in (-1, *tensor.shape)]
    shape = {"dim": sizes, "unknown_rank": False}
    return {"dtype": DTYPES[tensor.dtype], "tensor_shape": shape, "name": tensor.name}


def predict(predictor: Predictor, text: bytes, max_batch: int, limits: Limits) -> Reply:
    """Return the reply to a predict request of at most `max_batch` examples.

    Raises:
        HttpError: 400 or 413, the body is not a request for this model; 500, the prediction is not finite.
    """
    document = tensors.parse(text)
    keys = [key for key in islice(document, tensors.MAX_KEYS) if key in RESPONSE_KEYS]
    if len(keys) != 1:
        raise HttpError(
            400,
            f'The body has {tensors.describe_keys(document)}, but either "instances" (a list of examples) or '
            '"inputs" (the batch) is expected.',
        )
    name = document.get("signature_name", SIGNATURE) if len(document) > 1 else SIGNATURE
    if name not in (SIGNATURE, ""):
        raise HttpError(
            400, f"The signature_name is {shorten(name)}, but {SIGNATURE!r} is expected; omit it."
        )
    (key,) = keys
    value = document[key]
    if isinstance(value, Object) and key == "inputs":
        value = _get_single_input(value, predictor)
    batch = _parse_batch(predictor, value, key, text, max_batch, limits)
    predictions = encode_predictions(predictor.run(batch))
    return Reply(f'{{"{RESPONSE_KEYS[key]}":{predictions}}}'.encode(), examples=len(batch))


def _parse_batch(
    predictor: Predictor, value: Any, key: str, text: bytes, max_batch: int, limits: Limits
) -> NDArray[Any]:
    """Return the batch of a list of examples; those without images are parsed in one call."""
    signature = predictor.signature.input
    tensors.count_examples(value, max_batch)
    if not isinstance(value[0], Object | str):
        return tensors.parse_batch(value, key, text, signature, max_batch)
    arrays, pixels = [], 0
    for number, item in enumerate(value):
        example = _parse_example(predictor, item, number, limits)
        if not isinstance(example, np.ndarray):
            pixels += example.width * example.height
            if pixels > limits.request_pixels:
                raise HttpError(
                    413,
                    f"The images of the request have more than {limits.request_pixels / 1e6:.3g} megapixels; "
                    "send fewer images.",
                )
            example = _decode(example, cast(ImageFormat, signature.image), number)
        arrays.append(example.astype(signature.dtype, copy=False))
    return np.stack(arrays)


def _parse_example(predictor: Predictor, item: Any, number: int, limits: Limits) -> "NDArray[Any] | Image":
    """Return an example (*shape), or its image, which is not decoded yet."""
    signature = predictor.signature.input
    if isinstance(item, Object) and "b64" not in item:
        item = _get_single_input(item, predictor)
    if isinstance(item, Object) and "b64" in item:
        return _open_image(item["b64"], number, signature, limits)
    if not isinstance(item, Array):
        raise HttpError(
            400,
            f'Example {number} is neither a nested list of numbers nor {{"b64": "<an image in base64>"}}.',
        )
    flat = tensors.parse_numbers(item, signature.dtype)
    tensors.check_shape(item, signature.shape, flat.size)
    return flat.reshape(signature.shape)


def _get_single_input(item: Any, predictor: Predictor) -> Any:
    """Return the value of the input, which must be the only key."""
    names = {predictor.input, "input"}
    if len(item) != 1 or (name := next(iter(item))) not in names:
        raise HttpError(
            400,
            f"An input has {tensors.describe_keys(item)}, but {predictor.name} has one input, "
            f"{tensors.describe_names(predictor.input, 'input')}.",
        )
    return item[name]


def _open_image(text: Any, number: int, signature: Tensor, limits: Limits) -> "Image":
    if signature.image is None:
        raise HttpError(
            400,
            f"Example {number} is an image, but the model was not trained on images. Send a nested list "
            f"of shape {'x'.join(map(str, signature.shape))}.",
        )
    if not isinstance(text, str):
        raise HttpError(400, f"The b64 of example {number} is not a string; send an image file in base64.")
    try:  # line breaks and missing padding are allowed
        text = "".join(text.split()).rstrip("=")
        data = binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise HttpError(
            400, f"The b64 of example {number} is not base64 ({error}); encode the image file."
        ) from None
    from modelyard.components import images  # imports Pillow

    try:
        return images.open_image(data, limits.image_pixels, limits.image_side)
    except DataError as error:
        raise HttpError(400, f"Example {number}: {error}") from None


def _decode(image: "Image", image_format: ImageFormat, number: int) -> NDArray[np.uint8]:
    from modelyard.components import images

    large = image.width * image.height > LARGE_IMAGE
    try:
        with LARGE_INPUT_LOCK if large else nullcontext():
            return images.convert(image, image_format)
    except DataError as error:
        raise HttpError(400, f"Example {number}: {error}") from None
