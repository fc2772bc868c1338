"""The Open Inference Protocol, version 2, over HTTP, with its binary tensor extension.

GET  /v2, /v2/health/live, /v2/health/ready
GET  /v2/models/NAME[/versions/N], …/ready
POST /v2/models/NAME[/versions/N]/infer
    {"inputs": [{"name", "shape", "datatype", "data" or "parameters": {"binary_data_size"}}]}

With the header Inference-Header-Content-Length, the body is that many bytes of JSON, then the tensor's bytes.
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html
"""

import json
import re
from importlib.metadata import version as package_version
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from simdjson import Array, Object

from modelyard.components.artifacts import Tensor
from modelyard.components.serve import tensors
from modelyard.components.serve.limits import Limits
from modelyard.components.serve.model import Predictor
from modelyard.components.serve.replies import HttpError, Reply, encode, encode_predictions, shorten

DATATYPES = {"uint8": "UINT8", "float32": "FP32"}
HEADER_LENGTH = b"inference-header-content-length"


def server_metadata() -> Reply:
    """Return the metadata of the server."""
    body = {
        "name": "modelyard",
        "version": package_version("modelyard"),
        "extensions": ["binary_tensor_data"],
    }
    return Reply(encode(body))


def metadata(predictor: Predictor, limits: Limits) -> Reply:
    """Return the inputs and outputs of the model.

    `parameters` has the whole signature, with names and meaning of values; `ranked`, whether the largest
    value of a prediction is shown first; and the limits of an image and a request.
    """
    signature = predictor.signature
    body = {
        "name": predictor.name,
        "versions": [str(predictor.version)],
        "platform": "onnxruntime_onnx",
        "inputs": [_describe_tensor(tensor) for tensor in signature.inputs],
        "outputs": [_describe_tensor(tensor) for tensor in signature.outputs],
        "parameters": {
            "signature": signature.model_dump(mode="json"),
            "ranked": predictor.ranked,
            "max_pixels": limits.image_pixels,
            "max_body_bytes": limits.body,
        },
    }
    return Reply(encode(body))


def _describe_tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": DATATYPES[tensor.dtype], "shape": [-1, *tensor.shape]}


def infer(predictor: Predictor, body: bytes, header_length: bytes | None, max_batch: int) -> Reply:
    """Return the reply to an infer request of at most `max_batch` examples.

    `header_length` is the value of Inference-Header-Content-Length; None if the body is only JSON.

    Raises:
        HttpError: 400 or 413, the body is not a request for this model; 500, the prediction is not finite.
    """
    text, binary = _split_body(body, header_length)
    document = tensors.parse(text)
    batch = _parse_batch(predictor, _get_single_input(document), binary, max_batch)
    as_binary = _wants_binary(predictor, document)
    predictions = predictor.run(batch)
    output: dict[str, Any] = {"name": predictor.output, "datatype": "FP32", "shape": [*predictions.shape]}
    response: dict[str, Any] = {"model_name": predictor.name, "model_version": str(predictor.version)}
    if isinstance(request_id := document.get("id"), str):
        response["id"] = request_id
    response["outputs"] = [output]
    if not as_binary:
        output["data"] = []
        # in parts: a single call of the encoder would block other threads
        data = encode_predictions(predictions.reshape(len(predictions), -1))[1:-1].replace("],[", ",")
        return Reply(
            encode(response).replace(b'"data":[]', b'"data":%s' % data.encode()), examples=len(batch)
        )
    binary = predictions.astype("<f4", copy=False).tobytes()
    output["parameters"] = {"binary_data_size": len(binary)}
    head = encode(response)
    headers = ((HEADER_LENGTH, str(len(head)).encode()),)
    return Reply(
        head + binary, content_type=b"application/octet-stream", headers=headers, examples=len(batch)
    )


def _split_body(body: bytes, header_length: bytes | None) -> tuple[bytes, bytes | None]:
    """Return the JSON and, with a length, the bytes after it."""
    if header_length is None:
        return body, None
    if not re.fullmatch(rb"\d{1,12}", header_length) or not 0 < int(header_length) <= len(body):
        raise HttpError(
            400,
            f"Inference-Header-Content-Length is {shorten(header_length.decode('latin-1'))}, but the length "
            f"of the JSON at the start of the body is expected, 1 to {len(body)} bytes.",
        )
    return body[: int(header_length)], body[int(header_length) :]


def _get_single_input(document: Any) -> Any:
    inputs = document.get("inputs")
    if not isinstance(inputs, Array) or len(inputs) != 1 or not isinstance(inputs[0], Object):
        if "instances" in document:
            raise HttpError(400, "The body is a request of TF Serving; send it to /v1/models/NAME:predict.")
        if isinstance(inputs, Array):
            content = f"{len(inputs)} inputs"
        elif "inputs" in document:
            content = f"a JSON {tensors.describe_type(inputs)} as inputs"
        else:
            content = tensors.describe_keys(document)
        raise HttpError(
            400,
            f'The body has {content}, but "inputs" with exactly one tensor is expected: '
            '{"inputs": [{"name": ..., "shape": [...], "datatype": ..., "data": [...]}]}.',
        )
    return inputs[0]


def _parse_batch(predictor: Predictor, tensor: Any, binary: bytes | None, max_batch: int) -> NDArray[Any]:
    """Return the batch (n, *shape) of a tensor in JSON or bytes."""
    signature = predictor.signature.input
    expected = DATATYPES[signature.dtype]
    if tensor.get("name") not in (predictor.input, "input"):
        raise HttpError(
            400,
            f"The input's name is {_shorten(tensor.get('name'))}, but "
            f"{tensors.describe_names(predictor.input, 'input')} is expected.",
        )
    if tensor.get("datatype") != expected:
        raise HttpError(
            400, f"The input's datatype is {_shorten(tensor.get('datatype'))}, but {expected} is expected."
        )
    shape = _parse_shape(tensor, signature.shape, max_batch)
    size = _read_parameters(tensor).get("binary_data_size")
    if size is not None:
        if binary is None or size != len(binary):
            raise HttpError(
                400,
                f"binary_data_size is {_shorten(size)}, but {len(binary or b'')} bytes follow the JSON. They "
                "must be equal, and Inference-Header-Content-Length must be the length of the JSON.",
            )
        return tensors.parse_binary(binary, shape, signature)
    data = tensor.get("data")
    if binary or not isinstance(data, Array):
        raise HttpError(
            400, 'The input needs "data", a list of numbers, or "parameters": {"binary_data_size": ...}.'
        )
    flat = tensors.parse_numbers(data, signature.dtype)
    if len(data) and isinstance(data[0], Array):
        tensors.check_shape(data, shape, flat.size)
    if flat.size != np.prod(shape):
        raise HttpError(
            400,
            f"The shape {list(shape)} has {int(np.prod(shape))} values, but the data has {flat.size}.",
        )
    return flat.reshape(shape)


def _parse_shape(tensor: Any, expected: tuple[int, ...], max_batch: int) -> tuple[int, ...]:
    shape = tensor.get("shape")
    sizes = shape.as_list() if isinstance(shape, Array) else None
    if not sizes or sizes[1:] != list(expected) or type(sizes[0]) is not int or sizes[0] < 1:
        raise HttpError(
            400,
            f"The input's shape is {_shorten(shape)}, but [n, {', '.join(map(str, expected))}] with n of at "
            "least 1 is expected.",
        )
    if sizes[0] > max_batch:
        tensors.refuse_batch_size(sizes[0], max_batch)
    return (sizes[0], *expected)


def _wants_binary(predictor: Predictor, document: Any) -> bool:
    """Return whether the request asks for binary output; refuse unknown outputs."""
    outputs = document.get("outputs")
    requested_outputs = (
        [output for output in outputs if isinstance(output, Object)] if isinstance(outputs, Array) else []
    )
    for output in requested_outputs:
        if "classification" in _read_parameters(output):
            raise HttpError(400, "The classification extension is not supported; leave `classification` out.")
        if output.get("name") not in (predictor.output, "output"):
            raise HttpError(
                400,
                f"The requested output is {_shorten(output.get('name'))}, but "
                f"{tensors.describe_names(predictor.output, 'output')} is expected.",
            )
    if requested_outputs and "binary_data" in (parameters := _read_parameters(requested_outputs[0])):
        return _parse_flag(parameters, "binary_data")
    return _parse_flag(_read_parameters(document), "binary_data_output")


def _parse_flag(parameters: Any, key: str) -> bool:
    """Return a parameter that is true or false; False if it is missing."""
    value = parameters.get(key, False)
    if not isinstance(value, bool):
        raise HttpError(400, f"{key} is {_shorten(value)}, but true or false is expected.")
    return value


def _read_parameters(container: Any) -> Any:
    """Return the parameters of a request, a tensor or an output; refuse shared memory."""
    parameters = container.get("parameters")
    if not isinstance(parameters, Object):
        return {}
    if any(key.startswith("shared_memory") for key in parameters):
        raise HttpError(
            400,
            "Shared memory is not supported; send the data in the request, and read it from the response.",
        )
    return parameters


def _shorten(value: Any) -> str:
    """Return a JSON value from a request as short text for a message."""
    if value is None:
        return "missing"
    if isinstance(value, Array | Object):
        value = cast(bytes, value.mini).decode()  # the stub has str
    return shorten(value if isinstance(value, str) else json.dumps(value))
