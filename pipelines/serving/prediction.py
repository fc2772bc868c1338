"""Predictions for files, by a version in this process or by a running server.

    predict(LocalModel(models, "pets"), [Path("cat.png")])
    predict(RemoteModel(HttpServer("http://localhost:8501"), "digits"), [Path("digits.npy")])

Files are read as the model's signature requires: images as in training, `.npy` as one example or many.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from modelyard.components.artifacts import Record, Signature, Tensor
from modelyard.components.errors import DataError, ServeError
from modelyard.components.problems import get_description
from modelyard.components.serve.replies import not_finite_error
from modelyard.components.server import Server, send
from modelyard.components.store.models import ModelStore

BATCH_BYTES = 8 * 2**20
BATCH_EXAMPLES = 256


class ExamplePrediction(Record):
    """The prediction for one example: a text, and each value by its name."""

    example: str
    text: str
    note: str
    values: dict[str, float]


class Model(Protocol):
    """A version that predicts."""

    version: int
    signature: Signature
    max_pixels: int  # of an image

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the predictions (n, values) for a batch (n, *shape).

        Raises:
            DataError: the shape of the batch is wrong, or the model's dtype cannot represent its values.
        """


class LocalModel:
    """A version of the store, by default the champion, loaded in this process with ONNX Runtime."""

    def __init__(self, models: ModelStore, name: str, version: int | None = None) -> None:
        from modelyard.components.serve.limits import compute_limits
        from modelyard.components.serve.model import load
        from modelyard.components.serve.settings import Serving
        from modelyard.pipelines.serving.platforms import load_recorded_section

        champion = models.require_champion(name) if version is None else None
        self.version = champion.version if champion else version or 0
        self._predictor = load(models, name, self.version, champion.digest if champion else None, threads=1)
        self.signature = self._predictor.signature
        manifest = models.manifest(name, self.version)
        self.max_pixels = compute_limits(load_recorded_section("serving", Serving, (), manifest)).image_pixels

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """See Model."""
        return self._predictor.run(_convert_batch(batch, self.signature.input))


class RemoteModel:
    """A version on a server with the Open Inference Protocol, by default the version that it serves.

    Raises:
        ServeError: the server does not respond, or has no such model.
        ClusterError: the cluster has no such server or does not respond.
    """

    def __init__(self, server: Server, name: str, version: int | None = None) -> None:
        self._server, self._path = server, f"/v2/models/{name}" + (f"/versions/{version}" if version else "")
        metadata = self._request("GET", self._path)
        try:
            self.version = int(metadata["versions"][-1])
            self.signature = Signature.model_validate_json(json.dumps(metadata["parameters"]["signature"]))
            self.max_pixels = int(metadata["parameters"]["max_pixels"])
            self._datatype = metadata["inputs"][0]["datatype"]
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise ServeError(
                f"{server}{self._path} is not a modelyard server: it has no signature. Check the URL."
            ) from error

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """See Model. The batch is sent as bytes, a tenth of the size of JSON."""
        input_tensor = self.signature.input
        batch = _convert_batch(batch, input_tensor)
        data = np.ascontiguousarray(batch, np.dtype(input_tensor.dtype).newbyteorder("<")).tobytes()
        tensor = {"name": input_tensor.name, "shape": list(batch.shape), "datatype": self._datatype}
        head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}]}).encode()
        length = {"inference-header-content-length": str(len(head))}
        response = self._request("POST", f"{self._path}/infer", head + data, length)
        self.version = int(response["model_version"])  # the server may have loaded another version
        output = response["outputs"][0]
        return np.asarray(output["data"], np.float32).reshape(output["shape"])

    def _request(self, *request: Any) -> Any:
        try:
            return json.loads(send(self._server, *request))
        except ValueError as error:
            raise ServeError(
                f"{self._server} is not a model server: its response is not JSON ({error}). Check the URL."
            ) from error


def predict(model: Model, paths: Sequence[Path]) -> list[ExamplePrediction]:
    """Return a prediction per example in the files, in order.

    Raises:
        DataError: a file is missing, or does not fit the model's signature.
        ServeError: a prediction is not finite.
    """
    examples = [example for path in paths for example in _read_examples(path, model)]
    example_bytes = max(1, examples[0][1].nbytes) if examples else 1
    batch_size = max(1, min(BATCH_EXAMPLES, BATCH_BYTES // example_bytes))
    predictions: list[ExamplePrediction] = []
    for start in range(0, len(examples), batch_size):
        batch = examples[start : start + batch_size]
        outputs = model.run(np.stack([example for _, example in batch]))
        if not np.isfinite(outputs).all():
            raise ServeError(str(not_finite_error()))
        predictions += [
            _create_prediction(name, values.tolist(), model.signature)
            for (name, _), values in zip(batch, outputs, strict=True)
        ]
    return predictions


def _create_prediction(example: str, values: list[float], signature: Signature) -> ExamplePrediction:
    names = signature.output.names
    display = get_description(signature.problem).format_prediction(names, values)
    by_name = dict(zip(names, values, strict=True))
    return ExamplePrediction(example=example, text=display.text, note=display.note, values=by_name)


def _read_examples(path: Path, model: Model) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the examples in a file with their names."""
    signature = model.signature.input
    if not path.exists():
        raise DataError(f"There is no file {path}. Use existing image or .npy files.")
    if not (path.is_file() or path.is_dir()):  # a FIFO or a device has no end
        raise DataError(f"{path} is not a regular file. Use image or .npy files.")
    if path.suffix == ".npy":
        yield from _read_npy(path, signature)
    elif signature.image is None:
        raise DataError(
            f"{path} is not a .npy file, and this model was not trained on images. Use .npy files with "
            f"{_describe_input(signature)}."
        )
    else:
        from modelyard.components import images
        from modelyard.components.serve.limits import MAX_SIDE

        try:  # with the limits of a server
            image = images.open_image(path.read_bytes(), model.max_pixels, MAX_SIDE)
            example = images.convert(image, signature.image)
        except OSError as error:
            raise _create_read_error(path, error) from error
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        yield str(path), example.astype(signature.dtype, copy=False)


def _read_npy(path: Path, signature: Tensor) -> Iterator[tuple[str, NDArray[Any]]]:
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise _create_read_error(path, error) from error
    except (ValueError, EOFError) as error:
        reason = str(error).partition(". ")[0]  # the rest recommends allow_pickle
        raise DataError(
            f"{path} is not a .npy file of numbers: {reason}. Write it with numpy.save."
        ) from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is a .npz archive. Write a .npy file with numpy.save.")
    if array.shape == signature.shape:
        yield str(path), _cast(path, array, signature)
    elif array.shape[1:] == signature.shape and array.ndim and len(array):
        for number, example in enumerate(_cast(path, array, signature)):
            yield f"{path}[{number}]", example
    else:
        shape = " x ".join(map(str, array.shape)) or "()"
        raise DataError(
            f"{path} is a {array.dtype} array of shape {shape}. The model takes {_describe_input(signature)}."
        )


def _convert_batch(batch: Any, signature: Tensor) -> NDArray[Any]:
    """Return a batch as an array in the model's dtype; see Model.run."""
    try:
        array = np.asarray(batch)
    except ValueError as error:
        raise DataError(f"The batch is not an array: {error}. Use examples of the same shape.") from error
    if array.ndim == 0 or array.shape[1:] != signature.shape:
        shape = " x ".join(map(str, ("n", *signature.shape)))
        raise DataError(
            f"The batch has the shape {array.shape}. "
            f"The model takes {signature.dtype} arrays of shape {shape}."
        )
    return _cast("The batch", array, signature)


def _cast(source: Path | str, array: NDArray[Any], signature: Tensor) -> NDArray[Any]:
    """Return the array in the model's dtype.

    Raises:
        DataError: the dtype cannot represent the values.
    """
    is_numeric = np.issubdtype(array.dtype, np.number) and not np.iscomplexobj(array)
    if is_numeric and signature.dtype == "uint8":
        valid = bool(((array >= 0) & (array <= 255) & (array == np.floor(array))).all())
    else:
        valid = is_numeric and bool(np.isfinite(array).all())
    if not valid:
        expected = "whole numbers from 0 to 255" if signature.dtype == "uint8" else "finite numbers"
        raise DataError(f"{source} has values other than {expected}. Use values as in the training data.")
    return array.astype(signature.dtype, copy=False)


def _describe_input(signature: Tensor) -> str:
    shape = " x ".join(map(str, signature.shape))
    return f"{signature.dtype} arrays of shape {shape}, or n x {shape} for several examples"


def _create_read_error(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read: {error.strerror or error}. Use image or .npy files.")
