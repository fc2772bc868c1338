"""A version of a model, fetched, verified, loaded and warmed up: `predictor.run(batch)`."""

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from modelyard.components.artifacts import Signature
from modelyard.components.errors import ServeError
from modelyard.components.store.models import ModelStore

WARM_UPS = 3
INLINE_SECONDS = 0.005  # what may run on the event loop, which answers nobody meanwhile
INLINE_BYTES = 256 * 2**10

log = logging.getLogger(__name__)


class Predictor:
    """A loaded version.

    Args:
        path: the ONNX file; it is not needed afterwards.
        name: the model's name.
        version: its version.
        signature: what the file must take and give.
        threads: threads of ONNX Runtime for one request.

    Raises:
        ServeError: the file is not a model, or not one with this signature.
    """

    def __init__(self, path: Path, name: str, version: int, signature: Signature, threads: int) -> None:
        self.name, self.version, self.signature = name, version, signature
        self.dtype = np.dtype(signature.dtype)
        try:
            self._session = onnxruntime.InferenceSession(
                path, _options(threads), providers=["CPUExecutionProvider"]
            )
            self.input, self.output = _names(self._session, signature)
            seconds = min(self._warm_up() for _ in range(WARM_UPS))
        except ServeError as error:
            raise ServeError(f"Version {version} of {name} is not what its signature says: {error}") from None
        except Exception as error:  # onnxruntime's own classes have no common base
            raise ServeError(
                f"Version {version} of {name} cannot be loaded by ONNX Runtime: {str(error).strip()}. "
                "Publish it again, or promote another version."
            ) from error
        example_bytes = max(1, int(np.prod(signature.shape))) * self.dtype.itemsize
        examples = INLINE_SECONDS / max(seconds, 1e-6)
        self.inline_bytes = 0 if examples < 1 else min(INLINE_BYTES, int(examples * example_bytes))

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the probabilities, float32 (n, classes), of a batch (n, *shape) of the signature's dtype."""
        (probabilities,) = self._session.run([self.output], {self.input: batch})
        return probabilities  # type: ignore[no-any-return]

    def _warm_up(self) -> float:
        """Predict one example of zeros, check the answer, and return the seconds that it took."""
        started = time.perf_counter()
        answer = self.run(np.zeros((1, *self.signature.shape), self.dtype))
        seconds = time.perf_counter() - started
        expected = (1, len(self.signature.classes))
        if answer.shape != expected or answer.dtype != np.float32 or not np.isfinite(answer).all():
            raise ServeError(
                f"it gives {answer.dtype} of shape {answer.shape}, and finite float32 {expected} is "
                "expected, one probability for each class. Train and publish it again."
            )
        return seconds


def load(models: ModelStore, name: str, version: int, digest: str | None, threads: int) -> Predictor:
    """Fetch a version, verify every byte, load it and warm it up.

    Args:
        models: the store.
        name: the model's name.
        version: the version.
        digest: what the champion pointer says that the manifest's digest is; None trusts the manifest.
        threads: threads of ONNX Runtime for one request.

    Raises:
        StoreError: it cannot be fetched, or is not what was published.
        ServeError: it cannot be loaded.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="modelyard-") as scratch:
        folder = Path(scratch) / "version"
        manifest = models.fetch(name, version, folder, only=["model.onnx"], digest=digest)
        predictor = Predictor(folder / "model.onnx", name, version, manifest.signature, threads)
    log.info("loaded version %d of %s in %.2f s", version, name, time.perf_counter() - started)
    return predictor


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Waiting threads that spin take the core that parses the next request.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _names(session: Any, signature: Signature) -> tuple[str, str]:
    """Return the names of the one input and of the first output."""
    inputs = session.get_inputs()
    expected = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}[signature.dtype]
    if len(inputs) != 1 or inputs[0].type != expected or isinstance(inputs[0].shape[0], int):
        found = ", ".join(f"{value.name}: {value.type} {value.shape}" for value in inputs)
        raise ServeError(
            f"it takes ({found}), and one {expected} of any batch size is expected. Export it again."
        )
    return inputs[0].name, session.get_outputs()[0].name
