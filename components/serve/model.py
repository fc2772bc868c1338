"""Loads a version of a model, and follows the champion pointer."""

import logging
import re
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from modelyard.components.artifacts import Signature
from modelyard.components.errors import ModelyardError, ServeError
from modelyard.components.errors import describe as describe_error
from modelyard.components.problems import get_description
from modelyard.components.resources import read_memory_limit, read_memory_used
from modelyard.components.store.models import ModelStore
from modelyard.components.store.records import Champion

WARM_UPS = 3
SLICE, SLICE_BYTES = 16, 2**19  # examples and bytes; larger batches are not faster on a CPU
INLINE_SECONDS = 0.005  # maximum duration of an execution on the event loop, which blocks it
INLINE_BYTES = 256 * 2**10
MAX_BACKOFF = 60.0
LOADING_MEMORY_FACTOR = 1.5  # bytes of memory to load a byte of a model's file, measured
_MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

log = logging.getLogger(__name__)


class Predictor:
    """A loaded version: the ONNX file at `path`, which may be deleted afterwards.

    `signature` has the expected inputs and outputs. A request uses `threads` threads of ONNX Runtime.

    Raises:
        ConfigError: this version of modelyard does not support the model's problem.
        ServeError: the file is not a model with this signature.
    """

    def __init__(self, path: Path, name: str, version: int, signature: Signature, threads: int) -> None:
        self.name, self.version, self.signature = name, version, signature
        self.dtype = np.dtype(signature.input.dtype)
        self.input, self.output = signature.input.name, signature.output.name
        self.ranked = get_description(signature.problem).ranked
        try:
            self._session = onnxruntime.InferenceSession(
                path, _create_session_options(threads), providers=["CPUExecutionProvider"]
            )
            _check_tensors(self._session, signature)
            seconds = min(self._warm_up() for _ in range(WARM_UPS))
        except ServeError as error:
            raise ServeError(f"Version {version} of {name} does not match its signature: {error}") from None
        except Exception as error:  # onnxruntime's errors have no common base class
            reason = str(error).replace(str(path), path.name).strip(" .\n")
            raise ServeError(
                f"Version {version} of {name} cannot be loaded by ONNX Runtime: {reason}. Promote "
                "another version, or train a new one."
            ) from error
        example_bytes = max(1, int(np.prod(signature.input.shape))) * self.dtype.itemsize
        examples = INLINE_SECONDS / max(seconds, 1e-6)
        self.inline_bytes = 0 if examples < 1 else min(INLINE_BYTES, int(examples * example_bytes))

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the predictions, float32 (n, *shape of the output), for a batch (n, *shape of the input).

        A large batch runs in slices, to limit the memory of activations; after the last one, ONNX Runtime
        releases unused memory.
        """
        size = max(1, min(SLICE, SLICE_BYTES * len(batch) // max(1, batch.nbytes)))
        if len(batch) <= size:
            (predictions,) = self._session.run([self.output], {self.input: batch})
            return predictions  # type: ignore[no-any-return]
        slices = [batch[start : start + size] for start in range(0, len(batch), size)]
        options = [None] * (len(slices) - 1) + [_create_shrinking_run_options()]
        results = [
            self._session.run([self.output], {self.input: part}, option)[0]
            for part, option in zip(slices, options, strict=True)
        ]
        return np.concatenate(results)

    def _warm_up(self) -> float:
        """Predict one example of zeros, check the result, and return the seconds."""
        start = time.perf_counter()
        output = self.run(np.zeros((1, *self.signature.input.shape), self.dtype))
        seconds = time.perf_counter() - start
        expected = (1, *self.signature.output.shape)
        if output.shape != expected or output.dtype != np.float32 or not np.isfinite(output).all():
            raise ServeError(
                f"its output is {output.dtype} of shape {output.shape}, but finite float32 {expected} is "
                f"expected, the {self.signature.output.meaning}. Promote another version, or train a new one."
            )
        return seconds


def load(models: ModelStore, name: str, version: int, digest: str | None, threads: int) -> Predictor:
    """Fetch a version, verify its checksums, load it and warm it up.

    `digest` is the expected SHA-256 of the manifest; None skips this check. See Predictor for `threads`.

    Raises:
        StoreError: the version cannot be fetched, or is damaged.
        ServeError: the version cannot be loaded, or needs too much memory.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="modelyard-") as scratch:
        folder = Path(scratch) / "version"
        manifest = models.fetch(name, version, folder, paths=["model.onnx"], digest=digest)
        model_bytes, limit = (folder / "model.onnx").stat().st_size, read_memory_limit()
        memory = int(LOADING_MEMORY_FACTOR * model_bytes)
        if memory > (free := max(0, limit - read_memory_used())):  # the kernel would kill the server
            raise ServeError(
                f"Version {version} of {name} needs {memory / 2**20:,.0f} MiB of memory to load, but only "
                f"{free / 2**20:,.0f} of {limit / 2**20:,.0f} MiB are free. Give the server more memory, or "
                "promote a smaller model."
            )
        predictor = Predictor(folder / "model.onnx", name, version, manifest.signature, threads)
    log.info("loaded version %d of %s in %.2f s", version, name, time.perf_counter() - start)
    return predictor


def _create_session_options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads would occupy the core that parses the next request.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _create_shrinking_run_options() -> Any:
    """Return the options of a run after which ONNX Runtime releases unused memory."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _check_tensors(session: Any, signature: Signature) -> None:
    """Compare the inputs and outputs of the file with the signature; the warm-up checks the shapes."""
    types = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}
    for subject, nodes, tensors in (
        ("inputs are", session.get_inputs(), signature.inputs),
        ("outputs are", session.get_outputs(), signature.outputs),
    ):
        expected = [(tensor.name, types[tensor.dtype]) for tensor in tensors]
        fixed_batch = any(isinstance(node.shape[0], int) for node in nodes if node.shape)
        if fixed_batch or [(node.name, node.type) for node in nodes] != expected:
            raise ServeError(
                f"its {subject} {', '.join(f'{node.name}: {node.type} {node.shape}' for node in nodes)}, but "
                f"{', '.join(f'{name}: {kind}' for name, kind in expected)} of any batch size is expected. "
                "Promote another version, or train a new one."
            )


class ChampionFollower(threading.Thread):
    """Thread that polls the champion pointer and switches to a new champion.

    The old version serves until the new one is ready. A champion that cannot be loaded is retried with
    exponential backoff; another champion is loaded at the next poll.

    Args:
        set_predictor: called with each new version, loaded and warmed up.
        report: called after each poll with the champion's version, None if the pointer cannot be read, and
            with the reason why the champion is not served; empty if it is.
    """

    def __init__(
        self,
        models: ModelStore,
        current: Predictor,
        interval: float,
        threads: int,
        set_predictor: Callable[[Predictor], None],
        report: Callable[[int | None, str], None],
    ) -> None:
        super().__init__(name="pointer", daemon=True)
        self._models, self._name, self._version = models, current.name, current.version
        self._interval, self._threads = interval, threads
        self._set_predictor, self._report = set_predictor, report
        self._stopped = threading.Event()
        self._last_error = ""
        self._failed_digest = self._failure = ""  # of the champion that cannot be loaded
        self._backoff = self._retry_at = 0.0

    def run(self) -> None:
        """Poll until `stop` is called."""
        while not self._stopped.wait(self._interval):
            champion = None
            try:
                champion = self._models.require_champion(self._name)
                if champion.digest != self._failed_digest or time.monotonic() >= self._retry_at:
                    self._follow(champion)
                    self._failed_digest = self._failure = ""
                self._report_poll(champion, self._failure)
            except Exception as error:  # the thread must survive any error of a store's client
                reason = str(error) if isinstance(error, ModelyardError) else describe_error(error)
                if champion:
                    failed_before = champion.digest == self._failed_digest
                    self._backoff = min(MAX_BACKOFF, 2 * self._backoff) if failed_before else self._interval
                    self._failed_digest, self._failure = champion.digest, reason
                    self._retry_at = time.monotonic() + self._backoff
                self._report_poll(champion, reason)

    def stop(self) -> None:
        """Stop polling."""
        self._stopped.set()

    def _follow(self, champion: Champion) -> None:
        if champion.version != self._version:
            self._set_predictor(
                load(self._models, self._name, champion.version, champion.digest, self._threads)
            )
            self._version = champion.version

    def _report_poll(self, champion: Champion | None, error: str) -> None:
        """Report a poll, and log its result unless it is that of the last poll."""
        text = _MEMORY_ADDRESS.sub("", error)  # an address differs in each message of a library
        if text and text != self._last_error:
            log.warning("still serving version %d of %s: %s", self._version, self._name, text)
        elif self._last_error and not text:
            log.info("serving the champion, version %d of %s", self._version, self._name)
        self._last_error = text
        self._report(champion.version if champion else None, error)
