"""A version of a model, fetched, verified, loaded and warmed up, and the thread that follows the champion."""

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
from modelyard.components.resources import memory_limit, memory_used
from modelyard.components.store.models import ModelStore
from modelyard.components.store.records import Champion

WARM_UPS = 3
SLICE, SLICE_BYTES = 16, 2**19  # examples and bytes of them; larger batches are not faster on a CPU
INLINE_SECONDS = 0.005  # what may run on the event loop, which answers nobody meanwhile
INLINE_BYTES = 256 * 2**10
MAX_BACKOFF = 60.0
LOADING_MEMORY_FACTOR = 1.5  # bytes of memory for a byte of a model's file while it is loaded, measured
_MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

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
        ConfigError: this version of modelyard does not know the model's problem.
        ServeError: the file is not a model, or not one with this signature.
    """

    def __init__(self, path: Path, name: str, version: int, signature: Signature, threads: int) -> None:
        self.name, self.version, self.signature = name, version, signature
        self.dtype = np.dtype(signature.input.dtype)
        self.input, self.output = signature.input.name, signature.output.name
        self.ranked = get_description(signature.problem).ranked
        try:
            self._session = onnxruntime.InferenceSession(
                path, _session_options(threads), providers=["CPUExecutionProvider"]
            )
            _check_tensors(self._session, signature)
            seconds = min(self._warm_up() for _ in range(WARM_UPS))
        except ServeError as error:
            raise ServeError(f"Version {version} of {name} is not what its signature says: {error}") from None
        except Exception as error:  # onnxruntime's own classes have no common base
            reason = str(error).replace(str(path), path.name).strip(" .\n")
            raise ServeError(
                f"Version {version} of {name} cannot be loaded by ONNX Runtime: {reason}. Publish it again, or "
                "promote another version."
            ) from error
        example_bytes = max(1, int(np.prod(signature.input.shape))) * self.dtype.itemsize
        examples = INLINE_SECONDS / max(seconds, 1e-6)
        self.inline_bytes = 0 if examples < 1 else min(INLINE_BYTES, int(examples * example_bytes))

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the answers, float32 (n, *shape of the output), to a batch (n, *shape of the input).

        A large batch is run in slices, so that its activations take no more memory than those of a slice;
        the last gives back what the memory of ONNX Runtime has grown by.
        """
        size = max(1, min(SLICE, SLICE_BYTES * len(batch) // max(1, batch.nbytes)))
        if len(batch) <= size:
            (answers,) = self._session.run([self.output], {self.input: batch})
            return answers  # type: ignore[no-any-return]
        slices = [batch[start : start + size] for start in range(0, len(batch), size)]
        options = [None] * (len(slices) - 1) + [_shrinking_run_options()]
        results = [
            self._session.run([self.output], {self.input: part}, option)[0]
            for part, option in zip(slices, options, strict=True)
        ]
        return np.concatenate(results)

    def _warm_up(self) -> float:
        """Predict one example of zeros, check the answer, and return the seconds that it took."""
        started = time.perf_counter()
        answer = self.run(np.zeros((1, *self.signature.input.shape), self.dtype))
        seconds = time.perf_counter() - started
        expected = (1, *self.signature.output.shape)
        if answer.shape != expected or answer.dtype != np.float32 or not np.isfinite(answer).all():
            raise ServeError(
                f"it gives {answer.dtype} of shape {answer.shape}, and finite float32 {expected} is "
                f"expected, the {self.signature.output.meaning}. Train and publish it again."
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
        ServeError: it cannot be loaded, or there is not enough memory for it.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="modelyard-") as scratch:
        folder = Path(scratch) / "version"
        manifest = models.fetch(name, version, folder, only=["model.onnx"], digest=digest)
        needed, limit = int(LOADING_MEMORY_FACTOR * (folder / "model.onnx").stat().st_size), memory_limit()
        if needed > (free := max(0, limit - memory_used())):  # else the kernel would end the server
            raise ServeError(
                f"Version {version} of {name} needs {needed / 2**20:,.0f} MiB of memory to be loaded, and "
                f"{free / 2**20:,.0f} of {limit / 2**20:,.0f} MiB are free. Give the server more memory, or "
                "promote a smaller model."
            )
        predictor = Predictor(folder / "model.onnx", name, version, manifest.signature, threads)
    log.info("loaded version %d of %s in %.2f s", version, name, time.perf_counter() - started)
    return predictor


def _session_options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Waiting threads that spin take the core that parses the next request.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _shrinking_run_options() -> Any:
    """Return the option of a run after which ONNX Runtime gives unused memory back."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _check_tensors(session: Any, signature: Signature) -> None:
    """Compare the inputs and outputs of the file with the signature; shapes are checked by a first answer."""
    types = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}
    for verb, nodes, tensors in (
        ("takes", session.get_inputs(), signature.inputs),
        ("gives", session.get_outputs(), signature.outputs),
    ):
        expected = [(tensor.name, types[tensor.dtype]) for tensor in tensors]
        fixed = any(isinstance(node.shape[0], int) for node in nodes if node.shape)
        if fixed or [(node.name, node.type) for node in nodes] != expected:
            raise ServeError(
                f"it {verb} {', '.join(f'{node.name}: {node.type} {node.shape}' for node in nodes)}, and "
                f"{', '.join(f'{name}: {kind}' for name, kind in expected)} of any batch size is expected. "
                "Export it again."
            )


class ChampionFollower(threading.Thread):
    """Looks at the champion pointer every `interval` seconds, in a thread, and takes a new champion.

    The old version answers until the new one is ready. A champion that cannot be loaded is tried again after
    a wait that doubles; another champion is tried at once.

    Args:
        models: the store.
        current: the version that is served now.
        interval: seconds between looks.
        threads: threads of ONNX Runtime for one request.
        set_predictor: called with each new version, loaded and warmed up.
        report: called after each look with the champion's version, None if the pointer cannot be read, and
            with reason it is not served; empty if it is.
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
        self._interval, self._threads, self._set_predictor, self._report = (
            interval,
            threads,
            set_predictor,
            report,
        )
        self._stopped = threading.Event()
        self._last_error = ""
        self._failed_digest, self._failure = (
            "",
            "",
        )  # the digest of the champion that could not be loaded, and reason
        self._backoff = self._retry_at = 0.0

    def run(self) -> None:
        """Look until `stop` is called."""
        while not self._stopped.wait(self._interval):
            champion = None
            try:
                champion = self._models.require_champion(self._name)
                if champion.digest != self._failed_digest or time.monotonic() >= self._retry_at:
                    self._follow(champion)
                    self._failed_digest = self._failure = ""
                self._report_poll(champion, self._failure)
            except Exception as error:  # the thread must outlive whatever a store's client raises
                reason = str(error) if isinstance(error, ModelyardError) else describe_error(error)
                if champion:
                    again, self._failure = champion.digest == self._failed_digest, reason
                    self._backoff = min(MAX_BACKOFF, 2 * self._backoff) if again else self._interval
                    self._failed_digest, self._retry_at = champion.digest, time.monotonic() + self._backoff
                self._report_poll(champion, reason)

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def _follow(self, champion: Champion) -> None:
        if champion.version != self._version:
            self._set_predictor(
                load(self._models, self._name, champion.version, champion.digest, self._threads)
            )
            self._version = champion.version

    def _report_poll(self, champion: Champion | None, error: str) -> None:
        """Log how a look ended when that changed, and report it."""
        text = _MEMORY_ADDRESS.sub("", error)  # of an object in the message of a library; it always differs
        if text and text != self._last_error:
            log.warning("still serving version %d of %s: %s", self._version, self._name, text)
        elif self._last_error and not text:
            log.info("version %d of %s is the champion, and is served", self._version, self._name)
        self._last_error = text
        self._report(champion.version if champion else None, error)
